"""`gc` by somebody who is not the writer, and setting aside: beside a run that goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError, RefusedError
from aurl_trainer.store.aside import set_aside, take_back
from aurl_trainer.store.copying import copy
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.announced import REMOVE_SECONDS
from aurl_trainer.store.retention.passes import collect, retain
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import set_tag
from aurl_trainer.store.verify import Verdict, inspect, verify
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem
from tests.unit.trainer.store.made import IDENTITY, flip, open_run, save

ONE_LEFT = KeepConfig(latest=1, best=0, grace_seconds=60)
OLD = time.time() - 5000


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "file" else f"memory:/{tmp_path}/run"


def test_a_dry_run_says_what_a_real_one_does(uri: str) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n, at=OLD + n).checkpoint for n in (1, 2, 4)]
    left = CheckpointName(3, 3, claim.id)
    store.location.put(left.pack(0), b"half a pack")
    before = store.location.names("")
    would = collect(RunStore(Location(uri)), ONE_LEFT, dry_run=True)
    assert store.location.names("") == before, "a dry run changed something"
    assert (would.checkpoints, would.unfinished) == (tuple(names[:2]), (left,))
    assert collect(RunStore(Location(uri)), ONE_LEFT) == would
    assert RunStore(Location(uri)).committed() == names[2:]
    assert [n.rpartition("/")[0] for n in store.location.names("packs")] == [str(names[2])]
    assert store.location.names("removals") == []
    assert verify(RunStore(Location(uri)), names[2]).good
    assert collect(RunStore(Location(uri)), ONE_LEFT).bytes == 0


def test_a_save_under_way_loses_nothing(uri: str) -> None:
    store, claim = open_run(uri)
    first = save(store, claim.id, 1, 1, at=OLD)
    second = save(store, claim.id, 2, 2, at=OLD + 1, like=first)
    # The next save has written its pack, and will refer to one that the newest refers to.
    third = CheckpointName(3, 3, claim.id)
    store.location.put(third.pack(0), b"")
    collect(RunStore(Location(uri)), ONE_LEFT)
    assert [n.rpartition("/")[0] for n in store.location.names("packs")] == sorted(
        map(str, (first.checkpoint, second.checkpoint, third))
    )
    committed = save(store, claim.id, 3, 3, like=second.model_copy(update={"packs": second.packs[1:]}))
    assert verify(store, committed.checkpoint).good


def test_while_a_world_opens_the_run_nothing_is_removed(uri: str) -> None:
    store, claim = open_run(uri)
    for n in (1, 2):
        save(store, claim.id, n, n, at=OLD + n)
    store.claim("run", IDENTITY, 1)
    with pytest.raises(RefusedError, match="a world is opening this run"):
        collect(RunStore(Location(uri)), ONE_LEFT)
    assert len(store.committed()) == 2


def test_a_world_that_opens_during_the_pass_stops_it(uri: str) -> None:
    store, claim = open_run(uri)
    for n in (1, 2):
        save(store, claim.id, n, n, at=OLD + n)
    visitor = RunStore(Location(uri))
    put = visitor.location.put

    def open_first(name: str, data: bytes) -> None:
        store.claim("run", IDENTITY, 1)
        put(name, data)

    visitor.location.put = open_first  # type: ignore[method-assign]
    removed = collect(visitor, ONE_LEFT)
    assert len(store.committed()) == 2, "it removed what the new world may be loading"
    assert (removed.checkpoints, removed.unfinished, removed.bytes) == ((), (), 0)


def test_what_gets_a_tag_during_the_pass_is_not_told_of_as_removed(uri: str) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n, at=OLD + n).checkpoint for n in (1, 2, 3)]
    visitor = RunStore(Location(uri))
    put = visitor.location.put

    def tag_first(name: str, data: bytes) -> None:
        if name.startswith("removals/"):
            set_tag(store, "paper", names[0])
        put(name, data)

    visitor.location.put = tag_first  # type: ignore[method-assign]
    second = store.location.size(names[1].pack(0))
    removed = collect(visitor, ONE_LEFT)
    assert RunStore(Location(uri)).committed() == [names[0], names[2]]
    assert (removed.checkpoints, removed.bytes) == ((names[1],), second)


def test_nothing_is_removed_behind_a_damaged_newest(uri: str) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n, at=OLD + n).checkpoint for n in (1, 2, 3)]
    store.location.delete([names[2].pack(0)])
    with pytest.raises(RefusedError, match=r"newest checkpoint is damaged.*rank-0000\.pack is missing"):
        collect(RunStore(Location(uri)), ONE_LEFT)
    set_aside(store.location, names[2], inspect(store, names[2]).problems)
    assert collect(RunStore(Location(uri)), ONE_LEFT).checkpoints == (names[0],)
    fresh = RunStore(Location(uri))
    assert fresh.valid() == [names[1]], "what is set aside does not count, and the newest whole one stays"
    assert fresh.committed() == names[1:], "what is set aside is kept for inspection"
    take_back(store.location, names[2])
    assert fresh.valid() == names[1:]


def test_marks_of_what_is_not_there_any_more_go(uri: str) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n).checkpoint for n in (1, 2, 3)]
    set_aside(store.location, names[1], ["a test"])
    set_aside(store.location, CheckpointName(9, 9, claim.id), ["it was removed while it was looked at"])
    visitor = RunStore(Location(uri))
    collect(visitor, ONE_LEFT, dry_run=True)
    assert len(visitor.aside()) == 2, "a dry run changed something"
    collect(visitor, ONE_LEFT)
    assert visitor.aside() == {names[1]} and visitor.valid() == [names[0], names[2]]


@pytest.mark.parametrize("count", [1, 2])
def test_a_bit_that_flipped_unseen_in_the_newest_keeps_the_older_ones(uri: str, count: int) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n, at=OLD + n).checkpoint for n in (1, 2, 3)]
    keep = ONE_LEFT.model_copy(update={"latest": count})
    flip(store.location, names[2].pack(0))
    assert inspect(store, names[2]).good, "its sizes tell, so the test shows nothing"
    would = collect(RunStore(Location(uri)), keep, dry_run=True).checkpoints
    assert would == tuple(names[: 3 - count]), "a dry run reads no content"
    with pytest.raises(RefusedError, match=r"verify .* --deep --repair: .* in packs/v000003-"):
        collect(RunStore(Location(uri)), keep)
    assert store.committed() == names, "an older one went that a resume needs"
    set_aside(store.location, names[2], verify(store, names[2]).problems)
    collect(RunStore(Location(uri)), keep)
    left = [n for n in (1, 2) if n > 2 - count]
    assert [n.step for n in RunStore(Location(uri)).valid()] == left
    assert verify(store, names[1]).good


def test_where_nothing_is_to_go_nothing_is_read(uri: str) -> None:
    store, claim = open_run(uri)
    save(store, claim.id, 1, 1, at=OLD)
    read: list[CheckpointName] = []

    def check(store: RunStore, name: CheckpointName) -> Verdict:
        read.append(name)
        return verify(store, name)

    collect(store, ONE_LEFT, check=check)
    assert read == []
    second = save(store, claim.id, 2, 2, at=OLD + 1).checkpoint
    collect(store, ONE_LEFT, check=check)
    assert read == [second], "expected the one that stays to be read, once"


def test_a_newest_that_the_run_removes_while_it_is_read_is_not_called_damaged(uri: str) -> None:
    store, claim = open_run(uri)
    for n in (1, 2):
        save(store, claim.id, n, n, at=OLD + n)

    def meanwhile(visitor: RunStore, name: CheckpointName) -> Verdict:
        save(store, claim.id, 3, 3)
        retain(store, claim.id, ONE_LEFT.model_copy(update={"grace_seconds": 0}))
        return verify(visitor, name)

    with pytest.raises(RefusedError, match=r"the run itself removed v000002-.* while it was read; try again"):
        collect(RunStore(Location(uri)), ONE_LEFT, check=meanwhile)


def test_a_reader_of_what_was_newest_a_grace_ago_can_finish(uri: str) -> None:
    store, claim = open_run(uri)
    now = time.time()
    names = [save(store, claim.id, n, n, at=now - ago).checkpoint for n, ago in ((1, 900), (2, 500), (3, 10))]
    retain(store, claim.id, ONE_LEFT)
    assert store.committed() == names[1:], "save 2 was the newest until 10 seconds ago"
    retain(store, claim.id, ONE_LEFT.model_copy(update={"grace_seconds": 5}))
    assert store.committed() == names[2:]


@pytest.mark.parametrize("readable", [True, False])
def test_a_copy_that_is_committed_after_the_survey_keeps_its_packs(uri: str, readable: bool) -> None:
    """Where copies are collected: packs older than the newest are loose until their manifest comes."""
    source, claim = open_run(f"{uri}-source")
    first = save(source, claim.id, 1, 1, at=OLD)
    second = save(source, claim.id, 2, 2, at=OLD, like=first)
    newest = save(source, claim.id, 3, 3, at=OLD)
    visitor = RunStore(Location(uri))
    copy(source, newest.checkpoint, RunStore(Location(uri)), lambda size: None, any_run=True)
    packs = [pack.path for pack in second.packs]
    for path in packs:
        visitor.location.put(path, source.location.get(path))
    put = visitor.location.put

    def commit_first(name: str, data: bytes) -> None:
        if name.startswith("removals/"):  # it has looked, and is about to announce
            copy(source, second.checkpoint, RunStore(Location(uri)), lambda size: None, any_run=True)
            if not readable:
                flip(visitor.location, second.checkpoint.manifest)
        put(name, data)

    visitor.location.put = commit_first  # type: ignore[method-assign]
    keep = ONE_LEFT.model_copy(update={"latest": 2})
    assert collect(visitor, keep).unfinished == ()
    fresh = RunStore(Location(uri))
    assert fresh.committed() == [second.checkpoint, newest.checkpoint]
    assert set(packs) <= {f"packs/{n}" for n in fresh.location.names("packs")}, "packs of the copy have gone"
    assert verify(fresh, second.checkpoint).good == readable


def test_nothing_is_removed_any_more_when_whoever_waits_for_it_has_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FaultyFileSystem.clear()
    store, claim = open_run("faulty://run")
    first = save(store, claim.id, 1, 1, at=OLD).checkpoint
    for rank in (1, 2, 3):
        store.location.put(first.pack(rank), b"of a larger world")
    second = save(store, claim.id, 2, 2, at=OLD + 1).checkpoint
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slow(number: int, kind: str, path: str) -> None:
        if kind == "delete" and "/packs/" in path:
            clock[0] += 0.6 * REMOVE_SECONDS

    FaultyFileSystem.reset(slow)
    with pytest.raises(CheckpointError, match="the store is too slow; some old checkpoints stay for now"):
        collect(RunStore(Location("faulty://run")), ONE_LEFT)
    FaultyFileSystem.reset()
    left = [n for n in store.location.names("packs") if n.startswith(str(first))]
    assert len(left) == 2, f"expected the two packs to stay that were not removed in time, found {left}"
    monkeypatch.undo()
    collect(RunStore(Location("faulty://run")), ONE_LEFT)
    assert [n.partition("/")[0] for n in store.location.names("packs")] == [str(second)]
    FaultyFileSystem.clear()


def test_after_a_stop_at_any_operation_the_next_pass_ends_it() -> None:
    stop_at = 0
    while True:
        FaultyFileSystem.clear()
        store, claim = open_run("faulty://run")
        first = save(store, claim.id, 1, 1, at=OLD)
        for n in (2, 3, 4):
            newest = save(store, claim.id, n, n, at=OLD + n, like=first)

        def stop(number: int, kind: str, path: str, at: int = stop_at) -> None:
            if number >= at:
                raise Died

        FaultyFileSystem.reset(stop)
        died = False
        try:
            collect(RunStore(Location("faulty://run")), ONE_LEFT)
        except Died:
            died = True
        FaultyFileSystem.reset()
        fresh = RunStore(Location("faulty://run"))
        verdicts = [verify(fresh, name) for name in fresh.valid()]
        assert all(v.good for v in verdicts), f"stopped at operation {stop_at}: {verdicts}"
        assert fresh.valid()[-1] == newest.checkpoint
        collect(RunStore(Location("faulty://run")), ONE_LEFT)
        fresh = RunStore(Location("faulty://run"))
        assert fresh.committed() == [newest.checkpoint]
        assert verify(fresh, newest.checkpoint).good
        assert len(fresh.pack_folders()) == 2, "its own pack, and the one it refers to"
        if not died:
            break
        stop_at += 1
    FaultyFileSystem.clear()
    assert stop_at >= 8, f"only {stop_at} operations were tried"
