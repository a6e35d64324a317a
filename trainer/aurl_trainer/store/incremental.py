"""Which contents a save need not write again, since an earlier checkpoint of the run holds them. Pure.

Contents are the same when their hashes are. Referring to an earlier pack keeps all of it on the store, so a
pack is referred to only where that saves more than it keeps; and not for ever, so that no damaged object can
take all of a run's checkpoints with it. Not here: retention, which keeps what manifests refer to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from aurl_trainer.store.format.manifest import Manifest, Pack
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.packs import Stored

WORTH = 0.02
"""A pack that holds less than this part of the state is not kept for it: writing that again is cheap."""
DEAD_WEIGHT = 1.0
"""The bytes kept on the store only because they lie beside wanted ones, in sizes of the state."""


@dataclass(frozen=True)
class Placed:
    """Where a content lies in a pack, of this checkpoint or an earlier one."""

    pack: Pack
    stored: Stored


def placed_in(manifest: Manifest, lost: Collection[str] = ()) -> dict[str, Placed]:
    """Every content of a checkpoint by its hash, but for what lies in packs of these paths."""
    return {
        c.hash: Placed(manifest.packs[c.pack], Stored(c.at, c.bytes, c.codec, c.hash, c.stored))
        for tensor in manifest.tensors.values()
        for c in tensor.chunks
        if manifest.packs[c.pack].path not in lost
    }


def rewritten_after(whole_every: int, latest: int) -> int:
    """Saves after which a content is written again, where the newest `latest` checkpoints are kept.

    Sooner than asked for where else all of those could share one object, and one flipped bit take them all.
    So the mean save writes again one part in so many of what does not change. A save can refer only to what
    the last one refers to, so no other order costs less; a share of it in each save would cost as much where
    that is half of it, more where it is little, and keep more packs.
    """
    return whole_every if latest == 1 else min(whole_every, latest - 1)


def reusable(
    contents: Iterable[tuple[str, int]], earlier: Mapping[str, Placed], number: int, whole_every: int
) -> dict[str, Placed]:
    """What of `contents` (hash, bytes) save `number` refers to, by hash.

    `earlier` is what the last committed checkpoint holds. No content is referred to from `whole_every` saves
    after it was written, so that many saves later everything has been written again.
    """
    sizes = dict(contents)
    total = sum(sizes.values())
    found = {h: earlier[h] for h in sizes if h in earlier and sizes[h]}
    live: dict[Pack, int] = {}
    for placed in found.values():
        live[placed.pack] = live.get(placed.pack, 0) + placed.stored.bytes
    kept: set[Pack] = set()
    dead = 0
    for pack in sorted(live, key=lambda p: (p.bytes - live[p], p.path)):
        beside = pack.bytes - live[pack]
        young = number - _number(pack) < whole_every
        if young and live[pack] >= WORTH * total and dead + beside <= DEAD_WEIGHT * total:
            kept.add(pack)
            dead += beside
    return {h: placed for h, placed in found.items() if placed.pack in kept}


def _number(pack: Pack) -> int:
    name = CheckpointName.parse(pack.path.split("/")[1])
    return -1 if name is None else name.number
