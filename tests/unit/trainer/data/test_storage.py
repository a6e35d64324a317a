"""Storage that fails is waited for, and never becomes other music."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from aurl_trainer.config.data import DataConfig
from aurl_trainer.contract import Cause, ExitCode
from aurl_trainer.data.prepared import prepare
from aurl_trainer.data.source import storage
from aurl_trainer.data.source.chorales import edition
from aurl_trainer.engine.survival.exits import classify
from aurl_trainer.errors import DataError, UnreadError
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.music import MUSIC, SharedMusic
from tests.unit.trainer.data.conftest import Configure, WritePieces, piece
from tests.unit.trainer.store.faulty import FaultyFileSystem

pytestmark = pytest.mark.processes

Fail = Callable[[str, int, Exception], None]
FOLDER = "faulty://music"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", Patience(attempts=3, first=0.001))


@pytest.fixture
def fail() -> Iterator[Fail]:
    """Six pieces on a store, of which reading one whose path ends so fails so many times with this error."""
    FaultyFileSystem.reset()
    files = FaultyFileSystem()
    for seed in range(6):
        files.pipe_file(f"/music/{seed}.mid", bytes(piece(seed).dumps_midi()))

    def failing(name: str, times: int, error: Exception) -> None:
        left = [times]

        def reading(path: str, data: bytes) -> bytes:
            if path.endswith(name) and left[0]:
                left[0] -= 1
                raise error
            return data

        FaultyFileSystem.reading = staticmethod(reading)

    yield failing
    FaultyFileSystem.reading = None
    FaultyFileSystem.store.clear()


def nothing_left(config: DataConfig) -> bool:
    assert config.cache is not None
    cache = Path(config.cache)
    return not [*cache.glob("*prepared*"), *cache.glob("digests/*")]


def test_a_read_that_fails_for_the_moment_changes_nothing(configure: Configure, fail: Fail) -> None:
    whole = prepare(configure({"midi": FOLDER}), seed=1)
    fail("3.mid", 3, TimeoutError("Slow down"))  # with all others, and twice alone
    again = prepare(configure({"midi": FOLDER}, cache=f"{configure().cache}-2"), seed=1)
    assert (again.key, again.tokens_hash, again.rejected) == (whole.key, whole.tokens_hash, ())


@pytest.mark.parametrize("reads", [0, 1], ids=["for the key", "for the tokens"])
def test_storage_that_stays_away_is_an_error_and_leaves_nothing(
    configure: Configure, fail: Fail, tmp_path: Path, reads: int
) -> None:
    config, place = configure({"midi": FOLDER}), Location(str(tmp_path / "run"))
    fail("3.mid", 10**6, TimeoutError("Slow down"))
    inner, passed = FaultyFileSystem.reading, [reads]

    def later(path: str, data: bytes) -> bytes:
        if path.endswith("3.mid") and passed[0]:
            passed[0] -= 1
            return data
        assert inner is not None
        return inner(path, data)

    FaultyFileSystem.reading = staticmethod(later)
    with pytest.raises(UnreadError, match=r"midi: faulty://music/3.mid cannot be read: .*3 tries") as away:
        prepare(config, seed=1, shared=SharedMusic(place))
    assert classify(away.value, first_start=True) == (Cause.CRASH, ExitCode.CRASH), "tried again by the job"
    assert place.names(MUSIC) == [] and not list(Path(str(config.cache)).glob("*prepared*"))
    FaultyFileSystem.reading = None
    assert len(prepare(config, seed=1, shared=SharedMusic(place)).pieces) == 6


def test_what_only_a_person_can_mend_is_final(configure: Configure, fail: Fail) -> None:
    config = configure({"midi": FOLDER})
    fail("3.mid", 10**6, PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(DataError, match=r"3.mid cannot be read: Permission denied; let the run") as denied:
        prepare(config, seed=1)
    assert classify(denied.value, first_start=False) == (Cause.FINAL_ERROR, ExitCode.FINAL)
    assert nothing_left(config)


def test_a_file_that_goes_while_it_is_read_is_no_bad_file(configure: Configure, fail: Fail) -> None:
    config = configure({"midi": FOLDER})
    fail("3.mid", 10**6, FileNotFoundError("3.mid"))
    with pytest.raises(UnreadError, match=r"3\.mid was listed, and is not there"):
        prepare(config, seed=1)
    assert nothing_left(config)


def test_a_folder_that_fails_for_the_moment_is_not_left_out(
    midi: Path, write_pieces: WritePieces, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(3)
    (midi / "deep").mkdir()
    piece(9).dump_midi(midi / "deep" / "more.mid")
    own, left = LocalFileSystem.ls, [2]

    @functools.wraps(own)
    def ls(self: LocalFileSystem, path: str, *arguments: object, **options: object) -> object:
        if path.endswith("deep") and left[0]:
            left[0] -= 1
            raise error
        return own(self, path, *arguments, **options)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    error: OSError = OSError(errno.ESTALE, "Stale file handle")
    assert len(prepare(configure(), seed=1).pieces) == 4
    left[0] = 10**6
    with pytest.raises(UnreadError, match="cannot be listed: Stale file handle"):
        prepare(configure(), seed=1)
    error = PermissionError(errno.EACCES, "Permission denied")
    assert len(prepare(configure(), seed=1).pieces) == 3, "lost+found, say"


def test_a_disk_that_takes_no_chorale_rejects_none(tmp_path: Path) -> None:
    config = DataConfig.model_validate(
        {"source": {"music21": "bach", "limit": 3}, "cache": str(tmp_path), "workers": 1}
    )
    (tmp_path / f"bach-{edition()}").write_text("no folder")
    with pytest.raises(DataError, match=r"data.cache: .*/bach-music21.* cannot be written: Not a directory"):
        prepare(config, seed=1)
    assert not list(tmp_path.glob("*prepared*"))
