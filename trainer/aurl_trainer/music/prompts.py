"""A MIDI file as the beginning of a sampled piece.

The file is foreign, so a child process reads it (data/readers.py). Not here: the sampling (sampled.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aurl_trainer.data import readers
from aurl_trainer.errors import DataError, MissingError

if TYPE_CHECKING:
    from aurl_trainer.data.prepared import PreparedData


def read_prompt(path: Path, prepared: PreparedData, bars: int | None = None) -> list[int]:
    """Token ids of the file's music, or of its first `bars` bars, behind the begin-of-piece token.

    Raises MissingError if the file cannot be read, DataError if it holds no music.
    """
    from aurl_trainer.data.tokenizer import Tokens

    try:
        body = path.read_bytes()
    except OSError as error:
        raise MissingError(f"prompt {path}: {error.strerror}") from None
    setup = {"tokenizer": prepared.tokenizer_config.model_dump()}
    (answer,) = readers.run([readers.Task(0, {}, body)], setup, processes=1)
    if answer.failure is not None:
        raise DataError(f"prompt {path}: {answer.failure}")
    ids, starts = (np.frombuffer(frame, dtype="<i8") for frame in answer.frames)
    if bars is not None and bars < len(starts):
        ids, starts = ids[: starts[bars]], starts[:bars]
    tokens = Tokens(ids, starts, notes=answer.head["notes"], shortened=answer.head["shortened"])
    return [prepared.bos_id, *prepared.tokenizer().compress(tokens).tolist()]
