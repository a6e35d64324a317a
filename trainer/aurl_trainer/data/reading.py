"""What a child process of readers.py does: one file or chorale in, base tokens out.

Run as `python -m aurl_trainer.data.reading FD`. Not here: the pool, the split, BPE.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aurl_trainer.config.data import TokenizerConfig

CPU_SECONDS = 60
"""Time that one file may take. The processor's, not the clock's: a busy machine rejects nothing."""

MEMORY_BYTES = 4 << 30
"""Address space of a child."""

LONGEST_QUARTERS = 100_000
"""Longest piece in quarter notes, some 14 hours: beyond, a delta time is damaged."""


def main(descriptor: int) -> None:
    """Serve tasks from the socket until it closes."""
    connection = Connection(descriptor)
    _limit()
    # MidiTok imports torch for parts that are not used here; without, a child starts in a third of the time.
    sys.modules["torch"] = None  # type: ignore[assignment]
    setup = json.loads(connection.recv_bytes())

    from aurl_trainer.data.tokenizer import PieceTokenizer

    tokenizer = PieceTokenizer(TokenizerConfig.model_validate(setup["tokenizer"]))
    _answer(connection, {})
    while True:
        try:
            head = json.loads(connection.recv_bytes())
            body = connection.recv_bytes()
        except (EOFError, OSError):
            return
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        answer, frames = _read(tokenizer, head, body)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(connection, answer, *frames)


def _read(tokenizer: Any, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    from symusic import Score

    from aurl_trainer.data.source.chorales import chorale_midi

    try:
        if "chorale" in head:
            try:
                body = chorale_midi(head["chorale"], Path(head["midi"]))
            except OSError as error:  # the disk's fault, not the chorale's
                return {"fault": f"{head['midi']} cannot be written: {error.strerror or error}"}, []
        score = Score.from_midi(body)
        if problem := _problem(score, tokenizer.config.programs):
            return {"failure": problem}, []
        tokens = tokenizer.tokenize(score)
    except MemoryError:
        return {"failure": f"needs more than {MEMORY_BYTES >> 30} GiB to read"}, []
    except Exception as error:  # whatever a library says about a file is that file's reason
        text = " ".join(str(error).split()) or type(error).__name__
        return {"failure": f"not readable as MIDI: {text[:200]}"}, []
    if not len(tokens.ids):
        return {"failure": "no notes"}, []
    answer = {"notes": tokens.notes, "shortened": tokens.shortened}
    return answer, [tokens.ids.astype("<i8").tobytes(), tokens.bars.astype("<i8").tobytes()]


def _problem(score: Any, programs: bool) -> str | None:
    if score.ticks_per_quarter <= 0:
        return "no time division (0 ticks per quarter note)"
    if score.note_num() == 0:
        return "no notes"
    if not programs and all(track.is_drum or not len(track.notes) for track in score.tracks):
        return "only drums, which need data.tokenizer.programs: true"
    quarters = score.end() / score.ticks_per_quarter
    if quarters > LONGEST_QUARTERS:
        return f"lasts {quarters:,.0f} quarter notes, so its timing must be damaged"
    return None


def _answer(connection: Connection, head: dict[str, Any], *frames: bytes) -> None:
    connection.send_bytes(json.dumps({**head, "frames": len(frames)}).encode())
    for frame in frames:
        connection.send_bytes(frame)


def _limit() -> None:
    """Limits and signals: a notice to the parent's process group must not cost the file in work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Not every system takes a limit on address space; there a child may only use more.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.environ.setdefault("OMP_NUM_THREADS", "1")


if __name__ == "__main__":
    main(int(sys.argv[1]))
