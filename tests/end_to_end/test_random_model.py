"""Models with random weights (tools/make_random_gguf.py) are models like others to the command line."""

import subprocess
import sys

import pytest
from conftest import ROOT

gguf = pytest.importorskip("gguf")

SHAPE = {"layers": 2, "width": 256, "heads": 4, "kv-heads": 2, "ffn": 512, "vocab": 512, "context": 1024}


def make(path, **changes):
    options = {**SHAPE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, ROOT / "tools" / "make_random_gguf.py", path, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "tiny.gguf"
    process = make(path)
    assert process.returncode == 0, process.stderr
    assert "meaningless" in process.stdout and str(path) in process.stdout
    return path


def test_inspect_knows_its_shape(kvant, model):
    process = kvant("inspect", model)
    assert process.returncode == 0, process.stderr
    assert "llama, 1.4 M parameters" in process.stdout and "vocabulary 512, context 1024, 4 query heads" in process.stdout
    assert "0-1     all tokens         2      64      64" in process.stdout


@pytest.mark.parametrize("cache", ["f16", "kv4"])
def test_run_generates(kvant, model, cache):
    process = kvant("run", model, "-p", "hello world, once upon a time", "-n", 8, "--context", 256, "--cache", cache)
    assert process.returncode == 0, process.stderr
    assert process.stdout and f"cache {cache} holds" in process.stderr


def test_long_contexts_stay_finite(kvant, model, tmp_path):
    """Logits that are not finite would leave no divergence to print."""
    arguments = ["--cache", "kv8", "--tokens", 768, "--needles", 0, "--decode", 0]
    process = kvant("eval", model, "--text", ROOT / "LICENSE", *arguments)
    assert process.returncode == 0, process.stderr
    kl = float(next(line for line in process.stdout.splitlines() if line.startswith("kv8 ")).split()[2])
    assert 0 <= kl < 0.1


def test_weights_are_as_declared(model):
    tensors = {t.name: t for t in gguf.GGUFReader(model).tensors}
    for name, std in {"token_embd": 1, "blk.1.attn_k": 1 / 16, "blk.1.ffn_down": 0.5 / 512**0.5, "output": 1 / 16}.items():
        weights = gguf.dequantize(tensors[f"{name}.weight"].data, gguf.GGMLQuantizationType.Q8_0)
        assert weights.std() == pytest.approx(std, rel=0.02) and abs(weights.mean()) < 0.02 * std
    assert (tensors["blk.0.attn_norm.weight"].data == 1).all()
    assert (tensors["blk.0.attn_k.weight"].data != tensors["blk.1.attn_k.weight"].data).mean() > 0.9


def test_the_seed_decides(model, tmp_path):
    assert make(tmp_path / "same.gguf").returncode == make(tmp_path / "other.gguf", seed=2).returncode == 0
    assert (tmp_path / "same.gguf").read_bytes() == model.read_bytes() != (tmp_path / "other.gguf").read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vocab": 200}, "--vocab 200: at least 259"),
        ({"vocab": 10**6}, "--vocab 1000000: at most"),
        ({"kv_heads": 3}, "--kv-heads 3: a divisor of --heads 4"),
        ({"width": 257}, "--width 257: a multiple of twice --heads 4"),
        ({"ffn": 100}, "--ffn 100: a multiple of 32"),
        ({"layers": 0}, "--layers 0: at least 1"),
    ],
)
def test_shapes_that_are_none_are_refused(tmp_path, changes, reason):
    process = make(tmp_path / "a.gguf", **changes)
    assert process.returncode != 0 and reason in process.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
