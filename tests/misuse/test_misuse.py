"""Wrong input: one line that names the thing, its value and what is accepted; the right exit code; nothing left behind."""

import json
import subprocess

import pytest
from conftest import ROOT

FAILED, USAGE = 1, 2
TEXT = ROOT / "DESIGN.md"


@pytest.fixture(name="refused")
def fixture_refused(kvant, tmp_path):
    """refused(code, words, *arguments): runs kvant in an empty folder and checks how it refuses."""
    folder = tmp_path / "cwd"
    folder.mkdir()

    def check(code, words, *arguments, **options):
        process = kvant(*arguments, cwd=folder, **options)
        assert process.returncode == code, process.stderr
        assert process.stderr.startswith("kvant: error: ")
        assert process.stderr.count("\n") == 1 and process.stderr.endswith("\n")
        assert process.stdout == ""
        for word in words:
            assert word in process.stderr
        assert list(folder.iterdir()) == []

    return check


def write(path, content):
    path.write_bytes(content)
    return path


# ---- command line


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["no verb", "run, eval, calibrate, tune, inspect, report, codecs"], []),
        (["unknown verb 'sing'", "accepted: run, eval"], ["sing"]),
        (["MODEL", "required"], ["run"]),
        (["--nonsense", "kvant run --help"], ["run", "m.gguf", "--nonsense"]),
        (["--threads", "0", "1 to 512"], ["run", "m.gguf", "--threads", "0"]),
        (["--threads", "two"], ["run", "m.gguf", "--threads", "two"]),
        (["--predict", "-1"], ["run", "m.gguf", "-n", "-1"]),
        (["--temperature", "-0.5"], ["run", "m.gguf", "--temperature", "-0.5"]),
        (["--prompt", "--file"], ["run", "m.gguf", "-p", "x", "--file", "y"]),
        (["--text", "required"], ["eval", "m.gguf"]),
        (["--memory", "lots"], ["inspect", "m.gguf", "--memory", "lots"]),
        (["--text", "required"], ["calibrate", "m.gguf", "--codec", "decoquant"]),
        (["--codec", "required"], ["calibrate", "m.gguf", "--text", "t"]),
        (["--window", "100"], ["calibrate", "m.gguf", "--text", "t", "--codec", "x", "--window", "100"]),
        (["JSON", "required"], ["report", "-o", "x.html"]),
        (["--output", "required"], ["report", "a.json"]),
        (["--progress", "loud", "auto"], ["codecs", "--progress=loud"]),
        (["SHELL", "tcsh", "bash,zsh,fish"], ["completion", "tcsh"]),
        (["--tokens", "7"], ["eval", "m.gguf", "--text", "t", "--tokens", "7"]),
        (["--tasks", "sing", "needle-grid", "drift"], ["eval", "m.gguf", "--text", "t", "--tasks", "drift,sing"]),
        (["--speed-at", "12", "64"], ["eval", "m.gguf", "--text", "t", "--speed-at", "128,12"]),
        (["--results", "--no-cache"], ["eval", "m.gguf", "--text", "t", "--results", "r", "--no-cache"]),
    ],
)
def test_command_lines(refused, words, arguments):
    refused(USAGE, words, *arguments)


# ---- models


def test_missing_model(refused):
    for verb in (["run", "no.gguf", "-p", "x"], ["inspect", "no.gguf"], ["eval", "no.gguf", "--text", TEXT]):
        refused(FAILED, ["no.gguf", "No such file"], *verb)


def test_truncated_model(refused, demo_model, tmp_path):
    whole = demo_model.read_bytes()
    for size in (0, 100, 100_000, len(whole) - 1):
        path = write(tmp_path / "cut.gguf", whole[:size])
        refused(FAILED, ["cut.gguf"], "run", path, "-p", "x")
        refused(FAILED, ["cut.gguf"], "inspect", path)


def test_foreign_file_as_model(refused, tmp_path):
    path = write(tmp_path / "picture.gguf", b"\x89PNG\r\n\x1a\n" + bytes(5000))
    refused(FAILED, ["picture.gguf", "not a GGUF"], "inspect", path)
    refused(FAILED, [str(tmp_path)], "inspect", tmp_path)


# ---- caches


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("kv5", ["kv5", "kv4"]),
        ("zip:4", ["zip", "int"]),
        ("int:5", ["int", "bits", "5", "2, 3, 4, 8"]),
        ("int:colour=red", ["int", "colour", "bits"]),
        ("k=int:4 v=zip:4", ["zip", "accepted"]),
        ("int:4 sink=1000", ["sink", "1000", "0..64"]),
        ("llama:q9_9", ["q9_9", "q8_0"]),
        ("int:4 hello", ["hello", "k=, v="]),
        ("", ["empty", "kv4"]),
    ],
)
def test_caches(refused, demo_model, cache, words):
    refused(USAGE, words, "run", demo_model, "-p", "x", "--cache", cache)
    refused(USAGE, words, "eval", demo_model, "--text", TEXT, "--tokens", 128, "--cache", "kv8," + cache)


# ---- sizes


def test_context_beyond_the_model(refused, demo_model):
    refused(USAGE, ["context", "20000", "16384"], "run", demo_model, "-p", "x", "--context", 20000)
    refused(USAGE, ["tokens", "20000", "16384", "accepted"], "eval", demo_model, "--text", TEXT, "--tokens", 20000)


def test_prompt_beyond_the_context(refused, demo_model):
    refused(USAGE, ["--context 64", "--predict 16", "at least"], "run", demo_model, "--file", TEXT, "--context", 64, "-n", 16)


def test_text_too_short_for_the_tokens(refused, demo_model):
    refused(USAGE, ["DESIGN.md", "8192", "accepted: up to"], "eval", demo_model, "--text", TEXT, "--tokens", 8192)


def test_needles_that_do_not_fit(refused, demo_model):
    refused(USAGE, ["50 needles", "256"], "eval", demo_model, "--text", TEXT, "--tokens", 256, "--needles", 50)


def test_skip_that_leaves_nothing(refused, demo_model):
    refused(USAGE, ["skip 256", "1..254"], "eval", demo_model, "--text", TEXT, "--tokens", 256, "--skip", 256)


def test_tasks_without_their_file(refused, demo_model):
    for task in ("last-word", "questions"):
        words = [task, "needs a file", f"--{task} FILE"]
        refused(USAGE, words, "eval", demo_model, "--text", TEXT, "--tokens", 128, "--tasks", task)


@pytest.mark.parametrize(
    ("task", "content", "words"),
    [
        ("last-word", "alone", ["line 1", "a single word"]),
        ("questions", '{"prompt": "x", "answer": "y"}\n{"prompt": 1}', ["line 2", 'no text "prompt"']),
        ("tool-calls", '{"prompt": "x", "tools": [1]}', ["line 1", "parameters"]),
    ],
)
def test_files_of_tasks_are_checked(refused, demo_model, tmp_path, task, content, words):
    path = write(tmp_path / "items.txt", content.encode())
    arguments = ["--text", TEXT, "--tokens", 128, "--needles", 1, "--" + task]
    refused(USAGE, ["items.txt", *words], "eval", demo_model, *arguments, path)
    refused(FAILED, ["no.txt", "No such file"], "eval", demo_model, *arguments, tmp_path / "no.txt")


def test_tasks_that_do_not_fit(refused, demo_model):
    for option, words in (("--speed-at", ["speed", "20016"]), ("--grid-lengths", ["needle grid", "20096"])):
        arguments = ["--text", TEXT, "--tokens", 128, "--needles", 1, option, 20000]
        refused(USAGE, [*words, "16384"], "eval", demo_model, *arguments)


def test_memory_limit(refused, demo_model):
    limit = ["--memory-limit", "100KB", "--context", 8192]
    refused(FAILED, ["100000"], "run", demo_model, "--file", TEXT, "--cache", "int:4", *limit)
    refused(FAILED, ["100000"], "run", demo_model, "--file", TEXT, "--cache", "llama:q8_0", *limit)


# ---- text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b" \n\t ", ["empty"]),
        (b"caf\xe9 au lait", ["not UTF-8", "0xE9", "offset 3"]),
        ("text".encode("utf-16"), ["not UTF-8", "0xFF", "offset 0"]),
    ],
)
def test_text_that_is_none(refused, demo_model, tmp_path, content, words):
    path = write(tmp_path / "text.txt", content)
    refused(FAILED, ["text.txt", *words], "eval", demo_model, "--text", path)
    refused(FAILED, ["text.txt", *words], "run", demo_model, "--file", path)
    refused(FAILED, ["standard input", *words], "run", demo_model, stdin=content)


def test_text_that_cannot_be_read(refused, demo_model, tmp_path):
    refused(FAILED, ["no.txt", "No such file"], "eval", demo_model, "--text", tmp_path / "no.txt")
    refused(FAILED, [str(tmp_path), "folder"], "eval", demo_model, "--text", tmp_path)


# ---- calibrations


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ("zip", ["zip", "decoquant"]),
        ("decoquant:colour=red", ["colour", "gauge"]),
        ("decoquant:gauge=klt,bits=9", ["bits", "9", "0.5..8"]),
        ("int:4", ["int:4", "nothing to calibrate", "decoquant"]),
        ("kv4", ["kv4", "nothing to calibrate"]),
        ("decoquant:gauge=hadamard,metric=model", ["metric=model", "gauge=klt"]),
    ],
)
def test_codecs_that_cannot_be_calibrated(refused, demo_model, tmp_path, codec, words):
    refused(USAGE, words, "calibrate", demo_model, "--text", TEXT, "--codec", codec, "-o", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_calibration_texts_are_checked(refused, demo_model, tmp_path):
    def calibrate(code, words, text):
        codec = ["--codec", "decoquant:gauge=klt", "-o", tmp_path / "a"]
        refused(code, words, "calibrate", demo_model, "--text", TEXT, text, *codec)

    calibrate(FAILED, ["no.txt", "No such file"], tmp_path / "no.txt")
    calibrate(FAILED, ["bad.txt", "not UTF-8", "0xE9"], write(tmp_path / "bad.txt", b"caf\xe9"))
    calibrate(USAGE, ["short.txt", "too few", "256"], write(tmp_path / "short.txt", b"Just a few words."))


def test_calibration_is_not_overwritten_by_accident(refused, tmp_path):
    # The model does not exist: had the work begun, the message would be about it.
    path = write(tmp_path / "a.safetensors", b"mine")
    arguments = ["calibrate", "no.gguf", "--text", TEXT, "--codec", "decoquant:gauge=klt", "-o"]
    refused(USAGE, ["a.safetensors", "exists", "--replace"], *arguments, path)
    refused(FAILED, ["cannot be written"], *arguments, tmp_path / "no" / "a.safetensors")
    refused(FAILED, ["no.gguf"], *arguments, path, "--replace")
    assert path.read_bytes() == b"mine"


def test_a_codec_without_its_calibration(refused, demo_model):
    cache = "decoquant:bits=2,gauge=klt,metric=model"
    command = "kvant calibrate MODEL --text FILE --codec decoquant:bits=2,gauge=klt,code=auto,metric=model,mean=auto"
    evaluate = ["eval", demo_model, "--text", TEXT, "--tokens", 1024]
    for verb in (["run", demo_model, "-p", "x"], evaluate, ["inspect", demo_model]):
        refused(FAILED, ["layer 0 K", command], *verb, "--cache", cache, "--calibration", "none")


def test_foreign_calibrations(refused, demo_model, tmp_path):
    def run(code, words, path):
        refused(code, words, "run", demo_model, "-p", "x", "--cache", "kv4", "--calibration", path)

    run(FAILED, ["no.safetensors", "No such file"], tmp_path / "no.safetensors")
    run(FAILED, ["picture", "not a calibration file"], write(tmp_path / "picture", b"\x89PNG\r\n\x1a\n" + bytes(500)))
    header = b'{"__metadata__":{"format":"pt"}}'
    other = write(tmp_path / "other", len(header).to_bytes(8, "little") + header)
    run(FAILED, ["other", "another kind", "kvant calibrate"], other)
    metadata = {"format": "kvant calibration", "format_version": "1", "model_hash": "0" * 32, "layers": "[[1,64,64]]"}
    metadata |= {"texts": "[]", "tokens": "1", "window": "1"}
    header = json.dumps({"__metadata__": metadata}).encode()
    foreign = write(tmp_path / "foreign", len(header).to_bytes(8, "little") + header)
    run(USAGE, ["foreign", "another model", "0" * 32], foreign)


# ---- reports


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", ["a.json", "not JSON", "kvant eval --json"]),
        (b'{"rows": []}', ["a.json", "another kind"]),
        (b'{"format": "kvant-plan", "format_version": 99, "layers": []}', ["a.json", "99", "up to 1"]),
        (b"\x89PNG\r\n\x1a\n", ["a.json", "not UTF-8"]),
        (b"", ["a.json", "empty"]),
    ],
)
def test_reports_of_other_files(refused, tmp_path, content, words):
    page = write(tmp_path / "page.html", b"old")
    refused(FAILED, words, "report", write(tmp_path / "a.json", content), "-o", page)
    assert page.read_bytes() == b"old"
    refused(FAILED, ["no.json", "No such file"], "report", "no.json", "-o", page)
    refused(FAILED, ["cannot be written"], "report", "no.json", "-o", tmp_path / "no" / "page.html")


# ---- output


def test_output_that_cannot_be_written_is_refused_before_the_work(refused, tmp_path):
    # The model does not exist: had the work begun, the message would be about it.
    missing = tmp_path / "no" / "a.json"
    refused(FAILED, [str(missing), "cannot be written"], "eval", "no.gguf", "--text", TEXT, "--json", missing)
    refused(FAILED, [str(tmp_path), "cannot be written"], "eval", "no.gguf", "--text", TEXT, "--html", tmp_path)


def test_failure_keeps_the_old_result(refused, demo_model, tmp_path):
    path = write(tmp_path / "a.json", b"old")
    refused(USAGE, ["zip"], "eval", demo_model, "--text", TEXT, "--cache", "zip", "--tokens", 128, "--json", path)
    assert path.read_bytes() == b"old"


def test_full_standard_output(kvant, kvant_cli):
    assert kvant("codecs").returncode == 0
    with open("/dev/full", "wb") as full:
        process = subprocess.run([kvant_cli, "codecs"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert process.returncode == FAILED
    assert process.stderr == b"kvant: error: writing to the standard output failed\n"


def test_chat_without_a_template(refused, demo_model):
    refused(FAILED, ["chat template"], "run", demo_model, "-p", "x", "--chat")


# ---- plans


def plan(tmp_path, **changes):
    content = {"format": "kvant-plan", "format_version": 1, "model_hash": "0" * 32, "layers": ["k=raw v=raw"] * 12}
    return write(tmp_path / "plan.json", json.dumps(content | changes).encode())


def test_plans_of_another_model(refused, demo_model, tmp_path):
    for verb in (["run", demo_model, "-p", "x"], ["inspect", demo_model], ["eval", demo_model, "--text", TEXT, "--tokens", 448]):
        refused(USAGE, ["plan.json", "another model", "0" * 32], *verb, "--cache", plan(tmp_path))


def test_schemes_for_other_layers(refused, demo_model):
    refused(USAGE, ["'k12='", "0..11"], "run", demo_model, "-p", "x", "--cache", "kv4 k12=raw")
    refused(USAGE, ["11 layers", "has 12"], "run", demo_model, "-p", "x", "--cache", "kv4 layers=11")


def test_broken_plans(refused, demo_model, tmp_path):
    run = ["run", demo_model, "-p", "x", "--cache"]
    refused(FAILED, ["no.json", "No such file"], *run, "no.json")
    refused(FAILED, ["cut.json", "not a plan"], *run, write(tmp_path / "cut.json", b'{"format": "kvant-plan", "for'))
    refused(FAILED, ["plan.json", "format_version"], *run, plan(tmp_path, format_version=2))
    refused(FAILED, ["plan.json", "layer 0", "'zip'"], *run, plan(tmp_path, layers=["k=zip v=raw"]))
    refused(FAILED, ["plan.json", "sink=99"], *run, plan(tmp_path, sink=99))
    refused(FAILED, ["is a folder"], *run, folder_named(tmp_path / "folder.json"))


def folder_named(path):
    path.mkdir()
    return path


# ---- tune

SMALL_TUNE = ["--tokens", 128, "--codecs", "int:2,int:4"]


def test_tune_budgets(refused, demo_model):
    tune = ["tune", demo_model, "--text", TEXT, "--tokens", 128, "-o", "p.json"]
    refused(USAGE, ["no limit", "--budget", "--max-kl"], *tune)
    refused(USAGE, ["--budget", "'lots'", "64K in 2GiB"], *tune, "--budget", "lots")
    refused(USAGE, ["different contexts"], *tune, "--budget", "64K in 2GiB", "--context", 4096)
    refused(USAGE, ["codec 'zip'"], *tune, "--budget", "3", "--codecs", "zip")
    refused(USAGE, ["ends in .json"], *tune[:-1], "plan.txt", "--budget", "3")
    refused(USAGE, ["--check-tokens 1000000", "at most 16384"], *tune, "--budget", "3", "--check-tokens", 1000000)
    refused(USAGE, ["tokens are too few"], *tune, "--budget", "3", "--check-tokens", 16384)
    refused(FAILED, ["no.txt"], *tune, "--budget", "3", "--check-text", "no.txt")


def test_tune_names_the_smallest_budget(refused, demo_model):
    tune = ["tune", demo_model, "--text", TEXT, "--check-tokens", 128, *SMALL_TUNE, "-o", "p.json"]
    refused(USAGE, ["no plan fits", "bits per value", "bytes per token"], *tune, "--budget", "2")
    refused(USAGE, ["none of them encodes both"], *tune[:8], "--codecs", "k=int:2", "-o", "p.json", "--budget", "2")


def test_tune_does_not_append_to_a_foreign_file(refused, demo_model, tmp_path):
    diary = write(tmp_path / "diary.txt", b"dear diary\n")
    tune = ["tune", demo_model, "--text", TEXT, "--check-tokens", 128, *SMALL_TUNE, "--budget", "3", "-o", tmp_path / "p.json"]
    refused(FAILED, ["diary.txt", "not a journal"], *tune, "--journal", diary)
    assert diary.read_bytes() == b"dear diary\n"
