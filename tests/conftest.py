"""What the Python tests are given: our programs, the demo model, the text. A test whose input is absent is skipped."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("KVANT_SOURCE_DIR", Path(__file__).resolve().parents[1]))
SHARED = ROOT.parent / "shared"  # models and texts of a development machine; not part of the project


def _from_environment(name, what):
    path = os.environ.get(name)
    if not path:
        pytest.skip(f"skipped: {what} is not built in this configuration")
    return Path(path)


@pytest.fixture(scope="session")
def kvant_cli():
    """Path of the `kvant` program."""
    return _from_environment("KVANT_CLI", "the kvant command line")


@pytest.fixture(scope="session")
def kvant_plugin():
    """Path of libggml-kvant.so. Ask for it before `import llama_cpp`, which needs libllama as well."""
    return _from_environment("KVANT_PLUGIN", "the llama.cpp plug-in")


@pytest.fixture(scope="session")
def kvant_soak():
    """Path of the `kvant_soak` program."""
    return _from_environment("KVANT_SOAK", "the soak test")


@pytest.fixture(scope="session")
def demo_model():
    """Path of the demo model's GGUF."""
    for folder in (ROOT / "models", SHARED / "models"):
        for path in sorted(folder.rglob("*.gguf")):
            return path
    pytest.skip("skipped: no GGUF in models/")


@pytest.fixture(scope="session")
def shared_data():
    """Folder with the evaluation texts."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("skipped: no ../shared/data")
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Of the programs under test: nothing is kept in the user's own cache folder, or read from there."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def kvant(kvant_cli, environment):
    """Runs the `kvant` program with the arguments given: kvant("eval", ..., stdin=b"") -> finished process with text output."""
    if os.environ.get("KVANT_LLAMA_DIR", "none") == "none":
        pytest.skip("skipped: built without libllama")

    def run(*arguments, stdin=b"", **options):
        options = {"env": environment, "timeout": 300, **options}
        command = [kvant_cli, *map(str, arguments)]
        process = subprocess.run(command, input=stdin, capture_output=True, check=False, **options)
        process.stdout = process.stdout.decode("utf-8", "replace")
        process.stderr = process.stderr.decode("utf-8", "replace")
        return process

    return run
