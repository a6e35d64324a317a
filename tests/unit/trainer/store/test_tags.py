"""Tags: last writer wins by name alone, retention keeps what they name, no removal slips past one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError, ConfigError
from aurl_trainer.store import tags
from aurl_trainer.store.format.marks import TAGS, TagMark, tags_in
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention import announced
from aurl_trainer.store.retention.announced import announce, wait_for_removals
from aurl_trainer.store.retention.passes import retain
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import clear_superseded, delete_tag, set_tag
from aurl_trainer.store.verify import verify
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem
from tests.unit.trainer.store.made import open_run, save

ONE_LEFT = KeepConfig(latest=1, best=0, grace_seconds=0)


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "file" else f"memory:/{tmp_path}/run"


def test_a_tag_moves_and_goes(uri: str) -> None:
    store, claim = open_run(uri)
    first, second = (save(store, claim.id, n, n).checkpoint for n in (1, 2))
    assert set_tag(store, "prod", first) is None
    set_tag(store, "paper", first)
    assert set_tag(store, "prod", second) == first
    assert RunStore(Location(uri)).tags() == {"paper": first, "prod": second}
    clear_superseded(store.location)
    assert len(store.location.names(TAGS)) == 2
    assert delete_tag(store, "prod") == second
    assert store.tags() == {"paper": first}
    clear_superseded(store.location)
    assert store.tags() == {"paper": first}, "a deleted tag came back"
    with pytest.raises(CheckpointError, match="no tag 'prod'; there are: paper"):
        delete_tag(store, "prod")
    with pytest.raises(ConfigError, match="means something else after an @"):
        set_tag(store, "latest", first)


def test_what_has_a_tag_is_kept_for_ever(uri: str) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n).checkpoint for n in (1, 2, 3)]
    set_tag(store, "paper", names[0])
    retain(store, claim.id, ONE_LEFT)
    assert store.valid() == [names[0], names[2]]
    # A later generation that begins before it makes it void; the tag still names it, whole.
    fresh = RunStore(Location(uri))
    later = fresh.claim("run", {}, 1)
    fresh.settle(later, None, run="run", identity={})
    last = save(fresh, later.id, 4, 1)
    retain(fresh, later.id, ONE_LEFT)
    assert fresh.committed() == [names[0], last.checkpoint] and fresh.valid() == [last.checkpoint]
    assert verify(fresh, names[0]).good
    delete_tag(fresh, "paper")
    retain(fresh, later.id, ONE_LEFT)
    assert fresh.committed() == [last.checkpoint]


def test_of_two_that_tag_at_once_one_wins_for_everybody() -> None:
    name = [CheckpointName(n, n, GenerationId(1, "00000000")) for n in (1, 2)]
    marks = [TagMark("prod", 3, nonce, name[i]) for i, nonce in enumerate(("00000001", "00000002"))]
    assert tags_in(marks) == tags_in(reversed(marks)) == {"prod": name[1]}
    assert [TagMark.parse(m.object.removeprefix("tags/")) for m in marks] == marks
    assert TagMark.parse("prod.n000001-00000000.elsewhere.json") is None


def test_a_removal_sees_a_tag_that_came_after_its_first_look(uri: str) -> None:
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n).checkpoint for n in (1, 2)]
    put = store.location.put

    def tag_first(name: str, data: bytes) -> None:
        if name.startswith("removals/"):  # it has looked, and is about to announce
            set_tag(RunStore(Location(uri)), "prod", names[0])
        put(name, data)

    store.location.put = tag_first  # type: ignore[method-assign]
    retain(store, claim.id, ONE_LEFT)
    assert store.tags() == {"prod": names[0]}
    assert verify(store, names[0]).good, "what was tagged has gone"


@pytest.mark.parametrize("marks", [1, 3], ids=["before it looks", "before it writes"])
def test_a_tag_sees_a_removal_that_came_before_it(
    uri: str, marks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tag named is not kept between its two marks, so it writes none if it can know better."""
    store, claim = open_run(uri)
    names = [save(store, claim.id, n, n).checkpoint for n in (1, 2)]
    set_tag(store, "prod", names[1])
    announcements: list[str] = []
    pauses: list[float] = []
    put = store.location.put

    def announce_first(name: str, data: bytes) -> None:
        if name.startswith(f"{TAGS}/") and not announcements:
            announcements.append(announce(Location(uri), [names[0]]))
        put(name, data)

    def removed_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        store.location.delete([names[0].manifest, *announcements])

    if marks == 1:
        announcements.append(announce(store.location, [names[0]]))
    store.location.put = announce_first  # type: ignore[method-assign]
    monkeypatch.setattr(tags, "wait_for_removals", lambda a, b: wait_for_removals(a, b, removed_meanwhile))
    with pytest.raises(CheckpointError, match="goes at this instant; nothing was tagged"):
        set_tag(store, "prod", names[0])
    assert len(pauses) == 1, "it did not wait for the removal"
    assert store.tags() == {"prod": names[1]}, "the tag names what it named before"
    assert len(store.location.names(TAGS)) == marks


@pytest.mark.parametrize("old", [True, False], ids=["old", "clock ahead"])
def test_an_announcement_is_dead_when_the_stores_clock_says_so_too(
    uri: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process left it; or the clock of one of the two machines is wrong."""
    store, claim = open_run(uri)
    name = save(store, claim.id, 1, 1).checkpoint
    announcement = announce(store.location, [name])
    clock = time.time() + announced.DEAD_SECONDS
    monkeypatch.setattr(announced.time, "time", lambda: clock)
    taken_at = Location.taken_at
    ago = announced.DEAD_SECONDS if old else 0.0

    def taken(self: Location, name: str) -> float | None:
        at = taken_at(self, name)
        return at - ago if at is not None and name == announcement else at

    monkeypatch.setattr(Location, "taken_at", taken)
    pauses: list[float] = []
    wait_for_removals(store.location, name, pauses.append)
    assert len(pauses) == (0 if old else 2 * announced.REMOVE_SECONDS)
    announced.clear_dead(store.location)
    left = [announcement.rpartition("/")[2]] if not old else []
    assert store.location.names("removals") == left, "a living one was deleted, or a dead one stays"
    assert store.location.names("probes") == []


def test_after_a_stop_at_any_operation_a_tag_names_the_old_or_the_new() -> None:
    stop_at = 0
    while True:
        FaultyFileSystem.clear()
        store, claim = open_run("faulty://run")
        names = [save(store, claim.id, n, n).checkpoint for n in (1, 2, 3)]
        set_tag(store, "prod", names[0])

        def stop(number: int, kind: str, path: str, at: int = stop_at) -> None:
            if number >= at:
                raise Died

        FaultyFileSystem.reset(stop)
        died = False
        try:
            set_tag(store, "prod", names[1])
            retain(store, claim.id, ONE_LEFT)
            clear_superseded(store.location)
        except Died:
            died = True
        FaultyFileSystem.reset()
        fresh = RunStore(Location("faulty://run"))
        named = fresh.tags()["prod"]
        assert named in names[:2], f"stopped at operation {stop_at}: {named}"
        for name in (named, names[2]):
            assert verify(fresh, name).good, f"stopped at operation {stop_at}: {name} is not whole"
        if not died:
            assert named == names[1] and fresh.committed() == names[1:]
            break
        stop_at += 1
    FaultyFileSystem.clear()
    assert stop_at >= 8, f"only {stop_at} operations were tried"
