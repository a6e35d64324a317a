"""What runs of the loop leave behind is taken away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.unit.trainer.engine.worlds import Worlds
from tests.unit.trainer.store.faulty import FaultyFileSystem


@pytest.fixture
def empty_store() -> Iterator[None]:
    """The store of tests, before and after; ordinary arithmetic again."""
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    found = Worlds(tmp_path_factory.mktemp("meetings"))
    yield found
    found.close()
