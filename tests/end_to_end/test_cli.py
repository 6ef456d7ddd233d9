"""The verbs of the command line, end to end on the demo model. Small sizes: the numbers are checked for sense, not for quality."""

import json
import resource
import signal
import subprocess
import time

import pytest
from conftest import ROOT

TEXT = ROOT / "DESIGN.md"
SMALL = ["--tokens", 448, "--needles", 2, "--decode", 2, "--threads", 2]


@pytest.fixture(scope="module")
def evaluated(kvant, demo_model, tmp_path_factory):
    """One evaluation: (finished process, JSON, HTML)."""
    folder = tmp_path_factory.mktemp("eval")
    caches = "f16,llama:q8_0,kv4,k=int:4 v=int:2"
    outputs = ["--json", folder / "a.json", "--html", folder / "a.html"]
    process = kvant("eval", demo_model, "--text", TEXT, "--cache", caches, *outputs, *SMALL)
    assert process.returncode == 0, process.stderr
    return process, json.loads((folder / "a.json").read_text()), (folder / "a.html").read_text()


def row(report, cache):
    return next(r for r in report["rows"] if r["cache"] == cache)


# ---- eval


def test_eval_prints_one_row_per_cache_and_no_progress_bar(evaluated):
    process, _, _ = evaluated
    assert process.stderr == ""
    for cache in ("f16", "llama:q8_0", "kv4", "k=int:4 v=int:2"):
        assert f"\n{cache} " in process.stdout


def test_eval_reference_is_exact(evaluated):
    _, report, _ = evaluated
    f16 = report["rows"][0]
    assert f16["cache"] == "f16"
    assert (f16["kl"], f16["top1"], f16["memory"]["bits_per_value"]) == (0, 1, 16)
    assert f16["positions"] == 448 - 224 - 1
    assert 5 < f16["perplexity"] < 500
    assert f16["perplexity"] == f16["perplexity_fp16"]


def test_eval_orders_caches_by_their_bits(evaluated):
    _, report, _ = evaluated
    q8, kv4, mixed = (row(report, c) for c in ("llama:q8_0", "kv4", "k=int:4 v=int:2"))
    assert 0 < q8["kl"] < kv4["kl"] < mixed["kl"] < 1
    assert q8["memory"]["bits_per_value"] == 8.5
    assert 3 < mixed["memory"]["bits_per_value"] < kv4["memory"]["bits_per_value"] < 8
    assert mixed["scheme"].startswith("k=int:bits=4 v=int:bits=2")


def test_eval_bits_are_the_sum_of_their_kinds(evaluated):
    _, report, _ = evaluated
    for r in report["rows"]:
        memory = r["memory"]
        assert sum(memory["bits_by_kind"].values()) == pytest.approx(memory["bits_per_value"])
        assert memory["bits_per_value"] * memory["fp16_bytes"] / 16 == pytest.approx(memory["held_bytes"])


def test_eval_measures_times_and_memory(evaluated):
    _, report, _ = evaluated
    for r in report["rows"]:
        assert r["measured"]["prefill_tokens_per_s"] > 0
        assert r["measured"]["decode_ms"] > 0
        assert r["measured"]["process_bytes"] > r["memory"]["held_bytes"] / 2


def test_eval_html_is_self_contained(evaluated):
    _, _, html = evaluated
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    assert "llama:q8_0" in html
    assert "http" not in html and "Quality against memory" in html


def test_report_of_the_json_is_the_page_of_eval(kvant, evaluated, tmp_path):
    _, report, html = evaluated
    source = tmp_path / report["text"]  # what the page calls it
    source.write_text(json.dumps(report))
    process = kvant("report", source, "-o", tmp_path / "b.html")
    assert process.returncode == 0 and process.stdout == "" and process.stderr.startswith("kvant: wrote ")
    assert (tmp_path / "b.html").read_text() == html
    again = kvant("report", source, source, "-o", tmp_path / "c.html", "--quiet")
    assert again.returncode == 0 and again.stderr == ""
    assert html != (tmp_path / "c.html").read_text()


def test_eval_gives_the_same_numbers_twice(kvant, demo_model, evaluated, tmp_path):
    _, first, _ = evaluated
    arguments = ["--cache", "kv4", "--cache", "k=int:4 v=int:2", "--json", tmp_path / "b", "--no-cache", *SMALL]
    process = kvant("eval", demo_model, "--text", TEXT, *arguments)
    assert process.returncode == 0, process.stderr
    second = json.loads((tmp_path / "b").read_text())
    for cache in ("f16", "kv4", "k=int:4 v=int:2"):
        assert {**row(first, cache), "measured": None} == {**row(second, cache), "measured": None}


def test_eval_measures_only_what_is_missing(kvant, demo_model, evaluated, tmp_path):
    _, first, _ = evaluated
    arguments = ["--text", TEXT, "--json", tmp_path / "b", *SMALL]
    process = kvant("eval", demo_model, "--cache", "kv8,kv4", *arguments)
    assert process.returncode == 0, process.stderr
    assert "Not measured again, from " in process.stdout
    second = json.loads((tmp_path / "b").read_text())
    assert [r["measured"].pop("from_earlier") for r in second["rows"]] == [["text"], [], ["text"]]
    for cache in ("f16", "kv4"):
        assert row(second, cache) == {**row(first, cache), "measured": row(second, cache)["measured"]}
        assert row(second, cache)["measured"].items() <= row(first, cache)["measured"].items()  # times too


def test_eval_says_where_results_cannot_be_kept(kvant, demo_model, tmp_path):
    (tmp_path / "file").write_text("")
    process = kvant("eval", demo_model, "--text", TEXT, "--results", tmp_path / "file" / "results", *SMALL)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert f"results folder {tmp_path}/file/results: cannot be made" in process.stderr and "--no-cache" in process.stderr


def test_eval_says_that_the_disk_is_full(kvant, demo_model, tmp_path):
    """A file that may not grow stands for a disk that is full."""

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    arguments = ["--text", TEXT, "--cache", "kv4", "--results", tmp_path / "results", *SMALL]
    process = kvant("eval", demo_model, *arguments, preexec_fn=small_files, restore_signals=False)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "temporary file for logits: write failed: File too large" in process.stderr


def test_eval_reads_standard_input_and_prints_markdown(kvant, demo_model):
    arguments = ["--cache", "kv8", "--tokens", 128, "--needles", 0, "--decode", 0, "--markdown"]
    process = kvant("eval", demo_model, "--text", "-", *arguments, stdin=TEXT.read_bytes())
    assert process.returncode == 0, process.stderr
    assert "| kv8 |" in process.stdout and "on stdin: 128 tokens" in process.stdout


def test_eval_of_all_codecs_has_each_at_its_rates(kvant, demo_model, tmp_path):
    arguments = ["--tokens", 96, "--skip", 64, "--scored-batch", 32, "--needles", 0, "--decode", 0]
    process = kvant("eval", demo_model, "--text", TEXT, "--cache", "all", "--json", tmp_path / "a", *arguments)
    assert process.returncode == 0, process.stderr
    schemes = [r["scheme"] for r in json.loads((tmp_path / "a").read_text())["rows"][1:]]
    listed = {line.split()[0] for line in kvant("codecs").stdout.split("\n\n")[0].splitlines()[2:]}
    shown = {s.removeprefix("k=").split(" ")[0].split(":")[0] for s in schemes}
    left_out = {c.split(":")[0] for c in process.stderr.split("calibration: ")[-1].strip().split(", ") if ":" in c}
    assert shown and shown | left_out == listed
    assert len(schemes) == len(set(schemes)) > len(shown)


# ---- plans and schemes per layer

LINES = ["k=int:4 v=int:2"] * 6 + ["k=raw v=int:bits=4"] * 6


def plan_text(model_hash, lines=None):
    plan = {"format": "kvant-plan", "format_version": 1, "model_hash": model_hash, "layers": lines or LINES}
    return json.dumps(plan | {"sink": 8, "recent": 64})


@pytest.fixture(scope="module")
def model_hash(kvant, demo_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("hash") / "p.json"
    path.write_text(plan_text("?"))
    return kvant("inspect", demo_model, "--cache", path).stderr.split("this model's is ")[1].strip()


@pytest.fixture(scope="module")
def plan_path(model_hash, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(plan_text(model_hash))
    return path


def test_a_plan_file_is_a_cache(kvant, demo_model, plan_path, tmp_path):
    text = "k=raw v=int:4 sink=8 recent=64 layers=12 " + " ".join(f"k{i}=int:4 v{i}=int:2" for i in range(6))
    arguments = ["--tokens", 448, "--needles", 0, "--decode", 0, "--json", tmp_path / "a.json"]
    process = kvant("eval", demo_model, "--text", TEXT, "--cache", plan_path, "--cache", text, "--cache", "int:2", *arguments)
    assert process.returncode == 0, process.stderr
    _, plan, scheme, uniform = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert plan["scheme"].startswith("k=int:bits=4 v=int:bits=2 sink=8 recent=64 k6=raw ") and plan["scheme"].endswith(" layers=12")
    assert plan["kl"] == scheme["kl"] < uniform["kl"]
    assert plan["memory"] == scheme["memory"]


def test_run_and_inspect_take_a_plan(kvant, demo_model, plan_path):
    process = kvant("run", demo_model, "--cache", plan_path, "-n", 2, "-p", "It was a cold morning")
    assert process.returncode == 0, process.stderr
    process = kvant("inspect", demo_model, "--cache", plan_path)
    assert process.returncode == 0 and str(plan_path) in process.stdout, process.stderr


# ---- tune

TUNE = ["--codecs", "int:2,int:8", "--tokens", 128, "--check-tokens", 128, "--threads", 1]


@pytest.fixture(scope="module")
def tuned(kvant, demo_model, tmp_path_factory):
    """One short tuning: (standard output, plan file, plan)."""
    path = tmp_path_factory.mktemp("tune") / "plan.json"
    process = kvant("tune", demo_model, "--text", TEXT, "--budget", "6bits", "-o", path, *TUNE)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout, path, json.loads(path.read_text())


def test_tune_says_the_gain_first_and_stays_within_the_budget(tuned):
    output, path, plan = tuned
    assert output.startswith("expected gain: 0.") and f"wrote {path}" in output
    assert plan["format"] == "kvant-plan" and plan["model"] == "demo-29m-q8_0.gguf" and len(plan["layers"]) == 12
    assert len(set(plan["layers"])) > 1
    assert plan["measured"]["bits_per_value"] <= 6
    assert plan["measured"]["bits_per_value"] == pytest.approx(plan["predicted"]["bits_per_value"])
    assert 0 < plan["measured"]["kl"] < 1 and plan["measured"]["tokens"] == 128
    assert 0 < plan["tuning"]["expected_gain"] < 1
    assert len(plan["tuning"]["costs"]) == 12 * 2 * len(plan["tuning"]["candidates"])
    assert min(u["bits_per_value"] for u in plan["uniform"]) < 6 < max(u["bits_per_value"] for u in plan["uniform"])


def test_a_tuned_plan_is_a_cache(kvant, demo_model, tuned):
    _, path, _ = tuned
    process = kvant("run", demo_model, "--cache", path, "-n", 2, "-p", "It was a cold morning")
    assert process.returncode == 0, process.stderr


def test_report_of_a_tuned_plan(kvant, evaluated, tuned, tmp_path):
    _, path, plan = tuned
    process = kvant("report", path, "-o", tmp_path / "a.html")
    assert process.returncode == 0, process.stderr
    page = (tmp_path / "a.html").read_text()
    for part in ("Plan plan.json", "Bits by layer", plan["model_hash"], plan["uniform"][0]["cache"], ">11</text>"):
        assert part in page
    (tmp_path / "e.json").write_text(json.dumps(evaluated[1]))
    assert kvant("report", tmp_path / "e.json", path, "-o", tmp_path / "b.html").returncode == 0
    both = (tmp_path / "b.html").read_text()
    assert "Plan plan.json" in both and "Quality against memory" in both and "different models" not in both


def test_tune_goes_on_from_its_journal(kvant, demo_model, tuned, tmp_path):
    output, path, plan = tuned
    journal = path.with_name(path.name + ".journal").read_bytes()
    cut = tmp_path / "cut.journal"
    cut.write_bytes(journal[: len(journal) // 2])
    again = ["tune", demo_model, "--text", TEXT, "--budget", "6bits", "-o", tmp_path / "b.json", "--journal", cut, *TUNE]
    process = kvant(*again)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "b.json").read_text()) == plan
    assert runs(output) / 3 < runs(process.stdout) < runs(output)
    assert sorted(cut.read_bytes().splitlines()) == sorted(journal.splitlines())
    assert runs(kvant(*again).stdout) == 0


def runs(output):
    return int(output.split(" runs of the model")[0].split("; ")[-1])


# ---- tasks of eval

TOOL = {"name": "stop", "parameters": {"now": "boolean"}}
CALL = 'Call: {"name": "stop", "arguments": {"now": true}}\n'
TASK_SIZES = ["--grid-lengths", 512, "--grid-depths", 2, "--grid-needles", 2, "--drift-tokens", 16, "--speed-at", "256,512"]
TASKS = ["needle_grid", "last_word", "questions", "tool_calls", "drift", "sequences", "context_shift"]


@pytest.fixture(scope="module")
def tasks(kvant, demo_model, tmp_path_factory):
    """(Runs all tasks, with the JSON file as argument: finished process; that of the first run)."""
    folder = tmp_path_factory.mktemp("tasks")
    lines = {
        "q.jsonl": [{"prompt": FACT + QUESTION, "answer": "48213"}, {"prompt": FACT + QUESTION, "answer": "5"}],
        "t.jsonl": [{"prompt": CALL * 4 + "Call:", "tools": [TOOL]}],
    }
    for name, values in lines.items():
        (folder / name).write_text("\n".join(map(json.dumps, values)))
    (folder / "w.txt").write_text("The captain's name was Ahab. " * 4 + "The captain's name was Ahab.\n")
    files = ["--questions", folder / "q.jsonl", "--last-word", folder / "w.txt", "--tool-calls", folder / "t.jsonl"]
    arguments = ["--text", TEXT, "--cache", "kv4", "--tasks", "all", *files, *TASK_SIZES, *SMALL]

    def run(path):
        process = kvant("eval", demo_model, *arguments, "--json", path)
        assert process.returncode == 0, process.stderr
        return json.loads(path.read_text()), process.stdout

    return run, run(folder / "first.json")


def test_eval_tasks_have_their_numbers(tasks):
    _, (report, printed) = tasks
    assert report["format"] == "kvant-eval" and report["format_version"] == 2
    assert "needle grid" in printed and "attention error" in printed
    f16, kv4 = report["rows"]
    for r in report["rows"]:
        assert list(r["tasks"]) == sorted(TASKS)
        grid = r["tasks"]["needle_grid"]
        assert (grid["lengths"], grid["depths"], grid["asked"]) == ([512], [0.25, 0.75], [[2, 2]])
        assert all(0 <= right <= 2 for right in grid["right"][0])
        assert r["tasks"]["questions"].items() >= {"right": 1, "asked": 2}.items()
        assert r["tasks"]["last_word"].items() >= {"right": 1, "asked": 1}.items()
        assert r["tasks"]["tool_calls"]["asked"] == 1
        assert r["tasks"]["sequences"]["right"] >= 0.97 * r["tasks"]["sequences"]["asked"]  # near ties may flip
        assert [p["tokens"] for p in r["measured"]["speed_by_context"]] == [256, 512]
    assert f16["tasks"]["drift"].items() >= {"tokens": 16, "first_difference": 16, "agreement": 1}.items()
    assert 0 < kv4["tasks"]["drift"]["agreement"] <= 1
    assert f16["tasks"]["context_shift"]["kl"] == 0
    shift = kv4["tasks"]["context_shift"]
    assert 0 < shift["kl_low"] < shift["kl"] < shift["kl_high"] < 0.1
    assert f16["attention_error_by_layer"] == [0] * 12
    assert all(0 < error < 0.3 for error in kv4["attention_error_by_layer"]) and len(kv4["attention_error_by_layer"]) == 12


def test_eval_tasks_are_not_measured_twice(tasks, tmp_path):
    run, (first, _) = tasks
    second, printed = run(tmp_path / "second.json")
    assert "Not measured again" in printed
    names = ["text"] + [name.replace("_", "-") for name in TASKS] + ["attention-error", "speed"]
    for r in second["rows"]:
        assert r["measured"]["from_earlier"] == names
    for r in first["rows"] + second["rows"]:
        del r["measured"]["from_earlier"]
    assert first == second


# ---- run

FACT = "The secret number of Kalo is 48213. "
FILLER = "It was a cold morning and the ship lay still in the harbour while the men went about their work. " * 12
QUESTION = "\nQuestion: What is the secret number of Kalo? Answer:"


@pytest.mark.parametrize("cache", ["f16", "llama:q8_0", "kv8", "kv4", "kv3"])
def test_run_answers_from_the_cache(kvant, demo_model, cache):
    process = kvant("run", demo_model, "-p", FACT + FILLER + QUESTION, "--cache", cache, "-n", 5, "--context", 512)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip().startswith("48213")
    assert process.stderr.count("\n") == 1
    for part in (f"cache {cache} holds", "fp16:", "bits per value", "prefill", "decode"):
        assert part in process.stderr


def test_run_takes_the_prompt_from_file_and_standard_input(kvant, demo_model, tmp_path):
    prompt = (FACT + QUESTION).encode()
    (tmp_path / "prompt.txt").write_bytes(prompt)
    from_file = kvant("run", demo_model, "--file", tmp_path / "prompt.txt", "-n", 5)
    from_input = kvant("run", demo_model, "-n", 5, stdin=prompt)
    assert from_file.returncode == 0, from_file.stderr
    assert from_file.stdout == from_input.stdout != ""


def test_run_draws_by_seed(kvant, demo_model):
    def draw(*arguments):
        process = kvant("run", demo_model, "-p", "Once upon a time", "-n", 16, *arguments)
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert draw() == draw("--seed", 2)  # greedy needs none
    warm = ["--temperature", 1.5, "--seed"]
    assert draw(*warm, 1) == draw(*warm, 1) != draw(*warm, 2)


# ---- calibrate

KLT = "decoquant:bits=2,gauge=klt"
WEIGHTED = KLT + ",metric=model"
CALIBRATE = ["--tokens", 1024, "--window", 512, "--threads", 2]


@pytest.fixture(name="copied_model", scope="module")
def fixture_copied_model(kvant, demo_model, tmp_path_factory):
    """A model with its calibration beside it: (model, calibration, finished process)."""
    model = tmp_path_factory.mktemp("model") / "m.gguf"
    model.symlink_to(demo_model)
    process = kvant("calibrate", model, "--text", TEXT, "--codec", f"{KLT},{WEIGHTED}", *CALIBRATE)
    assert process.returncode == 0, process.stderr
    return model, model.with_name("m.kvant.safetensors"), process


def header_of(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), len(content) - 8 - length


def test_calibrate_writes_safetensors_beside_the_model(copied_model):
    _, path, process = copied_model
    assert process.stdout == "" and process.stderr.startswith(f"kvant: wrote {path}: 48 entries")
    header, data_bytes = header_of(path)
    metadata = header.pop("__metadata__")
    assert metadata["format"] == "kvant calibration" and metadata["format_version"] == "1"
    assert json.loads(metadata["texts"])[0][0] == "DESIGN.md"
    assert json.loads(metadata["layers"]) == [[2, 128, 128]] * 12
    assert int(metadata["tokens"]) == 1024
    assert len(header) == 2 * 2 * 12
    assert max(tensor["data_offsets"][1] for tensor in header.values()) == data_bytes
    assert {tensor["dtype"] for tensor in header.values()} == {"U8"}


def test_calibrate_gives_the_same_file_twice(kvant, copied_model, tmp_path):
    model, path, _ = copied_model
    process = kvant("calibrate", model, "--text", TEXT, "--codec", f"{KLT},{WEIGHTED}", *CALIBRATE, "-o", tmp_path / "b")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_calibrated_bases_are_found_and_named(kvant, copied_model):
    model, path, _ = copied_model
    arguments = ["-p", "Once upon a time", "-n", 2]
    assert "bases: calibrated" in kvant("run", model, *arguments, "--cache", WEIGHTED).stderr
    assert "bases: calibrated" in kvant("run", model, *arguments, "--cache", KLT + ",refit=0").stderr
    assert "bases: fitted to the prompt" in kvant("run", model, *arguments, "--cache", KLT, "--calibration", "none").stderr
    assert "bases: fitted to the prompt" in kvant("run", model, *arguments, "--cache", KLT + ",code=trellis").stderr
    assert "bases" not in kvant("run", model, *arguments, "--cache", "kv4").stderr
    mixed = kvant("run", model, *arguments, "--cache", f"k={WEIGHTED} v=int:4", "--calibration", path)
    assert "bases: K calibrated" in mixed.stderr


def test_eval_counts_calibrated_bases_once(kvant, copied_model, tmp_path):
    model, _, _ = copied_model
    process = kvant("eval", model, "--text", TEXT, "--cache", WEIGHTED, "--json", tmp_path / "a.json", *SMALL)
    assert process.returncode == 0, process.stderr
    assert "(calibrated)" in process.stdout
    weighted = row(json.loads((tmp_path / "a.json").read_text()), WEIGHTED)
    assert weighted["bases"] == "calibrated"
    assert 0 < weighted["kl"] < 1
    basis_bytes = weighted["memory"]["bits_by_kind"]["bases"] * weighted["memory"]["fp16_bytes"] / 16
    assert basis_bytes == pytest.approx(12 * 2 * 2 * 12544, rel=0.01)  # layers, sides, heads


def test_inspect_counts_calibrated_bases(kvant, copied_model):
    model, _, _ = copied_model
    lines = kvant("inspect", model, "--cache", WEIGHTED).stdout.splitlines()
    assert any(line.startswith(WEIGHTED) for line in lines)


# ---- inspect, codecs, the rest


def test_inspect_shows_shapes_costs_and_the_largest_context(kvant, demo_model):
    process = kvant("inspect", demo_model, "--memory", "50MB", "--cache", "k=int:4 v=int:2")
    assert process.returncode == 0, process.stderr
    rows = {line.split("  ")[0]: line.split() for line in process.stdout.splitlines() if line}
    assert rows["0-11"][1:] == ["all", "tokens", "2", "128", "128", "1024"]
    assert rows["f16"][1:] == ["12288", "16.00", "201.3", str(50_000_000 // 12288)]
    assert float(rows["kv2"][2]) < float(rows["kv3"][2]) < float(rows["kv4"][2]) < float(rows["kv8"][2]) < 16
    assert "k=int:4 v=int:2" in rows


def test_inspect_agrees_with_a_real_run(kvant, demo_model):
    """The largest context for a memory size fits into that memory limit, twice as much does not."""
    lines = kvant("inspect", demo_model, "--memory", "2MB", "--cache", "int:4").stdout.splitlines()
    tokens = int(next(line for line in lines if line.startswith("int:4")).split()[-1])
    text = TEXT.read_text()
    fits = ["-p", text, "--cache", "int:4", "--memory-limit", "3MB", "-n", 1, "--context"]
    assert 200 < tokens < 600
    assert kvant("run", demo_model, *fits, 8192).returncode == 1  # more tokens than the limit holds
    short = text[: 2 * tokens]
    assert kvant("run", demo_model, "-p", short, *fits[2:], 4096).returncode == 0


def test_codecs_lists_each_codec_with_its_numbers(kvant):
    process = kvant("codecs")
    assert process.returncode == 0, process.stderr
    measured = [line.split() for line in process.stdout.split("relative error")[1].splitlines()]
    numbers = {(f[0], f[1]): (float(f[2]), float(f[3])) for f in measured if len(f) == 4 and f[1] in "KV"}
    assert numbers["raw", "K"][0] == 16 and numbers["raw", "K"][1] < 0.001
    assert numbers["int:bits=8", "K"][1] < numbers["int", "K"][1] < numbers["int:bits=2", "K"][1] < 1
    assert "| raw | type | fp16 | fp16, bf16 |" in kvant("codecs", "--markdown").stdout


@pytest.mark.parametrize("verb", ["run", "eval", "calibrate", "inspect", "report", "codecs", "bench"])
def test_help_is_not_an_error(kvant, verb):
    process = kvant(verb, "--help")
    assert process.returncode == 0 and process.stderr == ""
    assert verb in process.stdout


def start(*command):
    """A process that heeds Ctrl-C, also where the tests run in the background and ignore it."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*map(str, command)], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **silent)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupt_leaves_what_was_measured(kvant_cli, kvant, demo_model, tmp_path, how):
    results = tmp_path / "results"
    arguments = [demo_model, "--text", TEXT, "--cache", "kv4,kv2", "--tokens", 320, "--threads", 1, "--results", results]
    process = start(kvant_cli, "eval", *arguments)
    while process.poll() is None and not list(results.glob("*.json")):
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait(60) != 0
    kept = [json.loads(path.read_text()) for path in results.glob("*.json")]
    assert kept and all(entry["key"]["part"] == "text" for entry in kept)
    finished = kvant("eval", *arguments, "--json", tmp_path / "a.json")
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [r["measured"]["from_earlier"] for r in rows] == [["text"]] * len(kept) + [[]] * (3 - len(kept))


def test_interrupt_leaves_no_file(kvant_cli, kvant, demo_model, tmp_path):
    arguments = ["eval", demo_model, "--text", TEXT, "--tokens", "1024", "--json", tmp_path / "a.json", "--no-cache"]
    process = start(kvant_cli, *arguments)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(2)
    assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []
