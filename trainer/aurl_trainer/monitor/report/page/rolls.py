"""Piano rolls: where each note of a piece lies on its roll, percent of it.

Not here: where pieces come from (music.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aurl_trainer.monitor.report.music import Piece, note_name
from aurl_trainer.monitor.report.page import words

_BLACK = frozenset({1, 3, 6, 8, 10})


def roll(piece: Piece) -> dict[str, Any]:
    """What music.html.j2 shows of a piece; x runs with time, y downwards from the highest key."""
    low, high, length = piece.lowest, piece.highest, piece.seconds or 1.0
    keys = high - low
    facts = [f"after step {piece.step:,}"] if piece.step is not None else []
    if piece.notes:
        facts += [f"{len(piece.notes):,} notes", words.duration(length)]
    return {
        "name": piece.name,
        "problem": piece.problem,
        "midi": piece.midi,
        "sound": piece.sound,
        "facts": " · ".join(facts),
        "seconds": round(length, 2),
        "length": words.clock(length),
        "height": min(280, max(110, 5 * keys)),
        "width": round(14 * length),
        "key_height": round(100 / keys, 3),
        "black_keys": [round(100 * (high - 1 - k) / keys, 3) for k in range(low, high) if k % 12 in _BLACK],
        "octaves": [
            {"at": round(100 * (high - k) / keys, 3), "label": note_name(k)}
            for k in range(low, high)
            if k % 12 == 0
        ],
        "rects": [
            {
                "x": round(100 * start / length, 3),
                "y": round(100 * (high - 1 - pitch) / keys, 3),
                "width": max(0.12, round(100 * duration / length - 0.06, 3)),
                "opacity": round(0.45 + 0.55 * min(velocity, 100) / 100, 2),
                "voice": track % 6,
            }
            for start, duration, pitch, velocity, track in piece.notes
        ],
    }


def hint(pieces: Sequence[Piece]) -> str:
    """How to use the rolls, and where their sound comes from."""
    silent = sum(1 for p in pieces if not p.problem and not p.sound)
    text = "Time runs to the right, pitch upwards. A click into a roll plays from there."
    if silent:
        text += (
            f" {words.plural(silent, 'piece')} came without sound: "
            "this page plays the notes with a plain synthesizer of its own."
        )
    return text
