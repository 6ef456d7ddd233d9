#!/usr/bin/env python3
"""check_layers.py passes what is allowed and reports each kind of violation with its file and line."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import check_layers  # noqa: E402

TREE = {
    "include/kvant/status.h": "#include <string>\n",
    "include/kvant/scheme.h": '#include "kvant/status.h"\n',
    "include/kvant/kv_cache.h": '#include "kvant/scheme.h"\n#include <stdint.h>\n',
    "src/base/check.h": "#include <string>\n",
    "src/page/page.h": '#include "base/check.h"\n',
    "src/kernels/attend-inl.h": '#include "page/page.h"\n#include "hwy/highway.h"\n',
    "src/codec/codec.h": '#include "kernels/attend-inl.h"\n',
    "src/codec/registry.h": '#include "codec/codec.h"\n',
    "src/codec/registry.cc": '#include "codec/kivi/kivi.h"\n#include "codec/raw/raw.h"\n',
    "src/codec/parts/pca.cc": "#include <Eigen/Dense>\n",
    "src/codec/kivi/kivi.h": '#include "codec/codec.h"\n',
    "src/codec/raw/raw.h": '#include "codec/codec.h"\n',
    "src/cache/kv_store.h": '#include "codec/codec.h"\n#include "kvant/scheme.h"\n// as KIVI does: kivi\nint raw_bytes;\n',
    "src/attention/attention.h": '#include "cache/kv_store.h"\n#include "kvant/kv_cache.h"\n',
    "src/llama/runner.h": '#include "cache/kv_store.h"\n',
    "src/llama/runner.cc": '#include "llama/runner.h"\n#include <llama.h>\n#include "ggml-backend-impl.h"\n',
    "src/eval/perplexity.h": '#include "llama/runner.h"\n#include "attention/attention.h"\n',
    "src/cache/store_test_util.h": 'const char* name = "kivi";\n',
    "src/cache/kv_store_test.cc": '#include "cache/kv_store.h"\nconst char* name = "kivi";\n',
    "tools/kvant.cc": '#include "eval/perplexity.h"\n#include <CLI/CLI.hpp>\n',
}

# (file, its text, line of the violation, part of the message)
VIOLATIONS = [
    ("src/base/up.h", '\n#include "page/page.h"\n', 2, "base/ does not include page/"),
    ("src/base/up_public.h", '#include "kvant/kv_cache.h"\n', 1, "does not include cache/'s public header"),
    ("src/kernels/up.h", '#include "codec/codec.h"\n', 1, "kernels/ does not include codec/"),
    ("src/kernels/scheme_user.h", '#include "kvant/scheme.h"\n', 1, "does not include codec/'s public header"),
    ("src/cache/deep.h", '#include "codec/parts/pca.h"\n', 1, "no such file"),
    ("src/cache/past_front.h", '#include "codec/raw/raw.h"\n', 1, "beyond its front"),
    ("src/cache/kernel_user.h", '#include "kernels/attend-inl.h"\n', 1, "cache/ does not include kernels/"),
    ("src/codec/kivi/kivi.cc", '#include "codec/raw/raw.h"\n', 1, "only the registry"),
    ("src/codec/kivi/device.cc", '#include "codec/kivi/kivi.cuh"\n', 1, "never includes a .cuh"),
    ("src/codec/raw/raw.cc", "#include <Eigen/Dense>\n", 1, "Eigen stays in"),
    ("src/codec/raw/foreign.cc", "#include <ggml.h>\n", 1, "libllama and ggml stays in llama"),
    ("src/cache/cuda_user.cc", "#include <cuda_runtime.h>\n", 1, "CUDA stays in"),
    ("src/eval/backdoor.cc", '#include "llama/kv_ops.h"\n', 1, "beyond its front"),
    ("src/eval/host.cc", '#include "llama.h"\n', 1, "libllama and ggml stays in llama"),
    ("src/eval/tuner.cc", '#include "tune/allocate.h"\n', 1, "eval/ does not include tune/"),
    ("src/capi/c.cc", '#include "cache/kv_store.h"\n', 1, "public headers only"),
    ("src/page/up.cc", '#include "../tools/verbs.h"\n', 1, "does not include tools/"),
    ("include/kvant/shape.h", '#include "base/check.h"\n', 1, "public headers include only public"),
    ("include/kvant/version.h", "#include <hwy/highway.h>\n", 1, "public headers include only public"),
    ("src/cache/named.cc", '/* kivi\n*/ const char* k = "kivi";\n', 2, "names kivi"),
    ("src/page/named.h", "struct KiviBlock {};\n", 1, "names kivi"),
    ("src/attention/named.h", "void AttendKivi();\n", 1, "names kivi"),
    ("src/llama/named.cc", "int kivi_bits;\n", 1, "names kivi"),
    ("src/eval/named.cc", 'auto s = "k=raw";\nauto c = FindCodec("raw");\n', 2, "names raw"),
    ("src/engine/new.cc", "\n", 1, "unknown layer 'engine'"),
    ("tools/cmd_run.cc", "#include <llama.h>\n", 1, "libllama and ggml stays in llama"),
]
HELPERS = {
    "src/codec/kivi/kivi.cuh": "",
    "src/llama/kv_ops.h": "",
    "src/tune/allocate.h": "",
    "tools/verbs.h": "",
}


def write(root, files):
    for name, text in files.items():
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class CheckLayersTest(unittest.TestCase):
    def test_allowed_tree_passes(self):
        with tempfile.TemporaryDirectory() as root:
            write(root, TREE)
            self.assertEqual(check_layers.check_tree(root), [])

    def test_each_violation_is_reported_once(self):
        for name, text, line, message in VIOLATIONS:
            with self.subTest(name), tempfile.TemporaryDirectory() as root:
                write(root, {**TREE, **HELPERS, name: text})
                found = check_layers.check_tree(root)
                self.assertEqual(len(found), 1, found)
                self.assertTrue(found[0].startswith(f"{name}:{line}: "), found)
                self.assertIn(message, found[0])


if __name__ == "__main__":
    unittest.main()
