# The front door. `make test` and `make demo` work on a fresh Debian 12 with a C++ compiler; CMake does the work.
#
#   make setup     packages, libllama and Python environment (make KVANT_CACHE=... to keep them elsewhere than ~/.cache/kvant)
#   make build     the release build: build/release/tools/kvant, build/release/src/llama/libggml-kvant.so
#   make test      setup, build, all tests
#   make demo      setup, build, the main job on the demo model; CONTEXT=16384 sets the context length
#   make asan      the unit tests with address and undefined-behaviour sanitizers
#   make check PRESET=no_llama   build and test another preset of CMakePresets.json
#   make clean     removes build/; the cache folder stays
.PHONY: setup build test demo asan check clean
.NOTPARALLEL:

PRESET ?= release

setup:
	@tools/dev/setup.sh

build: setup
	@tools/dev/check_preset.sh --build-only release

test: setup
	@tools/dev/check_preset.sh release

asan: setup
	@tools/dev/check_preset.sh asan

check: setup
	@tools/dev/check_preset.sh $(PRESET)

demo: build
	@CONTEXT="$(CONTEXT)" tools/demo.sh

clean:
	@rm -rf build
