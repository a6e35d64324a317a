"""What `aurl checkpoints list` and `find` load before they answer: it decides how quickly they start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aurl_trainer.store.catalog.index import renew_index
from tests.unit.trainer.store.made import open_run, save

TYPERS = {"annotated_doc", "annotated_types", "pydantic", "pydantic_core", "rich", "shellingham", "typer"}
TYPERS |= {"typing_extensions", "typing_inspection"}

MODELS = (
    "aurl_trainer.config.experiment",
    "aurl_trainer.config.checkpoint",
    "aurl_trainer.store.format.manifest",
)
"""Pydantic builds them when they are imported, which takes as long as listing does."""

PROGRAM = """
import sys
before = set(sys.modules)
from aurl_operator.cli import main
code = main(sys.argv[1:])
print("LOADED", *(set(sys.modules) - before))
sys.exit(code)
"""


WORDS = [["list"], ["list", "--json"], ["find", "--where", "val_nll < 2"]]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_listing_loads_little_beside_typer(words: list[str], tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path / "bach"))
    save(store, claim.id, 1, 10, 1.5)
    renew_index(store)
    command, *options = words
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "checkpoints", command, str(tmp_path / "bach"), *options],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "10" in done.stdout and "1.5" in done.stdout, f"it did not list: {done.stdout}"
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    packages = {m.partition(".")[0] for m in loaded} - set(sys.stdlib_module_names)
    ours = {"aurl_operator", "aurl_trainer"}
    assert {p for p in packages if not p.startswith("_")} <= ours | TYPERS | {"zstandard"}
    assert "asyncio" not in loaded
    assert loaded.isdisjoint(MODELS), "a listing that finds an index needs no models"
    assert "rich.table" not in loaded and "rich.markdown" not in loaded
