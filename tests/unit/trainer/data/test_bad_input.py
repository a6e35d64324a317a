"""Music that cannot be used: a clear line, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import fsspec
import pytest
from symusic.core import NoteTick, ScoreTick, TrackTick

from aurl_trainer.config.data import DataConfig
from aurl_trainer.contract import ExitCode
from aurl_trainer.data.prepared import prepare
from aurl_trainer.data.reading import LONGEST_QUARTERS
from aurl_trainer.errors import DataError, MissingError
from tests.unit.trainer.data.conftest import Configure, WritePieces, piece

pytestmark = pytest.mark.processes


def track(events: bytes, division: int = 480) -> bytes:
    """A MIDI file with one track of these events."""
    end = b"\x00\xff\x2f\x00"
    head = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, division)
    return head + struct.pack(">4sI", b"MTrk", len(events) + len(end)) + events + end


NOTE = b"\x00\x90\x40\x40\x83\x60\x80\x40\x00"
LATE = b"\xff\xff\xff\x7f\x90\x40\x40\x83\x60\x80\x40\x00"  # after 2^28 - 1 ticks


def drums_only() -> bytes:
    score = ScoreTick(480)
    drums = TrackTick("", 0, True)
    drums.notes.append(NoteTick(0, 480, 36, 90))
    score.tracks.append(drums)
    return bytes(score.dumps_midi())


BROKEN = {
    "zero.mid": (b"", "empty file (0 bytes)"),
    "text.mid": (b"This is not MIDI at all, it is text.", "not readable as MIDI"),
    "cut.mid": (track(NOTE)[:-9], "not readable as MIDI"),
    "silent.mid": (track(b""), "no notes"),
    "no-division.mid": (track(NOTE, division=0), "no time division"),
    "seconds.mid": (track(NOTE, division=0xE728), "not readable as MIDI"),
    "damaged-time.mid": (track(LATE), "so its timing must be damaged"),
    "pitch.mid": (track(b"\x00\x90\xe0\x40" + NOTE), "not readable as MIDI"),
    "drums.mid": (drums_only(), "only drums"),
}


def problem(config: DataConfig) -> str:
    """The message of the DataError; checks that nothing is left that could be taken for data."""
    with pytest.raises(DataError) as caught:
        prepare(config, seed=1)
    assert caught.value.exit_code == ExitCode.DATA
    assert config.cache is not None
    left = [p.name for p in Path(config.cache).glob("*prepared*")]
    assert left == [], "nothing half-written"
    return str(caught.value)


def test_each_broken_file_is_listed_with_its_reason(
    midi: Path, write_pieces: WritePieces, configure: Configure
) -> None:
    names = write_pieces(4)
    (midi / "sub").mkdir()
    for name, (data, _) in BROKEN.items():
        (midi / "sub" / name).write_bytes(data)
    piece(2).dump_midi(midi / "sub" / "twice.mid")
    prepared = prepare(configure(), seed=1)
    assert [p.name for p in sorted(prepared.pieces, key=lambda p: p.name)] == names
    reasons = {r.file: r.reason for r in prepared.rejected}
    assert reasons.pop("sub/twice.mid") == "the same music as piece-02.mid"
    assert sorted(reasons) == sorted(f"sub/{name}" for name in BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert reason in reasons[f"sub/{name}"], f"{name}: {reasons[f'sub/{name}']}"


def test_a_file_of_50_megabytes_is_not_read(
    midi: Path, write_pieces: WritePieces, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(3)
    with (midi / "large.mid").open("wb") as file:
        file.truncate(50_000_000)
    opened: list[str] = []
    original = fsspec.implementations.local.LocalFileSystem.cat_file

    def watched(self: object, path: str, *args: object, **kwargs: object) -> bytes:
        opened.append(Path(path).name)
        return bytes(original(self, path, *args, **kwargs))

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", watched)
    prepared = prepare(configure(), seed=1)
    assert [(r.file, r.reason) for r in prepared.rejected] == [
        ("large.mid", "50,000,000 bytes, more than data.source.max_file_bytes (10,000,000)")
    ]
    assert "piece-00.mid" in opened and "large.mid" not in opened


def test_a_folder_of_only_broken_files_lists_the_reasons(midi: Path, configure: Configure) -> None:
    for name, (data, _) in BROKEN.items():
        (midi / name).write_bytes(data)
    (midi / "zero2.mid").write_bytes(b"")
    text = problem(configure())
    assert "none of the 10 files can be used" in text
    assert "2 x empty file (0 bytes), as in zero.mid" in text and "and 4 other reasons" in text


def test_an_empty_folder(midi: Path, configure: Configure) -> None:
    assert problem(configure()) == f"data.source.midi: no .mid or .midi file in {midi}"
    (midi / "notes.txt").write_text("no music")
    assert "(it has 1 files of other kinds)" in problem(configure())


def test_a_folder_that_is_not_one(midi: Path, write_pieces: WritePieces, configure: Configure) -> None:
    assert "there is no folder" in problem(configure({"midi": str(midi / "nowhere")}))
    name = write_pieces(1)[0]
    assert "is a file; name the folder" in problem(configure({"midi": str(midi / name)}))
    assert "data.source.midi: nosuch://x" in problem(configure({"midi": "nosuch://x"}))


def test_a_storage_whose_package_is_not_there(configure: Configure) -> None:
    pytest.importorskip("fsspec")
    config = configure({"midi": "dropbox://music"})
    with pytest.raises(MissingError, match="dropbox://music needs a package") as caught:
        prepare(config, seed=1)
    assert caught.value.exit_code == ExitCode.MISSING


def test_one_piece_cannot_be_split(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(1)
    assert "nothing is left to train on: there is 1 piece" in problem(configure())


@pytest.mark.parametrize("asked", [700, 5000])
def test_a_sequence_length_longer_than_any_piece(
    write_pieces: WritePieces, configure: Configure, asked: int
) -> None:
    write_pieces(4)
    with pytest.raises(DataError) as caught:
        prepare(configure(sequence_length=asked), seed=1)
    text = str(caught.value)
    assert text.startswith(
        f"data.sequence_length is {asked:,}, longer than any training piece: the longest has"
    )
    longest = int(text.rpartition("set it to ")[2].removesuffix(" or less").replace(",", ""))
    assert prepare(configure(sequence_length=longest), seed=1).sequence_length == longest
    with pytest.raises(DataError):
        prepare(configure(sequence_length=longest + 1), seed=1)


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, write_pieces: WritePieces, configure: Configure
) -> None:
    write_pieces(3)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data\.cache: .*file/cache cannot be written: Not a directory"):
        prepare(configure(cache=str(tmp_path / "file" / "cache")), seed=1)


def labels(midi: Path, text: str) -> dict[str, str]:
    path = midi.parent / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return {"labels": str(path)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,composer\nx,y\n", "has no column 'file'; its columns are: name, composer"),
        ("", "has no column 'file'; its columns are: none"),
        ("file,composer\nother/a.mid,Bach\n", "names none of the MIDI files: it says 'other/a.mid'"),
        ("file,composer\npiece-00.mid,A\npiece-00.mid,B\n", "line 3: piece-00.mid has two rows"),
        ('file,composer\npiece-00.mid,"A\n', "not readable as CSV"),
        ("file,title\npiece-00.mid,A\n", "data.split.by is composer, but no piece has a label 'composer'"),
        ("file,composer\npiece-00.mid,\n", "data.split.by is composer, but no piece has a label 'composer'"),
    ],
)
def test_labels_that_cannot_be_used(
    midi: Path, write_pieces: WritePieces, configure: Configure, text: str, message: str
) -> None:
    write_pieces(2)
    assert message in problem(configure(labels(midi, text), split={"by": "composer"}))


def test_labels_that_are_not_there(midi: Path, write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(2)
    assert "cannot be read" in problem(configure({"labels": str(midi / "nowhere.csv")}))
    assert "give data.source.labels a CSV" in problem(configure(split={"by": "set"}))
    path = midi.parent / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in problem(configure({"labels": str(path)}))


def test_a_split_by_set_keeps_sets_together(
    midi: Path, write_pieces: WritePieces, configure: Configure
) -> None:
    names = write_pieces(9)
    rows = [f"{name},Bach,Book {i // 2},Nr. {i}" for i, name in enumerate(names[:7])]
    text = "\ufefffile,composer,set,title\n" + "\n".join(rows) + f"\n{names[7]},Bach,,Alone\ngone.mid,X,Y,Z\n"
    config = configure(labels(midi, text), split={"by": "set", "validation": 0.4})
    prepared = prepare(config, seed=1)
    assert [(r.file, r.reason) for r in prepared.rejected] == [
        (names[8], "no set in data.source.labels, by which the split is made")
    ]
    splits: dict[str, set[str]] = {}
    for p in prepared.pieces:
        splits.setdefault(p.set or p.name, set()).add(p.split)
    assert sorted(splits) == ["Book 0", "Book 1", "Book 2", "Book 3", names[7]]
    assert all(len(s) == 1 for s in splits.values()), "a set is on one side"
    assert {p.title for p in prepared.pieces} == {f"Nr. {i}" for i in range(7)} | {"Alone"}
    assert prepared.warnings == (f"1 rows of {config.source.labels} name no file",)


def test_midi_from_any_storage(configure: Configure) -> None:
    storage = fsspec.filesystem("memory")
    for seed in range(3):
        storage.pipe_file(f"/aurl-test-music/deep/{seed}.MID", bytes(piece(seed).dumps_midi()))
    storage.pipe_file("/aurl-test-music/empty.mid", b"")
    prepared = prepare(configure({"midi": "memory://aurl-test-music"}), seed=1)
    assert sorted(p.name for p in prepared.pieces) == ["deep/0.MID", "deep/1.MID", "deep/2.MID"]
    assert [r.file for r in prepared.rejected] == ["empty.mid"]


def test_a_name_that_is_not_text(midi: Path, write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(2)
    try:
        (midi / os.fsdecode(b"caf\xe9.mid")).write_bytes(bytes(piece(9).dumps_midi()))
    except OSError:
        pytest.skip("this file system has only names that are text")
    assert "caf\\xe9.mid" in {p.name for p in prepare(configure(), seed=1).pieces}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(midi: Path, write_pieces: WritePieces, configure: Configure) -> None:
    (midi / write_pieces(4)[0]).chmod(0)
    assert "piece-00.mid cannot be read: Permission denied; let the run" in problem(configure())


def test_the_longest_piece_allowed_is_longer_than_any_music() -> None:
    assert LONGEST_QUARTERS / 120 / 60 > 12, "hours at 120 quarter notes a minute"
