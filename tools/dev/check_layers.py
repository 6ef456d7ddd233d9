#!/usr/bin/env python3
"""Checks that folders are layers: who may include whom, and who may name a codec.

    check_layers.py [ROOT]      prints file:line: message for each violation, exits 1 when there is one

The tables below are the rules of CONTRIBUTING.md ("Tree"). Tests, benchmarks and fuzz targets beside the sources obey the
include rules of their folder; they may name codecs.
"""

import re
import sys
from pathlib import Path

# --- the rules -----------------------------------------------------------------------------------------------------

CODEC_FRONT = {"src/codec/codec.h", "src/codec/registry.h", "src/codec/calibrated.h", "src/codec/device_format.h"}
RUNNER = {"src/llama/runner.h"}

# Layer -> (layers whose every header it may include, single headers beyond those). A layer may include itself.
MAY_INCLUDE = {
    "base": (set(), set()),
    "page": ({"base"}, set()),
    "kernels": ({"base", "page"}, set()),
    "codec": ({"base", "page", "kernels"}, set()),
    "cache": ({"base", "page"}, CODEC_FRONT),
    "attention": ({"base", "page", "kernels", "cache"}, CODEC_FRONT),
    "cuda": ({"base", "page"}, CODEC_FRONT | {"src/codec/parts/tile.h", "src/codec/parts/hadamard.h", "src/codec/parts/sketch.h",
                                          "src/codec/parts/trellis.h"}),
    "device_cache": ({"base", "page", "cache", "cuda"}, CODEC_FRONT),
    "calibrate": ({"base", "page"}, CODEC_FRONT | {"src/codec/parts/covariance.h"}),
    "llama": ({"base", "page", "cache", "attention", "device_cache", "calibrate"}, CODEC_FRONT),
    "eval": ({"base", "page", "cache", "attention"}, CODEC_FRONT | RUNNER | {"src/calibrate/row_watcher.h"}),
    "tune": ({"base", "page", "cache", "attention", "eval"}, CODEC_FRONT | RUNNER | {"src/calibrate/row_watcher.h"}),
    "report": ({"base", "eval"}, set()),
    "capi": (set(), set()),
}

# A public header belongs to the layer that implements it, and may be included from there upward.
PUBLIC_LAYER = {
    "status.h": "base", "version.h": "base", "shape.h": "page", "token_class.h": "base",
    "codec_info.h": "codec", "scheme.h": "codec", "calibration.h": "codec", "plan.h": "codec",
    "kv_cache.h": "cache", "attention.h": "attention", "device_codec.h": "cuda",
    "c.h": "capi", "kvant.h": "capi",
}  # fmt: skip
PUBLIC_CODEC_FRONT = {"codec_info.h", "scheme.h", "calibration.h", "plan.h"}
ORDER = ["base", "page", "kernels", "codec", "cache", "attention", "cuda", "device_cache", "calibrate", "llama", "eval", "tune", "report", "capi"]

# Folders above all layers; they may include everything.
TOP = {"tools", "python", "bench", "examples", "fuzz", "tests"}

# Where the headers of others may appear.
FOREIGN = [
    (re.compile(r"^(ggml|gguf|llama)([-_].*)?\.h$"), {"llama"}, "libllama and ggml"),
    (re.compile(r"^(Eigen|unsupported/Eigen)/"), {"codec/parts", "eval", "tune"}, "Eigen"),
    (re.compile(r"^CLI/"), set(), "CLI11"),
    (re.compile(r"^(Cbc|Clp|Osi|Coin)\w*\.h"), {"tune"}, "CBC"),
    (re.compile(r"^nlohmann/"), {"eval", "tune", "calibrate", "report"}, "nlohmann/json"),
    (re.compile(r"^(cuda|cub|thrust|cooperative_groups|mma)([_./].*|$)"), {"device_cache"}, "CUDA"),
]
EVERYWHERE = re.compile(r"^(hwy|gtest|gmock|benchmark)/")  # Highway, and what programs beside the sources use

# In these folders no codec is named. A codec whose name is an ordinary word is looked for in the forms that can only mean it.
NO_CODEC_NAMES = {"page", "kernels", "cache", "attention", "cuda", "device_cache", "llama", "eval", "tune", "calibrate", "report", "capi"}
ORDINARY_WORDS = {"int", "raw"}
REGISTRIES = {"src/codec/registry.cc", "src/codec/registry_cuda.cc"}

SOURCE_SUFFIXES = {".h", ".cc", ".cuh", ".cu"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


# --- reading -------------------------------------------------------------------------------------------------------

_COMMENT_OR_LITERAL = re.compile(
    r"//[^\n]*|/\*.*?\*/|R\"(?P<d>[^()\\\s]*)\(.*?\)(?P=d)\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S
)


def without_comments(text):
    """The text with comments blanked out, string literals and line numbers kept."""

    def replace(match):
        part = match.group(0)
        if part.startswith(("//", "/*")):
            return re.sub(r"[^\n]", " ", part)
        return part

    return _COMMENT_OR_LITERAL.sub(replace, text)


def is_program(path):
    """A test, benchmark or fuzz target, or what tests share."""
    return bool(re.search(r"_(test|bench|fuzz)\.(cc|cu)$|_test_util\.h$", path))


def layer_of(path):
    """'base'...'capi' for src/, 'public' for include/kvant, 'top' for what stands above, None for neither."""
    parts = path.split("/")
    if parts[0] == "src":
        return parts[1] if len(parts) > 2 else None
    if parts[:2] == ["include", "kvant"]:
        return "public"
    return "top" if parts[0] in TOP else None


def codec_of(path):
    """The codec folder that a file lies in; None outside of one."""
    parts = path.split("/")
    if parts[:2] == ["src", "codec"] and len(parts) > 3 and parts[2] != "parts":
        return parts[2]
    return None


# --- checking ------------------------------------------------------------------------------------------------------


def resolve(root, path, name):
    """The file of ours that an include means, relative to the root; None for a foreign header."""
    for folder in ("src", "include", "."):
        if (root / folder / name).is_file():
            return str((root / folder / name).resolve().relative_to(root))
    beside = (root / path).parent / name
    if beside.is_file():
        return str(beside.resolve().relative_to(root))
    return None


def check_include(root, path, name, quoted):
    """Messages about one include of one file."""
    layer, target = layer_of(path), resolve(root, path, name)
    if target is None:
        return check_foreign(path, layer, name, quoted)
    if target.endswith(".cuh") and not path.endswith((".cu", ".cuh")):
        return [f"{name}: a {Path(path).suffix} file never includes a .cuh"]
    if layer == "top":
        return []
    target_layer = layer_of(target)
    if layer == "public":
        return [] if target_layer == "public" else [f"{name}: public headers include only public headers"]
    if target_layer == "public":
        return check_public(layer, name, Path(target).name)
    if target_layer not in MAY_INCLUDE:
        return [f"{name}: {layer}/ does not include {target.split('/')[0]}/"]
    if layer == "capi" and target_layer != "capi":
        return [f"{name}: capi/ reaches the library through public headers only"]
    layers, headers = MAY_INCLUDE[layer]
    if target_layer != layer and target_layer not in layers and target not in headers:
        return [f"{name}: {layer}/ does not include {target_layer}/" + (" beyond its front" if headers else "")]
    own, other = codec_of(path), codec_of(target)
    if other and other != own and path not in REGISTRIES:
        return [f"{name}: only the registry includes a codec's folder; shared code belongs to codec/parts/"]
    return []


def check_public(layer, name, header):
    if header not in PUBLIC_LAYER:
        return [f"{name}: unknown public header, give it a layer in check_layers.py"]
    header_layer = PUBLIC_LAYER[header]
    layers, _ = MAY_INCLUDE[layer]
    allowed = layers | {layer}
    if layer == "capi":
        allowed = set(ORDER[: ORDER.index("calibrate") + 1]) | {"capi"}
    if header_layer in allowed:
        return []
    if header in PUBLIC_CODEC_FRONT and ORDER.index(layer) >= ORDER.index("codec"):
        return []
    return [f"{name}: {layer}/ does not include {header_layer}/'s public header"]


def check_foreign(path, layer, name, quoted):
    if layer == "public" and (quoted or "/" in name or name.endswith(".h") and name not in C_HEADERS):
        return [f"{name}: public headers include only public and standard headers"]
    folder = path.split("/src/")[-1].removeprefix("src/")
    for pattern, allowed, what in FOREIGN:
        if not pattern.match(name):
            continue
        if what == "CUDA":
            return [] if path.endswith((".cu", ".cuh")) else [f"{name}: CUDA stays in *.cu, *.cuh"]
        if layer == "llama" and Path(path).name in ("runner.h", "no_llama.cc"):
            return [f"{name}: {Path(path).name} has no foreign types"]
        if what == "libllama and ggml" and path.startswith("tests/"):
            return []
        if layer == "top" and what != "libllama and ggml":
            return []
        if any(folder.startswith(place + "/") for place in allowed):
            return []
        return [f"{name}: {what} stays in {', '.join(sorted(allowed)) or 'tools'}"]
    if quoted and layer != "top" and not EVERYWHERE.match(name):
        return [f"{name}: no such file under src/ or include/"]
    return []


C_HEADERS = {"stddef.h", "stdint.h", "stdbool.h", "stdio.h", "string.h"}


def name_pattern(codec):
    """Finds a codec's name as an identifier's word or in a string, in snake_case, PascalCase and CONSTANT_CASE."""
    if codec in ORDINARY_WORDS:
        return re.compile(rf'"{codec}[:"]|\b{codec}::|[=;,/ "]{codec}:[a-z]+=')
    forms = {codec, codec.upper(), codec.capitalize()}
    # An identifier's word ends where the next one starts: at "_", a digit, a capital, or the identifier's end.
    return re.compile("|".join(rf"(?<![A-Za-z]){re.escape(f)}(?![a-z])|(?<=[a-z0-9]){re.escape(codec.capitalize())}(?![a-z])"
                               for f in sorted(forms)))  # fmt: skip


def check_file(root, path, codecs):
    text = without_comments((root / path).read_text(encoding="utf-8", errors="replace"))
    layer = layer_of(path)
    names_matter = layer in NO_CODEC_NAMES and not is_program(path)
    if layer not in MAY_INCLUDE and layer not in ("public", "top"):
        yield 1, f"unknown layer '{layer}', give it a row in check_layers.py"
        return
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            for message in check_include(root, path, match.group(1) or match.group(2), match.group(1) is not None):
                yield number, message
        elif names_matter:
            for codec, pattern in codecs:
                if pattern.search(line):
                    yield number, f"{layer}/ knows no codec by name, this one names {codec}"


def source_files(root):
    for top in ["src", "include", *sorted(TOP)]:
        for file in sorted((root / top).rglob("*")):
            if file.suffix in SOURCE_SUFFIXES and file.is_file():
                yield str(file.relative_to(root))


def codec_names(root):
    folder = root / "src" / "codec"
    names = [f.name for f in sorted(folder.iterdir()) if f.is_dir() and f.name != "parts"] if folder.is_dir() else []
    return [(name, name_pattern(name)) for name in names]


def check_tree(root):
    """All violations below root, as 'file:line: message'."""
    root = Path(root).resolve()
    codecs = codec_names(root)
    return [f"{path}:{line}: {message}" for path in source_files(root) for line, message in check_file(root, path, codecs)]


def main(argv):
    root = argv[1] if len(argv) > 1 else Path(__file__).resolve().parents[2]
    violations = check_tree(root)
    for violation in violations:
        print(violation)
    print(f"check_layers: {len(violations)} violation{'s' * (len(violations) != 1)}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
