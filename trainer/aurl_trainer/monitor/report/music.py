"""The samples of a run, made fit for a page: notes to draw and to synthesize, MIDI to keep, sound to hear.

Not here: how samples are made (`music/`), how the roll looks (templates/).
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aurl_trainer.contract import RunFile
from aurl_trainer.errors import MissingError
from aurl_trainer.monitor.report.lineage import Generation, surviving
from aurl_trainer.monitor.report.notes import Note, read_notes
from aurl_trainer.monitor.report.source import Run

SOUND = {".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".wav": "audio/wav"}
"""Kinds of sound a page can play, best first."""

MOST_SOUND_BYTES = 8_000_000
"""A longer sound is left to the page's own synthesizer."""

_MIDI = (".mid", ".midi")
_STEP = re.compile(r"(?:^|[^a-z])step[-_]?0*(\d+)", re.IGNORECASE)
_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


@dataclass(frozen=True)
class Piece:
    """One sample. `problem` says why there is nothing to see or hear; `sound` is a data URL, or empty."""

    name: str
    step: int | None
    notes: tuple[Note, ...] = ()
    midi: str = ""
    sound: str = ""
    problem: str = ""

    @property
    def seconds(self) -> float:
        """Until the last note ends."""
        return max((start + length for start, length, *_ in self.notes), default=0.0)

    @property
    def lowest(self) -> int:
        """Lower edge of the roll, MIDI number: a C or F sharp below the lowest note."""
        return min((n[2] for n in self.notes), default=60) // 6 * 6

    @property
    def highest(self) -> int:
        """Upper edge of the roll, above every note."""
        return max((n[2] for n in self.notes), default=71) // 6 * 6 + 6


def pieces(run: Run, lineage: Sequence[Generation], most: int) -> list[Piece]:
    """At most `most` samples: all of the newest sampling, then the first ones of those before it."""
    chosen = _choose(_files(run, lineage), most)
    readable = [(path, step) for path, step in chosen if path.is_file()]
    answers = read_notes([path for path, _ in readable])
    found = []
    for (path, step), notes in zip(readable, answers, strict=True):
        midi = f"data:audio/midi;base64,{_base64(path.read_bytes())}"
        if isinstance(notes, str):
            found.append(Piece(path.name, step, midi=midi, problem=notes))
        elif not notes:
            found.append(Piece(path.name, step, midi=midi, problem="it holds no notes"))
        else:
            found.append(Piece(path.name, step, tuple(notes), midi, _sound(path)))
    return found


def note_name(pitch: int) -> str:
    """Scientific pitch notation: 60 is C4."""
    return f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"


def _files(run: Run, lineage: Sequence[Generation]) -> dict[int, list[Path]]:
    """MIDI files by step: those of samplings that are in the result, and those that no record names.

    The latter were sampled after the run, or by a run that left no records; their step is in their name.
    """
    root = run.folder.resolve()
    by_step: dict[int, list[Path]] = {}
    for record in surviving(run, lineage, "samples"):
        paths = [run.folder / str(f) for f in record["files"] if Path(str(f)).suffix in _MIDI]
        found = by_step.setdefault(record["step"], [])
        found.extend(p for p in paths if p not in found and p.resolve().is_relative_to(root))
    named = {run.folder / str(f) for record in run.of("samples") for f in record["files"]}
    for path in sorted((run.folder / RunFile.SAMPLES).rglob("*")):
        if path.suffix in _MIDI and path not in named:
            match = _STEP.search(path.stem)
            by_step.setdefault(int(match[1]) if match else 0, []).append(path)
    return by_step


def _choose(by_step: dict[int, list[Path]], most: int) -> list[tuple[Path, int]]:
    newest, *older = sorted(by_step, reverse=True) or [0]
    chosen = [(path, newest) for path in by_step.get(newest, [])[:most]]
    for step in older:
        if len(chosen) < most and by_step[step]:
            chosen.append((by_step[step][0], step))
    return chosen


def _sound(midi: Path) -> str:
    """The sound next to a MIDI file as a data URL; WAV is made smaller on the way."""
    for suffix, kind in SOUND.items():
        path = midi.with_suffix(suffix)
        if not path.is_file():
            continue
        data = _compressed(path) if suffix == ".wav" else path.read_bytes()
        kind = "audio/mpeg" if suffix == ".wav" and not data.startswith(b"RIFF") else kind
        if 0 < len(data) <= MOST_SOUND_BYTES:
            return f"data:{kind};base64,{_base64(data)}"
    return ""


def _compressed(wav: Path) -> bytes:
    """The WAV as MP3; as it is where that cannot be made; nothing if it is damaged."""
    try:
        from aurl_trainer.music.rendering import compress

        with tempfile.TemporaryDirectory() as folder:
            return compress(wav, Path(folder) / "sound.mp3").read_bytes()
    except (ImportError, MissingError):
        return wav.read_bytes()
    except (OSError, RuntimeError):
        return b""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
