"""The plot of codecs: what it shows of an evaluation, and what it says of files that are none."""

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import ROOT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plot():
    spec = importlib.util.spec_from_file_location("plot_codecs", ROOT / "tools" / "dev" / "plot_codecs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(cache, scheme, bits, kl):
    return {"cache": cache, "scheme": scheme, "kl": kl, "memory": {"bits_per_value": bits}}


@pytest.fixture
def evaluation(tmp_path):
    rows = [
        row("f16", "", 16, 0),
        row("llama:q8_0", "", 8.5, 1e-4),
        row("int:4", "k=int:bits=4 v=int:bits=4 sink=4 recent=0", 4.5, 5e-3),
        row("int:2", "k=int:bits=2 v=int:bits=2 sink=4 recent=0", 2.5, 0.3),
        row("mixed", "k=kivi v=int:bits=2 sink=4 recent=0", 2.7, 0.2),
        row("worse", "k=kivi v=kivi sink=4 recent=0", 5.0, 0.01),
    ]
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({"model": "m", "rows": rows}))
    return path


def test_points_are_all_rows_but_the_reference(plot, evaluation):
    points = plot.read_points([evaluation])
    assert [(p[0], p[2]) for p in points] == [
        ("llama.cpp", 8.5), ("int", 4.5), ("int", 2.5), ("kivi + int", 2.7), ("kivi", 5.0),
    ]  # fmt: skip


def test_front_holds_what_nothing_beats(plot, evaluation):
    assert [p[1] for p in plot.pareto(plot.read_points([evaluation]))] == ["int:2", "mixed", "int:4", "llama:q8_0"]


def test_svg_names_codecs_and_follows_the_colour_scheme(plot, evaluation, tmp_path):
    output = tmp_path / "out.svg"
    plot.main([str(evaluation), "-o", str(output)])
    text = output.read_text()
    root = ElementTree.fromstring(text)
    labels = {"".join(t.itertext()) for t in root.iter(f"{SVG}text")}
    assert {"int", "kivi", "kivi + int", "llama.cpp", "Pareto front"} <= labels
    assert "prefers-color-scheme: dark" in text and "currentColor" in text and plot.INK not in text
    assert not re.search(r"fill: ?#fff", text)  # no background
    plot.main([str(evaluation), "-o", str(tmp_path / "again.svg")])
    assert (tmp_path / "again.svg").read_text() == text


@pytest.mark.parametrize("content", ["", "[]", '{"rows": [{"cache": "f16"}]}', '{"rows": []}'])
def test_other_files_are_refused_by_name(plot, tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match="other.json"):
        plot.main([str(path), "-o", str(tmp_path / "out.svg")])
    assert not (tmp_path / "out.svg").exists()
