"""What needs a GPU; skipped where there is none. One at a time: `pytest -n 0 tests/integration/cuda`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.chaos.job import write_music


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is here")


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MIDI files."""
    return write_music(tmp_path_factory.mktemp("music"))
