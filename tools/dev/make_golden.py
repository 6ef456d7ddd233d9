#!/usr/bin/env python3
"""Writes the golden blocks that tests/golden/cases.txt lists, with the numpy encoders of tools/dev/golden/.

    make_golden.py      writes files that are missing, compares the others, exits 1 when one differs

A file is never overwritten: other bytes are another format, and a new format gets a new version.
"""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT / "tools" / "dev" / "golden"))

from rows import rows  # noqa: E402

SEED = 1


def cases():
    """(file, side, dim, options, basis file or None) of each line."""
    for line in (GOLDEN / "cases.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            file, side, dim, options, *basis = line.split()
            pairs = [] if options == "-" else [option.split("=") for option in options.split(",")]
            yield file, side, int(dim), dict(pairs), basis[0] if basis else None


def blocks():
    """(file, bytes) of all bases and blocks."""
    for file, side, dim, options, basis in cases():
        encoder = importlib.import_module(file.split("/")[0])
        extra = []
        if basis:
            extra = [encoder.make_basis(side, dim, options)]
            yield basis, extra[0]
        yield file, encoder.encode(rows(SEED, dim), side, options, *extra)


def update():
    """Writes what is missing; returns the files whose bytes differ."""
    different = []
    for file, content in blocks():
        path = GOLDEN / file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print(f"wrote {file}, {len(content)} bytes")
        elif path.read_bytes() != content:
            different.append(file)
    return different


def main():
    different = update()
    for file in different:
        print(f"{file}: the encoder makes other bytes now")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
