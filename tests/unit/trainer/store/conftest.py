"""A run with three checkpoints, for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.store.made import open_run, save


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store, claim = open_run(str(tmp_path / "checkpoints"))
    for number, nll in ((1, 2.0), (2, 1.25), (3, None)):
        save(store, claim.id, number, number * 10, nll)
    return tmp_path
