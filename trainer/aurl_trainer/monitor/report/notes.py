"""The notes of MIDI files, read in a child process: a parser that dies over a damaged file costs that file.

`read_notes` is for callers; `python -m aurl_trainer.monitor.report.notes FILES` is the child, which prints
one line of JSON a file. Not here: the reading of foreign music for training (`data/`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Note = tuple[float, float, int, int, int]
"""Start and length in seconds, pitch (MIDI number), velocity 1 to 127, index of the track."""

_SECONDS = 120


def read_notes(files: Sequence[Path]) -> list[list[Note] | str]:
    """For each file its notes by start, or one line that says why it cannot be read."""
    found: list[list[Note] | str] = []
    while len(found) < len(files):
        rest = [str(f.resolve()) for f in files[len(found) :]]
        lines, ending = _child(rest)
        for line in lines:
            answer = json.loads(line)
            if isinstance(answer, str):
                found.append(answer)
            else:
                found.append([(float(s), float(d), int(p), int(v), int(t)) for s, d, p, v, t in answer])
        if len(lines) < len(rest):
            found.append(f"not readable: its reader {ending}")
    return found


def _child(files: Sequence[str]) -> tuple[list[str], str]:
    command = [sys.executable, "-m", "aurl_trainer.monitor.report.notes", *files]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        return _whole(error.stdout or b""), "took too long"
    return _whole(done.stdout), "died over it"


def _whole(output: bytes) -> list[str]:
    """Lines that were written to their end."""
    return output.decode().split("\n")[:-1]


def _read(path: str) -> list[Any] | str:
    from symusic import Score

    try:
        score: Any = Score(path).to("second")  # type: ignore[attr-defined]
    except Exception as error:  # whatever the parser says about a file is that file's reason
        return " ".join(str(error).split())[:200] or type(error).__name__
    notes = [
        (round(n.time, 4), round(n.duration, 4), n.pitch, n.velocity, index)
        for index, track in enumerate(score.tracks)
        for n in track.notes
    ]
    return sorted(notes)


def main(files: Sequence[str]) -> None:
    """Prints each file's notes, or the reason, as a line of JSON."""
    for file in files:
        print(json.dumps(_read(file)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
