"""What was prepared, as a checkpoint keeps it: a digest over all that decides the samples, and counts.

A run goes on only where this is the same: another order of streams, another split or another meaning of a
token is another run. Names of files and of labels, the versions of libraries and what else is in the key
decide nothing by themselves, so they are not in it. Not here: who compares (engine/resume/music.py).
"""

from __future__ import annotations

import hashlib
from typing import Any

from aurl_trainer.data.dataset import LazyMidiDataset

Content = dict[str, Any]
"""Plain: `digest` and `vocabulary`, hexadecimal, and `pieces`, `samples` and `tokens` of each split."""


def content_of(training: LazyMidiDataset, validation: LazyMidiDataset) -> Content:
    """The content of the prepared data of which these are the splits.

    Reads the table of streams; of the tokens it takes the hash that was noted when they were written.
    """
    prepared = training.prepared
    whole = hashlib.sha256(f"{prepared.tokens_hash} {prepared.vocabulary_hash}".encode())
    splits: dict[str, dict[str, int]] = {}
    for dataset in (training, validation):
        streams = prepared.streams(dataset.split)
        whole.update(f" {dataset.split} {len(streams.offset)} ".encode())
        whole.update(streams.offset.astype("<i8").tobytes())
        whole.update(streams.length.astype("<i8").tobytes())
        splits[dataset.split] = {
            "pieces": sum(piece.split == dataset.split for piece in prepared.pieces),
            "samples": len(dataset),
            "tokens": int(dataset.targets.sum()),
        }
    return {"digest": whole.hexdigest(), "vocabulary": prepared.vocabulary_hash, **splits}
