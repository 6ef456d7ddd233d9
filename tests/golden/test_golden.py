"""The committed golden blocks are what the numpy encoders make today."""

import importlib.util
import os
from pathlib import Path

SOURCE = Path(os.environ["KVANT_SOURCE_DIR"])


def load_make_golden():
    spec = importlib.util.spec_from_file_location("make_golden", SOURCE / "tools" / "dev" / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_what_the_encoders_make():
    make_golden = load_make_golden()
    for file, content in make_golden.blocks():
        assert (make_golden.GOLDEN / file).read_bytes() == content, file


def test_every_file_is_listed():
    make_golden = load_make_golden()
    listed = {file for file, _ in make_golden.blocks()}
    committed = {str(p.relative_to(make_golden.GOLDEN)) for p in make_golden.GOLDEN.glob("*/v*/*")}
    assert committed == listed
