"""libggml-kvant.so in an unmodified llama.cpp host: the llama_cpp package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models

HOST = Path(__file__).with_name("host.py")
RAW = "k=raw v=raw"


@pytest.fixture
def run(kvant_plugin, demo_model):
    """run(scenario, scheme, **arguments): the scenario's result; scheme None is the stock cache."""

    def _run(scenario, scheme=RAW, environment=None, **arguments):
        arguments = {"model": str(demo_model), "plugin": str(kvant_plugin) if scheme else None, **arguments}
        settings = {**os.environ, "KVANT_SCHEME": scheme or "", **(environment or {})}
        done = subprocess.run([sys.executable, str(HOST), scenario, json.dumps(arguments)], env=settings,
                              capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return _run


def divergence(a, b):
    """KL divergence of two rows of logits."""
    a, b = np.asarray(a), np.asarray(b)
    p, q = a - np.logaddexp.reduce(a), b - np.logaddexp.reduce(b)
    return float(np.sum(np.exp(p) * (p - q)))


@pytest.mark.parametrize("chunk", [1, 5, 50])
def test_raw_agrees_with_the_stock_cache(run, chunk):
    stock = run("losses", None, work={"chunk": chunk})
    ours = run("losses", work={"chunk": chunk})
    assert ours["loss"] == pytest.approx(stock["loss"], abs=0.02)


def test_a_graph_is_one_piece(run):
    (line,) = run("agreement", work={"count": 1})["splits"]
    assert "splits = 1," in line


@pytest.mark.parametrize("architecture, swa_full", [("gemma2", False), ("gemma2", True), ("gemma3", False), ("mpt", True)])
def test_windows_softcap_and_alibi(run, tmp_path, architecture, swa_full):
    model = str(tmp_path / "model.gguf")
    tiny_models.write(architecture, model)
    settings = {"model": model, "swa_full": swa_full, "work": {"chunks": [1, 4, 20]}}
    stock, ours = run("agreement", None, **settings), run("agreement", **settings)
    spread = np.std(stock["logits"])
    assert np.abs(np.subtract(stock["logits"], ours["logits"])).max() < 0.03 * spread


def test_generates_through_the_high_level_class(run):
    assert "48213" in run("generate")["text"]


def test_memory_is_what_the_tokens_need(run):
    used = run("memory")
    fp16 = 512 * 12 * 2 * 256 * 2
    assert used["empty"] == 0
    assert 1.5 < used["full"] / used["half"] < 2.5
    assert fp16 < used["full"] < 1.3 * fp16
    assert 16 <= used["bits"] < 17


@pytest.mark.parametrize("where", ["state", "state_on_device"])
def test_state_comes_back(run, where):
    assert run(where)["difference"] == 0


def test_rollback(run):
    result = run("remove")
    assert divergence(result["fresh"], result["logits"]) < 2e-3


@pytest.mark.parametrize("unified", [False, True])
def test_a_sequence_is_copied(run, unified):
    result = run("copy", n_seq_max=2, kv_unified=unified)
    assert divergence(result["fresh"], result["logits"]) < 2e-3


@pytest.mark.parametrize("unified", [False, True])
def test_sequences_in_turns(run, unified):
    stock = run("sequences", None, n_seq_max=2, kv_unified=unified)
    ours = run("sequences", n_seq_max=2, kv_unified=unified)
    assert divergence(stock["logits"], ours["logits"]) < 2e-3


@pytest.mark.parametrize("n_seq_max", [1, 2])
def test_context_shift(run, n_seq_max):
    stock = run("shift", None, n_seq_max=n_seq_max, kv_unified=False, n_ctx=1024 * n_seq_max)
    ours = run("shift", n_seq_max=n_seq_max, kv_unified=False, n_ctx=1024 * n_seq_max)
    assert divergence(stock["logits"], ours["logits"]) < 2e-3


# Keys before RoPE: where positions are wrong the divergence is far above 0.1.
BEFORE_ROPE = "k=kvquant:4,fit=256 v=raw"


@pytest.mark.parametrize("n_seq_max", [1, 2])
def test_context_shift_of_keys_before_rope(run, n_seq_max):
    settings = {"n_seq_max": n_seq_max, "kv_unified": False, "n_ctx": 1024 * n_seq_max}
    stock, ours = run("shift", None, **settings), run("shift", BEFORE_ROPE, **settings)
    assert divergence(stock["logits"], ours["logits"]) < 0.02


@pytest.mark.parametrize("unified", [False, True])
def test_sequences_in_turns_with_keys_before_rope(run, unified):
    settings = {"n_seq_max": 2, "kv_unified": unified}
    stock, ours = run("sequences", None, **settings), run("sequences", BEFORE_ROPE, **settings)
    assert divergence(stock["logits"], ours["logits"]) < 0.02


@pytest.mark.parametrize("where", ["state", "state_on_device"])
def test_state_of_keys_before_rope_comes_back(run, where):
    assert run(where, BEFORE_ROPE)["difference"] < 0.3  # logits; rows are coded a second time


def test_rollback_of_keys_before_rope(run):
    result = run("remove", BEFORE_ROPE)
    assert divergence(result["fresh"], result["logits"]) < 0.02


def test_keys_before_rope_without_rope_are_refused(run, tmp_path):
    model = str(tmp_path / "model.gguf")
    tiny_models.write("mpt", model)
    assert "the model does not turn them" in only_error(run("opened", BEFORE_ROPE, model=model))


def test_a_plan_for_another_number_of_layers_is_refused(run, tmp_path):
    path = tmp_path / "plan.json"
    plan = {"format": "kvant-plan", "format_version": 1, "model_hash": "0", "layers": ["k=raw v=raw"] * 12}
    path.write_text(json.dumps(plan))
    stock, ours = run("losses", None, work={"chunk": 50}), run("losses", str(path), work={"chunk": 50})
    assert ours["loss"] == pytest.approx(stock["loss"], abs=0.02)
    for layers in (11, 13):
        path.write_text(json.dumps(plan | {"layers": ["k=raw v=raw"] * layers}))
        assert f"{layers} layers" in only_error(run("opened", str(path)))


def test_memory_limit_fails_the_decode_and_not_the_host(run):
    result = run("limit", environment={"KVANT_MEMORY_LIMIT": "4M"})
    assert "-2" in result["error"] and "4194304" in result["error"]
    assert np.isfinite(result["after"])


def test_calibrated_bases_are_used(run, kvant, demo_model, tmp_path):
    codec, path = "decoquant:bits=4,gauge=klt,metric=model", tmp_path / "c.safetensors"
    text = Path(__file__).parents[2] / "DESIGN.md"
    process = kvant("calibrate", demo_model, "--text", text, "--codec", codec, "--tokens", 1024, "-o", path)
    assert process.returncode == 0, process.stderr
    stock = run("losses", None)
    ours = run("losses", codec, environment={"KVANT_CALIBRATION": str(path)})
    assert ours["loss"] == pytest.approx(stock["loss"], abs=0.05)
    assert "kvant calibrate MODEL" in only_error(run("opened", codec))


# ---- what is refused, with one line in the host's log

def only_error(result):
    assert not result["context"]
    assert len(result["errors"]) == 1
    return result["errors"][0]


def test_scheme_that_does_not_parse(run):
    result = run("opened", "k=nonsense")
    assert not result["registry"] and result["context"]
    assert "KVANT_SCHEME" in result["errors"][0] and "nonsense" in result["errors"][0]


def test_limit_that_does_not_parse(run):
    result = run("opened", environment={"KVANT_MEMORY_LIMIT": "4X"})
    assert not result["registry"]
    assert "KVANT_MEMORY_LIMIT=4X" in result["errors"][0]


def test_calibration_that_is_none(run, tmp_path):
    result = run("opened", environment={"KVANT_CALIBRATION": str(tmp_path / "no.safetensors")})
    assert not result["registry"]
    assert "KVANT_CALIBRATION" in result["errors"][0] and "no.safetensors" in result["errors"][0]


def test_quantised_cache_type(run):
    assert "leave the K and V cache types at f16" in only_error(run("opened", type_k=8, type_v=8))


def test_no_flash_attention(run):
    assert "flash attention" in only_error(run("opened", flash_attn_type=0))


def test_layers_on_the_cpu(run):
    assert "lies outside KVANT0" in only_error(run("opened", gpu_layers=0))
    assert "lies outside KVANT0" in only_error(run("opened", offload_kqv=False))


def test_recurrent_model(run, tmp_path):
    model = str(tmp_path / "model.gguf")
    tiny_models.write("mamba", model)
    assert "a recurrent or indexer state" in only_error(run("opened", model=model))


def test_host_with_another_ggml(run, tmp_path):
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text('const char *ggml_commit(void) { return "deadbeef"; }\n')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    result = run("opened", environment={"LD_PRELOAD": str(library)})
    assert not result["registry"] and result["context"]
    assert "deadbeef" in result["errors"][0] and "KVANT_LLAMA_SOURCE_DIR" in result["errors"][0]
