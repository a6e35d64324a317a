"""Bach's chorales from the installed music21 package, turned into MIDI files in the cache.

music21's corpus is read where it is installed and never shipped; its MIDI writer is not used, since
symusic's is a hundred times faster. Importing this imports no music21.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

FORMAT = 1
"""Raised when `chorale_midi` writes something else for the same chorale."""

_TICKS = 480
_VOICES = ("Soprano", "Alto", "Tenor", "Bass")


@dataclass(frozen=True)
class Chorale:
    """A chorale: `name` in music21's corpus as in `bach/bwv1.6`, its work `bwv1`, and its German title."""

    name: str
    work: str
    title: str


def chorales() -> list[Chorale]:
    """The chorales of Riemenschneider's collection, each once, sorted by name."""
    from music21.corpus.chorales import ChoraleListRKBWV

    # Some stand in the collection twice, under one number of the works' catalogue.
    found = ChoraleListRKBWV().byRiemenschneider.values()  # type: ignore[no-untyped-call]
    titles = {f"bach/bwv{entry['bwv']}": str(entry["title"]) for entry in found}
    return [
        Chorale(name, name.removeprefix("bach/").split(".")[0], title)
        for name, title in sorted(titles.items())
    ]


def edition() -> str:
    """What decides the chorales' content: music21's version and ours."""
    return f"music21-{version('music21')}-{FORMAT}"


def chorale_midi(name: str, path: Path) -> bytes:
    """A chorale as MIDI, from the file at `path` if it is there, else written to it.

    One track for each of the four voices; other instruments only double them. Repeats are left as written,
    ties are joined, ornaments without a duration are left out.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    data = _convert(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
    return data


def _convert(name: str) -> bytes:
    from music21 import corpus, meter
    from symusic.core import NoteTick, ScoreTick, TimeSignatureTick, TrackTick

    # forceSource: music21 would otherwise unpickle what lies in the shared temporary folder.
    work = corpus.parse(name, forceSource=True)
    parts = [p for p in work.parts if str(p.partName or p.id).startswith(_VOICES)]
    score = ScoreTick(_TICKS)
    for part in parts if len(parts) >= len(_VOICES) else work.parts:
        track = TrackTick(str(part.partName or part.id), 0, False)
        for start, end, pitch in _notes(part):
            track.notes.append(NoteTick(start, end - start, pitch, 80))
        score.tracks.append(track)
    for sign in work.parts[0].flatten().getElementsByClass(meter.TimeSignature):
        score.time_signatures.append(
            TimeSignatureTick(round(sign.offset * _TICKS), sign.numerator, sign.denominator)
        )
    return bytes(score.dumps_midi())


def _notes(part: Any) -> list[tuple[int, int, int]]:
    """Start, end (ticks) and pitch of a part's notes, ties joined.

    music21's own stripTies copies the whole part first, which takes as long as all the rest.
    """
    notes: list[tuple[int, int, int]] = []
    tied: dict[int, int] = {}  # pitch -> which note goes on with the next one of this pitch
    for element in part.flatten().notes:
        start = round(element.offset * _TICKS)
        end = round((element.offset + element.quarterLength) * _TICKS)
        for note in element.notes if element.isChord else (element,):
            pitch, tie = note.pitch.midi, note.tie.type if note.tie else None
            held = tied.pop(pitch, None)
            if tie in ("stop", "continue") and held is not None and notes[held][1] == start:
                notes[held] = (notes[held][0], end, pitch)
            elif end > start:
                held = len(notes)
                notes.append((start, end, pitch))
            if tie in ("start", "continue") and held is not None:
                tied[pitch] = held
    return notes
