"""Which packs the store has lost while a checkpoint is loaded from copies nearby.

Copies stand in for the store's packs in one load, never in what later saves refer to: when the copies have
gone, only the store is left. Not here: contents, whose hashes are checked where they are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.reading import READERS, Objects, check_size

Lost = dict[str, str]
"""What is wrong with a pack, by its path."""


@contextlib.contextmanager
def looking(store: Objects, manifest: Manifest, packs: Sequence[int]) -> Iterator[Callable[[], Lost]]:
    """Asks the store for the sizes of these packs, while the block goes on.

    What it gives waits for all answers; it raises CheckpointError if the store does not answer, which is no
    damage.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="checkpoint-sizes") as pool:
        asked = {manifest.packs[p].path: pool.submit(check_size, store, manifest, p) for p in packs}

        def lost() -> Lost:
            found = {}
            for path, answer in asked.items():
                try:
                    answer.result()
                except DamagedError as error:
                    found[path] = str(error)
            return found

        yield lost
