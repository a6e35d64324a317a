"""Prepared music that nodes leave for each other: whole or not at all, and never needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_trainer.config.data import DataConfig
from aurl_trainer.data import build
from aurl_trainer.data.prepared import PreparedData, prepare
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.music import MUSIC, SharedMusic
from aurl_trainer.store.retention.removal import everything
from bench.chaos.job import write_music


@pytest.fixture
def place(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "run"))


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return write_music(tmp_path / "midi", 6)


def _prepared(node: str, music: Path, place: Location) -> PreparedData:
    """As a node with an empty disk of its own prepares."""
    config = {
        "source": {"midi": str(music)}, "split": {"validation": 0.2}, "sequence_length": 16,
        "cache": str(music.parent / node),
    }  # fmt: skip
    return prepare(DataConfig.model_validate(config), 1, shared=SharedMusic(place))


def _unbuildable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("expected it to be fetched, not built")

    monkeypatch.setattr(build, "build", refused)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_second_node_fetches_what_the_first_has_made(
    place: Location, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _prepared("first", music, place)
    _unbuildable(monkeypatch)
    second = _prepared("second", music, place)
    assert second.folder != first.folder
    assert _files(second.folder) == _files(first.folder)


@pytest.mark.parametrize("wrong", ["bit", "short", "listing", "no file"])
def test_what_is_damaged_is_made_anew(place: Location, music: Path, wrong: str) -> None:
    first = _prepared("first", music, place)
    names = place.names(MUSIC)
    tokens = f"{MUSIC}/" + next(name for name in names if name.endswith("tokens.bin"))
    listing = f"{MUSIC}/" + next(name for name in names if name.endswith(".json") and name.count("/") == 1)
    data = place.get(tokens)
    if wrong == "bit":
        place.put(tokens, bytes([data[0] ^ 1]) + data[1:])
    elif wrong == "short":
        place.put(tokens, data[:-2])
    elif wrong == "listing":
        place.put(listing, b"{")
    else:
        place.delete([tokens])
    second = _prepared("second", music, place)
    assert _files(second.folder) == _files(first.folder)
    assert not list(second.folder.parent.glob(".building-*"))


def test_without_a_listing_nothing_counts(place: Location, music: Path) -> None:
    """A node that dies while it leaves its music."""
    first = _prepared("first", music, place)
    place.delete([f"{MUSIC}/{n}" for n in place.names(MUSIC) if n.endswith(".json") and n.count("/") == 1])
    _prepared("second", music, place)
    copies = [n for n in place.names(f"{MUSIC}/{first.key}") if n.endswith(".json") and "/" not in n]
    assert len(copies) == 1, "the second has left a whole one"


def test_it_goes_with_the_run(place: Location, music: Path) -> None:
    _prepared("first", music, place)
    everything(place, "a run that left music and took no generation")
    assert place.names("") == []


def test_a_place_that_cannot_be_used_harms_nothing(tmp_path: Path, music: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert _prepared("first", music, Location(str(tmp_path / "file" / "run"))).pieces
