"""kvant inspect on models of other architectures with random weights."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "plugin"))
import tiny_models  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """model("gemma2") -> path of a small model."""
    folder = tmp_path_factory.mktemp("models")

    def write(name):
        path = folder / f"{name}.gguf"
        if not path.exists():
            tiny_models.write(name, path)
        return path

    return write


def inspect_json(kvant, *arguments, code=0):
    process = kvant("inspect", *arguments, "--json")
    assert process.returncode == code, process.stderr
    return json.loads(process.stdout)


def test_json_has_what_the_table_has(kvant, demo_model):
    arguments = [demo_model, "--memory", "50MB", "--cache", "k=int:4 v=int:2"]
    text = kvant("inspect", *arguments).stdout
    report = inspect_json(kvant, *arguments)
    assert (report["format"], report["format_version"], report["supported"]) == ("kvant-inspect", 1, True)
    assert report["layers"] == [
        {"blocks": list(range(12)), "memory": "all", "kv_heads": 2, "k_size": 128, "v_size": 128, "fp16_bytes_per_token": 1024}
    ]
    assert [c["cache"] for c in report["caches"]][-1] == "k=int:4 v=int:2"
    for cache in report["caches"]:
        assert 0 < cache["largest_context"] <= report["context"]
        assert f"{cache['bytes_per_token']:.0f}" in text and str(cache["largest_context"]) in text


def test_sliding_windows(kvant, model):
    process = kvant("inspect", model("gemma2"), "--memory", "1MB")
    assert process.returncode == 0, process.stderr
    assert "0, 2    the last 96 tokens" in process.stdout and "1, 3    all tokens" in process.stdout
    assert "Blocks 0, 2 look back 96 tokens (sliding window)" in process.stdout
    report = inspect_json(kvant, model("gemma2"))
    assert report["window"] == 96 and report["caches"][0]["bytes_per_token"] == 2 * 2 * 2 * 64 * 2


def test_recurrent_models_are_explained_and_refused(kvant, model):
    process = kvant("inspect", model("mamba"))
    assert process.returncode == 1
    assert "0-3     a state (recurrent)" in process.stdout and "nothing to compress" in process.stdout
    assert process.stderr.count("\n") == 1 and "recurrent blocks, which are not supported" in process.stderr
    report = inspect_json(kvant, model("mamba"), code=1)
    assert not report["supported"] and report["caches"] == []
