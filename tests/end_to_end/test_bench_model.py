"""kvant bench model on the demo model, at small lengths: the numbers are checked for sense."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


def bench(kvant, *arguments):
    return kvant("bench", "model", *arguments, "--threads", 2)


def test_times_caches_at_lengths(kvant, demo_model, tmp_path):
    sizes = ["--at", "256,128", "--predict", 4, "--sequences", 2]
    process = bench(kvant, demo_model, "--cache", "f16,llama:q8_0", "--cache", "k=int:4 v=int:4", *sizes, "--json", tmp_path / "a.json")
    assert process.returncode == 0, process.stderr
    assert process.stderr == "" and "2 threads" in process.stdout
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["format"], report["format_version"], report["model"]) == ("kvant-bench-model", 1, demo_model.name)
    assert (report["predict"], report["sequences"], report["prompt_batch"]) == (4, 2, 512)
    assert report["environment"]["device"] and report["environment"]["threads"] == 2
    caches = ["f16", "llama:q8_0", "k=int:4 v=int:4"]
    assert [(r["cache"], r["tokens"]) for r in report["rows"]] == [(c, n) for c in caches for n in (128, 256)]
    for row in report["rows"]:
        assert row["prefill_tokens_per_s"] > 0 and row["x_first"] > 0
        assert 0 < row["decode_p10_ms"] <= row["decode_ms"] <= row["decode_p90_ms"]
        assert f"{row['decode_ms']:.2f}" in process.stdout
    # 12 layers, K and V of 2 heads of 128 values
    assert [r["cache_bytes"] / (2 * r["tokens"] * 12 * 512) for r in report["rows"][:4]] == [2, 2, 34 / 32, 34 / 32]
    assert report["rows"][5]["cache_bytes"] < report["rows"][1]["cache_bytes"]


def test_what_does_not_fit_says_so(kvant, demo_model):
    process = bench(kvant, demo_model, "--cache", "f16,kv4", "--at", "128,512", "--predict", 2, "--memory-limit", "5MB")
    assert process.returncode == 0, process.stderr
    rows = [line.split() for line in process.stdout.splitlines()[2:6]]
    assert [row[:2] for row in rows] == [["f16", "128"], ["f16", "512"], ["kv4", "128"], ["kv4", "512"]]
    assert rows[1][2:5] == ["does", "not", "fit"] and float(rows[0][3]) > 0
    assert "\nf16 at 512: cache f16: 6316032 bytes for 514 tokens, the limit is 5000000\n" in process.stdout


def test_wrong_arguments_are_found_before_anything_is_timed(kvant, demo_model):
    for arguments, reason in (
        (["--at", 20000], "--at 20000 and --predict 64: the model was trained for at most 16384 tokens"),
        (["--cache", "f16,kv5"], "kv5"),
        (["--at", "64,0"], "--at"),
        (["--sequences", 0], "--sequences"),
        (["--json", "/no/such/folder/a.json"], "/no/such/folder"),
    ):
        process = bench(kvant, demo_model, *arguments)
        assert process.returncode in (1, 2) and process.stdout == "" and process.stderr.count("\n") == 1
        assert reason in process.stderr


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """16 KB of fp16 cache per token, at most 2048 tokens."""
    path = tmp_path_factory.mktemp("random") / "small.gguf"
    shape = {"layers": 8, "width": 512, "heads": 4, "kv-heads": 4, "ffn": 512, "vocab": 512, "context": 2048}
    words = [word for name, value in shape.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, ROOT / "tools" / "make_random_gguf.py", path, *words], check=True, stdout=subprocess.DEVNULL)
    return path


def test_fit_finds_the_longest_context(kvant, small_model, tmp_path):
    def fit(limit):
        process = bench(kvant, small_model, "--fit", limit, "--cache", "f16,kv4", "--json", tmp_path / "a.json")
        assert process.returncode == 0, process.stderr
        report = json.loads((tmp_path / "a.json").read_text())
        assert (report["format"], report["limit_bytes"]) == ("kvant-bench-fit", limit)
        for row in report["rows"]:
            assert 0 < row["used_bytes"] <= limit and str(row["tokens"]) in process.stdout
        return report["rows"]

    f16, kv4 = fit(1_000_000_000)
    assert f16["tokens"] == kv4["tokens"] == 2048 and f16["is_whole_context"] and kv4["x_first"] == 1
    assert 15_000 < f16["bytes_per_token"] < 25_000  # rows, and buffers that grow with the context
    assert kv4["used_bytes"] + 5_000_000 < f16["used_bytes"]  # resident memory is known to some megabytes
    less, same = fit(f16["used_bytes"] - 5_000_000)
    assert 1024 <= less["tokens"] <= 1792 and less["tokens"] % 256 == 0 and not less["is_whole_context"]
    assert same["tokens"] == 2048 and same["x_first"] == 2048 / less["tokens"]


def test_fit_says_what_it_cannot_do(kvant, demo_model, small_model):
    process = bench(kvant, small_model, "--fit", "20MB", "--cache", "f16")
    assert process.returncode == 0 and "does not fit" in process.stdout and "tokens already take" in process.stdout
    process = bench(kvant, demo_model, "--fit", "1000GB")
    assert process.returncode == 2 and "--fit of 1000.00 GB" in process.stderr
    process = bench(kvant, demo_model, "--fit", "1GB", "--at", 128)
    assert process.returncode == 2 and "--at excludes --fit" in process.stderr
