"""One object that its disk cannot read is damaged; a disk that can read nothing is not.

EIO is what a bad sector gives, and ZFS and btrfs where they find flipped bits.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from aurl_trainer.commands.checkpoints.app import app
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import CheckpointError, DamagedError, UnavailableError
from aurl_trainer.store.location import place
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import collect
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.store.faulty import FaultyFileSystem
from tests.unit.trainer.store.made import open_run, save

URI = "faulty://run"
REASON = "cannot be read: Input/output error, while the place itself works"


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunStore]:
    """Saved at steps 10 and 20."""
    monkeypatch.setattr(place, "Patience", lambda: Patience(attempts=3, first=0.001, longest=0.002))
    FaultyFileSystem.clear()
    store, claim = open_run(URI)
    for number in (1, 2):
        save(store, claim.id, number, 10 * number, 1.0)
    yield RunStore(Location(URI))
    FaultyFileSystem.clear()


def unreadable(part: str, times: int = 10**6) -> list[str]:
    """So often objects with `part` in their paths cannot be read; which were."""
    met: list[str] = []

    def reading(path: str, data: bytes) -> bytes:
        if part in path and len(met) < times:
            met.append(path)
            raise OSError(errno.EIO, "Input/output error")
        return data

    FaultyFileSystem.reading = staticmethod(reading)
    return met


def test_it_is_damaged_after_the_usual_tries_and_the_probe_is_gone(run: RunStore) -> None:
    pack = run.valid()[-1].pack(0)
    met = unreadable("/packs/v000002")
    with pytest.raises(DamagedError) as error:
        run.location.get(pack)
    assert str(error.value) == f"{URI}/{pack}: {REASON}"
    assert len(met) == 3, "expected as many tries as for whatever may pass"
    assert run.location.names("probes") == []


def test_what_passes_is_no_damage(run: RunStore) -> None:
    assert unreadable("/packs/", times=2) == []
    assert run.location.get(run.valid()[-1].pack(0))


def test_where_the_place_does_not_work_nothing_is_damaged(run: RunStore) -> None:
    unreadable("/run/")
    with pytest.raises(
        CheckpointError, match="Input/output error; the disk or file system there fails"
    ) as error:
        run.location.get(run.valid()[-1].manifest)
    assert not isinstance(error.value, DamagedError | UnavailableError)

    def read_only(number: int, kind: str, path: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    unreadable("/packs/")
    FaultyFileSystem.reset(read_only)
    with pytest.raises(CheckpointError) as error:
        run.location.get(run.valid()[-1].pack(0))
    assert not isinstance(error.value, DamagedError), "who cannot write does not know whether the place works"


@pytest.mark.parametrize("folder", ["manifests", "packs"])
def test_verify_names_it_and_repair_sets_it_aside(folder: str) -> None:
    unreadable(f"/{folder}/v000002")
    found = CliRunner().invoke(app, ["verify", URI, "--deep"])
    assert found.exit_code == ExitCode.CHECKPOINT, found.output
    assert "step 10: whole" in found.output and "step 20: DAMAGED" in found.output
    assert f"{URI}/{folder}/v000002" in found.output and REASON in found.output
    mended = CliRunner().invoke(app, ["verify", URI, "--deep", "--repair"])
    assert mended.exit_code == 0, mended.output
    assert "step 20: set aside" in mended.output and ": step 10 (v000001-" in mended.output


@pytest.mark.parametrize("folder", ["manifests", "packs"])
def test_what_is_cleaned_up_goes_on_beside_it(run: RunStore, folder: str) -> None:
    unreadable(f"/{folder}/v000001")
    removed = collect(run, KeepConfig(latest=1, best=0, grace_seconds=0))
    assert [n.step for n in removed.checkpoints] == [10]
    assert [n.step for n in run.committed()] == [20]
