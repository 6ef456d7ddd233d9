"""kvant_soak on the demo model, about ten seconds each: two runners on the CPU that must agree. Long runs are made by hand, see docs/llama.md."""

import json
import subprocess

import pytest

LOAD = ["--device", "cpu", "--context", "512", "--seed", "1"]


def soak(program, model, environment, *arguments):
    command = [program, model, *LOAD, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        # The same sums in another order: 7e-4 with AVX-512, and more or less on other processors. A few rows alone may have a larger
        # mean, so the operations are counted, not timed.
        ["--cache", "k=raw v=raw", "--reference-cache", "f16", "--limit", "0.05", "--mean-limit", "2e-3", "--threads", 2],
        # The same sums in the same order.
        ["--cache", "kv4", "--threads", 2, "--reference-threads", 1, "--limit", "1e-6", "--mean-limit", "1e-6"],
    ],
    ids=["raw", "threads"],
)
def test_runners_agree(kvant_soak, demo_model, environment, tmp_path, arguments):
    process = soak(kvant_soak, demo_model, environment, *arguments, "--replay", 34, "--json", tmp_path / "soak.json")
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["failure"] is None and report["seed"] == 1
    assert report["operations"] == 34 and report["kl"]["rows"] > 500
    assert process.stdout.splitlines()[-1].startswith(f"soak: {report['operations']} operations, {report['tokens']} tokens")


# With the limit of the raw cache above: what it has must stay below.
def test_a_difference_is_found(kvant_soak, demo_model, environment, tmp_path):
    arguments = ["--cache", "k=int:2 v=int:2", "--reference-cache", "f16", "--limit", "0.05", "--replay", 50]
    process = soak(kvant_soak, demo_model, environment, *arguments, "--json", tmp_path / "soak.json")
    assert process.returncode == 1
    report = json.loads((tmp_path / "soak.json").read_text())
    assert 0 < report["operations"] < 50 and "the limit is 0.05" in report["failure"]
    assert "seed 1, the last operations:" in process.stderr
    assert f"\n  {report['operations']}: " in process.stderr
