"""Two runs at one place: the second is refused while the first lives, and no restart is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurl_trainer.errors import FencedError, RefusedError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.presence import Presence, admit, object_of
from aurl_trainer.store.run_store import Claim, RunStore
from tests.unit.trainer.store.made import IDENTITY, save


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RunStore:
    return RunStore(Location(str(tmp_path / "run") if request.param == "file" else f"memory:/{tmp_path}/run"))


def begin(store: RunStore, run: str) -> Claim:
    claim = store.claim(run, IDENTITY, 1)
    valid = store.valid()
    store.settle(claim, valid[-1] if valid else None, run=run, identity=IDENTITY)
    return claim


@pytest.fixture
def first(store: RunStore) -> Iterator[Presence]:
    """Run `a`, alive: each look of another finds a further beat."""
    presence = Presence(store.location, "a", every=60.0)
    presence.begin()
    begin(store, "a")
    yield presence
    presence.end()


def test_a_restart_of_the_same_run_is_never_held_up(store: RunStore, first: Presence) -> None:
    def pause(seconds: float) -> None:
        raise AssertionError("a restart had to wait")

    admit(store, "a", pause=pause)


def test_a_second_run_is_refused_while_the_first_beats(store: RunStore, first: Presence) -> None:
    with pytest.raises(
        RefusedError, match=r"run a is training there; .*training\.checkpoint\.take_over"
    ) as error:
        admit(store, "b", pause=lambda _: first._beat())
    assert "\n" not in str(error.value)


def test_a_run_that_does_not_beat_any_more_is_succeeded_after_a_while(
    store: RunStore, first: Presence
) -> None:
    waited: list[float] = []
    admit(store, "b", watch=70.0, pause=waited.append)
    assert sum(waited) == pytest.approx(70.0), f"expected to watch for 70 s, watched {sum(waited)}"


def test_a_run_that_has_ended_is_succeeded_at_once(store: RunStore, first: Presence) -> None:
    first.end()
    admit(store, "b", pause=lambda _: pytest.fail("waited for a run that has ended"))


def test_who_takes_over_begins_and_the_first_can_neither_commit_nor_come_back(
    store: RunStore, first: Presence
) -> None:
    mine = begin(store, "a")
    save(store, mine.id, 1, 10)
    admit(store, "b", take_over=True, pause=lambda _: pytest.fail("waited though told to take over"))
    other = Presence(store.location, "b", every=60.0)
    other.begin()
    theirs = begin(store, "b")
    with pytest.raises(FencedError):
        save(store, mine.id, 2, 20)
    save(store, theirs.id, theirs.next_number, 20)
    for take_over in (False, True):
        with pytest.raises(RefusedError, match=r"run b has taken over from this one \(a\)"):
            admit(store, "a", take_over=take_over, pause=lambda _: other._beat())
    assert [n.generation for n in store.valid()] == [mine.id, theirs.id]
    other.end()
    admit(store, "a")


def test_a_beat_that_fails_or_is_damaged_harms_nothing(store: RunStore, first: Presence) -> None:
    store.location.put(object_of("a"), b"not a beat")
    admit(store, "b", watch=0.0)
    first._beat()
    with pytest.raises(RefusedError):
        admit(store, "b", watch=0.0, pause=lambda _: first._beat())


@pytest.mark.parametrize("bad", ["missing", "damaged"])
def test_a_bad_read_of_a_beat_does_not_make_a_living_run_dead(
    store: RunStore, first: Presence, bad: str
) -> None:
    looks = itertools.count()

    def pause(seconds: float) -> None:
        look = next(looks)
        if look == 0 and bad == "missing":
            store.location.delete([object_of("a")])
        elif look == 0:
            store.location.put(object_of("a"), b"not a beat")
        elif look == 5:
            first._beat()

    with pytest.raises(RefusedError, match="run a is training there"):
        admit(store, "b", pause=pause)


def test_a_first_bad_read_does_not_make_a_dead_run_alive(store: RunStore, first: Presence) -> None:
    beat = store.location.get(object_of("a"))
    store.location.put(object_of("a"), b"not a beat")
    admit(store, "b", pause=lambda _: store.location.put(object_of("a"), beat))


def test_nobody_was_here(store: RunStore) -> None:
    admit(store, "b", pause=lambda _: pytest.fail("waited for nobody"))


def test_beats_go_on_by_themselves_and_end_with_the_run(store: RunStore) -> None:
    presence = Presence(store.location, "uid/with:signs", every=0.01)
    presence.begin()
    while presence._count < 3:
        pass
    presence.end()
    assert b'"ended":true' in store.location.get("presence/uid_with_signs.json")
