"""A job that is deleted takes only what is its own: a place that belongs to another run stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aurl_trainer.__main__ import app
from aurl_trainer.contract import Cause, Env, ExitCode, Termination
from aurl_trainer.errors import RefusedError
from aurl_trainer.store.copying import copy
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention import removal
from aurl_trainer.store.retention.removal import all_but_best, everything
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.store.faulty import FaultyFileSystem
from tests.unit.trainer.store.made import flip, open_run, save

Removal = Callable[[str, str], object]
"""The clean-up of a place for a run."""

REMOVALS: dict[str, Removal] = {
    "everything": lambda uri, run: everything(Location(uri), run),
    "all but the best": lambda uri, run: all_but_best(Location(uri), run, 1, {"val_nll": 1.0}),
}


@pytest.fixture(params=list(REMOVALS.values()), ids=list(REMOVALS))
def remove(request: pytest.FixtureRequest) -> Removal:
    found: Removal = request.param
    return found


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "file" else f"memory:/{tmp_path}/run"


@pytest.fixture
def faulty() -> Iterator[None]:
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()


def trained(uri: str, run: str, *numbers: int) -> RunStore:
    """A world of `run` that has saved these numbers."""
    store, claim = open_run(uri, run=run)
    for number in numbers:
        save(store, claim.id, number, 10 * number, 1.0 / number, run=run)
    return store


def test_a_job_that_was_refused_takes_nothing_of_the_run_that_lives_there(uri: str, remove: Removal) -> None:
    store = trained(uri, "a", 1, 2)
    store.location.put("logs/of-b.log", b"refused")
    before = store.location.names("")
    with pytest.raises(RefusedError, match="belongs to run a, not to b: nothing is deleted") as error:
        remove(uri, "b")
    assert "\n" not in str(error.value)
    assert store.location.names("") == before, "something of a living run was deleted"


def test_who_was_taken_over_from_takes_nothing_of_its_successor(uri: str, remove: Removal) -> None:
    trained(uri, "a", 1)
    store = trained(uri, "b", 2, 3)
    with pytest.raises(RefusedError, match="belongs to run b"):
        remove(uri, "a")
    assert [n.step for n in store.valid()] == [10, 20, 30]
    assert all(verify(store, name).good for name in store.valid())
    remove(uri, "b")
    assert [n.step for n in store.valid()] in ([], [30])


def test_a_successor_that_listings_do_not_show_yet_is_waited_for(faulty: None, remove: Removal) -> None:
    uri = "faulty://owned"
    trained(uri, "a", 1)
    store = trained(uri, "b", 2)
    FaultyFileSystem.lag = 8
    before = FaultyFileSystem.snapshot()
    with pytest.raises(RefusedError, match="belongs to run b"):
        remove(uri, "a")
    assert FaultyFileSystem.snapshot() == before
    FaultyFileSystem.lag = 0
    assert [n.step for n in store.valid()] == [10, 20]


def test_what_copies_are_at_a_place_is_nobodys_to_take(uri: str, remove: Removal) -> None:
    source = trained(f"{uri}-source", "a", 1)
    target = RunStore(Location(uri))
    name = copy(source, source.valid()[0], target, lambda size: None, any_run=True).name
    with pytest.raises(RefusedError, match="no run trained there, and yet there are checkpoints"):
        remove(uri, "b")
    assert verify(target, name).good


def test_what_a_run_left_that_never_saved_is_nobodys_and_goes(uri: str) -> None:
    place = Location(uri)
    place.put("logs/worker-0-0.log", b"its data could not be read")
    everything(place, "b")
    assert place.names("") == []


def test_a_damaged_record_is_no_leave(uri: str, remove: Removal) -> None:
    """The run before is never taken for the last: another word of the last one tells, or nothing goes."""
    trained(uri, "a", 1)
    store = trained(uri, "b", 2)
    records = [f.object for f in store.fences() if f.id.number == 2]
    for record in records:
        flip(store.location, record)
        with pytest.raises(RefusedError, match="belongs to run b"):
            remove(uri, "a")
    flip(store.location, store.valid()[-1].manifest)
    before = store.location.names("")
    for run in ("a", "b"):
        with pytest.raises(RefusedError, match="damaged, so nobody knows whose it is"):
            remove(uri, run)
    assert store.location.names("") == before


def test_a_run_that_comes_while_the_best_are_read_keeps_all(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = trained(uri, "a", 1, 2)

    def slowly(store: RunStore, name: object) -> object:
        if len(store.fences()) == 2:  # a's claim, and where it went on from
            open_run(uri, run="b")
        return verify(store, name)  # type: ignore[arg-type]

    monkeypatch.setattr(removal, "verify", slowly)
    with pytest.raises(RefusedError, match="belongs to run b"):
        all_but_best(Location(uri), "a", 1, {"val_nll": 1.0})
    assert [n.step for n in store.valid()] == [10, 20]


def test_a_run_that_comes_while_all_is_deleted_keeps_its_own(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = trained(uri, "a", 1)
    delete_folder = Location.delete_folder

    def slowly(place: Location, folder: str) -> None:
        delete_folder(place, folder)
        if folder == "manifests":
            trained(uri, "b", 2)

    monkeypatch.setattr(Location, "delete_folder", slowly)
    with pytest.raises(RefusedError, match="belongs to run b"):
        everything(Location(uri), "a")
    assert [verify(store, name).good for name in store.valid()] == [True], "step 20, which b saved meanwhile"


def test_the_command_says_why_in_one_line_and_in_its_record(tmp_path: Path) -> None:
    uri, told = str(tmp_path / "run"), tmp_path / "termination"
    trained(uri, "a", 1)
    done = subprocess.run(
        [sys.executable, "-m", "aurl_trainer", "purge", "--uri", uri],
        env={**os.environ, Env.TERMINATION_LOG: str(told), Env.RUN_ID: "b"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.REFUSED, done.stderr
    assert done.stderr == f"error: {uri} belongs to run a, not to b: nothing is deleted\n"
    record = Termination.from_json(told.read_text())
    assert (record.cause, record.exit_code) == (Cause.FINAL_ERROR, ExitCode.REFUSED)
    assert f"error: {record.message}\n" == done.stderr


def test_the_command_takes_what_is_its_own_and_asks_whose_it_shall_be(tmp_path: Path) -> None:
    uri, told = str(tmp_path / "run"), tmp_path / "termination"
    store = trained(uri, "a", 1)
    command = ["purge", "--uri", uri]
    asked = CliRunner().invoke(app, command, env={Env.RUN_ID: ""})
    assert asked.exit_code == ExitCode.USAGE and "--run" in asked.output, asked.output
    assert len(store.valid()) == 1
    done = CliRunner().invoke(app, command, env={Env.RUN_ID: "a", Env.TERMINATION_LOG: str(told)})
    assert (done.exit_code, done.stdout) == (0, f"deleted the run at {uri}\n"), done.output
    assert not told.exists(), "nothing failed"
