"""What the command line does for shells and people beside its work: completions, the manual, help, messages, exit codes."""

import json
import os
import pty
import shutil
import subprocess

import pytest
from conftest import ROOT

TEXT = ROOT / "DESIGN.md"
QUICK = ["--text", TEXT, "--cache", "kv4", "--tokens", 128, "--needles", 0, "--decode", 0, "--no-cache"]

# ---- completions

COMPLETE = """
source "$SCRIPT"
COMP_LINE="$1" COMP_POINT=${#1}
_kvant
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def complete(kvant, tmp_path_factory):
    """complete("kvant ru") -> what bash would offer, in an empty folder but for two models and a plan."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("a.gguf", "b.gguf", "plan.json", "notes.txt"):
        (folder / name).touch()
    script = folder.parent / "kvant.bash"
    script.write_text(kvant("completion", "bash").stdout)

    def run(line):
        environment = {"PATH": os.environ["PATH"], "SCRIPT": str(script)}
        process = subprocess.run(
            ["bash", "--norc", "-c", COMPLETE, "bash", line], capture_output=True, text=True, cwd=folder, env=environment, check=False
        )
        assert process.stderr == ""
        return process.stdout.split()

    return run


def test_bash_completes_verbs(complete):
    assert {"run", "eval", "inspect", "codecs", "bench", "completion", "man"} <= set(complete("kvant "))
    assert complete("kvant ev") == ["eval"]
    assert complete("kvant bench ") == ["attend", "codec", "model"]


def test_bash_completes_options_of_the_verb(complete):
    assert "--needles" in complete("kvant eval m.gguf --") and "--needles" not in complete("kvant run m.gguf --")
    assert complete("kvant eval m.gguf --scored") == ["--scored-batch"]
    assert "--repeats" in complete("kvant bench attend --") and "--repeats" not in complete("kvant bench codec --")
    assert "--version" in complete("kvant --")


def test_bash_completes_values(complete):
    assert complete("kvant eval --progress ") == ["auto", "bar", "json", "none"]
    assert complete("kvant eval --progress=j") == ["json"]
    assert complete("kvant completion ") == ["bash", "zsh", "fish"]
    assert sorted(complete("kvant inspect ")) == ["a.gguf", "b.gguf"]
    assert complete("kvant eval a.gguf --text n") == ["notes.txt"]
    assert complete("kvant eval a.gguf --threads ") == []


def test_bash_completes_caches(complete):
    assert {"kv8", "kv4", "kv3", "kv2", "f16", "decoquant", "plan.json"} <= set(complete("kvant run --cache "))
    assert complete("kvant run --cache kv") == ["kv8", "kv4", "kv3", "kv2", "kvquant"]
    assert complete("kvant eval --cache kv8,f1") == ["kv8,f16"]
    assert "decoquant" in complete("kvant run --cache k=dec")  # bash replaces what follows '='


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse(kvant, shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    process = kvant("completion", shell)
    assert process.returncode == 0 and process.stderr == ""
    script = tmp_path / "script"
    script.write_text(process.stdout)
    checked = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_fish_completes(kvant, tmp_path):
    if not shutil.which("fish"):
        pytest.skip("no fish")
    script = tmp_path / "kvant.fish"
    script.write_text(kvant("completion", "fish").stdout)

    def complete(line):
        command = f"source {script}; complete -C '{line}'"
        environment = os.environ | {"HOME": str(tmp_path)}
        output = subprocess.run(["fish", "-c", command], capture_output=True, text=True, env=environment, check=True).stdout
        return {entry.split("\t")[0] for entry in output.splitlines()}

    assert {"run", "eval", "bench"} <= complete("kvant ")
    assert "--needles" in complete("kvant eval --n") and "--needles" not in complete("kvant run --n")
    assert complete("kvant eval --progress ") == {"auto", "bar", "json", "none"}
    assert "kv4" in complete("kvant run --cache kv")
    assert "attend" in complete("kvant bench ")


def test_zsh_knows_each_verb(kvant, tmp_path):
    if not shutil.which("zsh"):
        pytest.skip("no zsh")
    script = tmp_path / "_kvant"
    script.write_text(kvant("completion", "zsh").stdout)
    command = f"autoload -Uz compinit; compinit -u -d {tmp_path}/dump; source {script}; print -l ${{(k)functions}} | grep _kvant"
    process = subprocess.run(["zsh", "-f", "-c", command], capture_output=True, text=True, check=False)
    assert {"_kvant", "_kvant_run", "_kvant_eval", "_kvant_bench_attend", "_kvant_caches"} <= set(process.stdout.split())
    assert process.stderr == ""


# ---- manual and help


def test_manual_is_valid_and_complete(kvant):
    page = kvant("man")
    assert page.returncode == 0 and page.stderr == ""
    for part in ("kvant eval", r"\fB\-\-needles\fR", "EXIT STATUS", "KVANT_LOG", "NO_COLOR", "kv4", r"kvant bench attend"):
        assert part in page.stdout, part
    if not shutil.which("groff"):
        pytest.skip("no groff")
    # -ww: all warnings; -z: no output.
    checked = subprocess.run(["groff", "-man", "-ww", "-z"], input=page.stdout.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
    shown = subprocess.run(["groff", "-man", "-Tascii", "-P-c"], input=page.stdout.encode(), capture_output=True, check=True)
    assert b"kvant inspect model.gguf --memory 8G" in shown.stdout


@pytest.mark.parametrize("verb", ["run", "eval", "calibrate", "inspect", "report", "codecs", "bench", "completion", "man"])
def test_help_has_examples(kvant, verb):
    process = kvant(verb, "--help")
    assert process.returncode == 0 and process.stderr == ""
    assert "Examples:" in process.stdout and f"kvant {verb}" in process.stdout.split("Examples:")[1]


def test_help_documents_exit_codes(kvant):
    process = kvant("--help")
    assert "Exit codes:" in process.stdout and "KVANT_LOG" in process.stdout


# ---- messages


def test_progress_as_json(kvant, demo_model):
    process = kvant("eval", demo_model, *QUICK, "--progress=json")
    assert process.returncode == 0
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    assert all(list(line) == ["stage", "done", "total", "seconds"] for line in lines)
    assert {line["stage"] for line in lines} == {"f16", "kv4"}
    for stage in ("f16", "kv4"):
        last = [line for line in lines if line["stage"] == stage][-1]
        assert last["done"] == last["total"] > 0 and last["seconds"] >= 0


def test_quiet_leaves_the_answer_alone(kvant, demo_model):
    arguments = ["run", demo_model, "-p", "Once upon a time", "-n", 4]
    assert "bits per value" in kvant(*arguments).stderr
    assert kvant(*arguments, "--quiet").stderr == ""
    assert kvant("-q", *arguments).stderr == ""
    assert kvant("run", "no.gguf", "-p", "x", "-q").stderr.startswith("kvant: error: ")


def test_log_levels_filter_what_libllama_says(kvant, demo_model):
    def log(level, *options):
        process = kvant("run", demo_model, "-p", "x", "-n", 1, "-q", *options, env=os.environ | {"KVANT_LOG": level})
        assert process.returncode == 0, process.stderr
        return process.stderr.splitlines()

    assert log("none") == []
    info, debug = log("info"), log("debug")
    assert any("llama_model_loader" in line for line in info)
    assert all(line.startswith(("[error]", "[warn]", "[info]")) for line in info)
    assert len(debug) > len(info) and any(line.startswith("[debug]") for line in debug)


def test_unknown_log_level_is_a_usage_error(kvant):
    process = kvant("codecs", env=os.environ | {"KVANT_LOG": "loud"})
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == "kvant: error: KVANT_LOG 'loud'; accepted: none, error, warn, info, debug\n"


def on_terminal(kvant_cli, *arguments, **environment):
    """What a program writes to a standard error that is a terminal."""
    master, slave = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment
    process = subprocess.Popen([kvant_cli, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=slave, env=env)
    os.close(slave)
    output = b""
    try:
        while part := os.read(master, 4096):
            output += part
    except OSError:  # Linux ends a pseudo-terminal so
        pass
    process.wait()
    os.close(master)
    return output.decode()


def test_colours_on_terminals_only(kvant, kvant_cli):
    assert "\033[1;31merror:" in on_terminal(kvant_cli, "sing")
    assert "\033" not in on_terminal(kvant_cli, "sing", NO_COLOR="1")
    assert "\033" not in on_terminal(kvant_cli, "sing", TERM="dumb")
    assert "\033" not in kvant("sing").stderr


def test_bar_on_terminals_only(kvant, kvant_cli, demo_model):
    bar = on_terminal(kvant_cli, "eval", demo_model, *QUICK)
    assert "kv4" in bar and "####" in bar and bar.endswith("\r\033[K")
    assert on_terminal(kvant_cli, "eval", demo_model, *QUICK, "--progress=none") == ""
    assert on_terminal(kvant_cli, "eval", demo_model, *QUICK, "--quiet") == ""
    assert "####" in kvant("eval", demo_model, *QUICK, "--progress=bar").stderr
