"""What a save refers to in earlier packs, by values."""

from __future__ import annotations

import pytest

from aurl_trainer.store.format.manifest import Pack
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.format.packs import Stored
from aurl_trainer.store.incremental import Placed, placed_in, reusable, rewritten_after
from tests.unit.trainer.store.made import open_run, save


def pack(number: int, size: int, rank: int = 0) -> Pack:
    return Pack(path=CheckpointName(number, number, GenerationId(1, "0123abcd")).pack(rank), bytes=size)


def placed(where: Pack, digest: str, size: int) -> Placed:
    return Placed(where, Stored(0, size, "raw", digest, None))


def test_what_has_not_changed_is_referred_to() -> None:
    first = pack(1, 100)
    earlier = {"frozen": placed(first, "frozen", 60), "old": placed(first, "old", 40)}
    found = reusable([("frozen", 60), ("new", 40)], earlier, 2, 20)
    assert found == {"frozen": earlier["frozen"]}


def test_nothing_is_referred_to_for_ever() -> None:
    earlier = {"frozen": placed(pack(3, 100), "frozen", 100)}
    contents = [("frozen", 100)]
    assert reusable(contents, earlier, 22, 20) == earlier
    assert reusable(contents, earlier, 23, 20) == {}, "20 saves after it was written it is written again"
    assert reusable(contents, earlier, 4, 1) == {}, "1: each save is whole"


@pytest.mark.parametrize("latest", range(2, 8))
def test_the_newest_checkpoints_never_all_refer_to_one_pack(latest: int) -> None:
    again = rewritten_after(20, latest)
    first = [1 + again * ((number - 1) // again) for number in range(1, 40)]
    for newest in range(latest, len(first) + 1):
        assert len(set(first[newest - latest : newest])) > 1, f"the newest {latest} after save {newest}"
    assert rewritten_after(1, latest) == 1, "1: each save is whole"
    assert rewritten_after(20, 1) == 20, "a single checkpoint has no other to fall back to"


@pytest.mark.parametrize(("latest", "after"), [(1, 20), (2, 1), (3, 2), (6, 5), (40, 20)])
def test_the_mean_save_writes_what_changed_and_a_share_of_the_rest(latest: int, after: int) -> None:
    again = rewritten_after(20, latest)
    earlier: dict[str, Placed] = {}
    written = []
    for number in range(1, 2 + 4 * after):
        contents = [("frozen", 900), (f"new-{number}", 100)]
        kept = reusable(contents, earlier, number, again)
        mine = pack(number, sum(size for h, size in contents if h not in kept))
        earlier = kept | {h: placed(mine, h, size) for h, size in contents if h not in kept}
        written.append(mine.bytes)
    assert written[0] == 1000, "the first save is whole"
    assert sum(written[1:]) / (4 * after) == 100 + 900 / after


def test_a_few_bytes_do_not_keep_a_large_pack() -> None:
    earlier = {"step": placed(pack(1, 1000), "step", 4)}
    assert reusable([("step", 4), ("new", 996)], earlier, 2, 20) == {}


def test_dead_weight_is_bounded_and_the_best_packs_come_first() -> None:
    packs = [pack(1, 1000), pack(2, 700), pack(3, 500)]
    earlier = {str(i): placed(p, str(i), 200) for i, p in enumerate(packs)}
    found = reusable([*((h, 200) for h in earlier), ("new", 400)], earlier, 4, 20)
    # The state has 1000 bytes; the packs keep 800, 500 and 300 dead ones.
    assert set(found) == {"1", "2"}


def test_empty_contents_are_referred_to_nowhere() -> None:
    earlier = {"empty": placed(pack(1, 100), "empty", 0)}
    assert reusable([("empty", 0), ("new", 100)], earlier, 2, 20) == {}


def test_contents_of_a_manifest_are_found_by_their_hash() -> None:
    store, claim = open_run("memory://incremental")
    manifest = save(store, claim.id, claim.next_number, 1)
    chunks = [c for t in manifest.tensors.values() for c in t.chunks]
    found = placed_in(manifest)
    assert {c.hash for c in chunks} == set(found)
    for chunk in chunks:
        assert found[chunk.hash].pack == manifest.packs[0]
        assert (found[chunk.hash].stored.at, found[chunk.hash].stored.codec) == (chunk.at, chunk.codec)
