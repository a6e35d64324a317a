"""Score to tokens and back, through MidiTok.

Here: which of MidiTok's options a `TokenizerConfig` means, the arranging that a score needs first, BPE, and
transposition of token ids. Not here: reading files (reading.py), the stream around a piece (build.py).

Importing this imports MidiTok, and with it torch where torch can be imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import miditok
import numpy as np
import numpy.typing as npt
from symusic import Note
from symusic.core import (
    NoteTickList,
    ScoreTick,
    TimeSignatureTick,
    TimeSignatureTickList,
    TrackTick,
    TrackTickList,
)

from aurl_trainer.config.data import TokenizerConfig
from aurl_trainer.errors import DataError

Ids = npt.NDArray[np.int64]

LONGEST_BEATS = 32
"""The longest duration and time shift that is one token, beats."""

_SPECIAL = ["PAD", "BOS", "EOS"]
_PITCHED = re.compile(r"(Pitch|NoteOn|NoteOff)_(\d+)")


@dataclass(frozen=True)
class Tokens:
    """A piece in base tokens, before BPE: `ids` int64 [n], and `bars` int64 [bars], where each bar begins.

    `notes` counts the notes in them; `shortened` counts notes and silences cut at `LONGEST_BEATS`.
    """

    ids: Ids
    bars: Ids
    notes: int
    shortened: int


class PieceTokenizer:
    """A MidiTok tokenizer for whole pieces, one stream of tokens each.

    Ids of pieces hold no BOS and EOS. `vocab_size` counts all tokens, BPE's included.
    """

    def __init__(self, config: TokenizerConfig, saved: Path | None = None) -> None:
        self.config = config
        kind = getattr(miditok, config.type)
        self._miditok: Any = kind(params=saved) if saved else kind(_miditok_config(config))
        self._base_size = len(self._miditok.vocab)
        self.pad_id: int = self._miditok["PAD_None"]
        self.bos_id: int = self._miditok["BOS_None"]
        self.eos_id: int = self._miditok["EOS_None"]
        self._bar_ids: dict[bytes, Ids] = {}

    def save(self, path: Path) -> None:
        """Write it as MidiTok's JSON, from which `PieceTokenizer(config, path)` reads it."""
        self._miditok.save(path)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self._miditok.vocab_size)

    def vocabulary_hash(self) -> str:
        """SHA-256 over what each id means, hexadecimal: BPE's ids by the base tokens that they stand for.

        The saved file will not do: it names MidiTok's version, and without a BPE no token.
        """
        meanings = {int(index): [token] for token, index in self._miditok.vocab.items()}
        if self.trained:
            spelled = self._miditok._vocab_learned_bytes_to_tokens
            meanings |= {int(i): list(spelled[word]) for word, i in self._miditok.vocab_model.items()}
        return hashlib.sha256(json.dumps(sorted(meanings.items())).encode()).hexdigest()

    @property
    def trained(self) -> bool:
        """Whether it has a BPE."""
        return bool(self._miditok.is_trained)

    def tokenize(self, score: ScoreTick) -> Tokens:
        """A score in base tokens. A score without notes gives no ids."""
        arranged = arrange(score, self.config.programs)
        shortened = self._shortened(arranged)
        ready = self._miditok.preprocess_score(arranged)
        for track in ready.tracks:
            _one_note_per_key(track, cut=self.config.type == "MIDILike")
        notes = ready.note_num()
        if notes == 0:
            return Tokens(np.empty(0, np.int64), np.empty(0, np.int64), 0, 0)
        found = self._miditok.encode(ready, encode_ids=False, no_preprocess_score=True)
        sequence = found[0] if isinstance(found, list) else found
        lengths = [len(bar) for bar in sequence.split_per_bars()]
        bars = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        return Tokens(np.array(sequence.ids, np.int64), np.unique(bars), notes, shortened)

    def train(self, pieces: Iterable[Tokens], vocab_size: int) -> None:
        """Train a BPE on these pieces; a merged token never reaches over a bar line.

        Raises DataError if the base vocabulary alone is as large.
        """
        if vocab_size <= self._base_size:
            raise DataError(
                f"data.tokenizer.bpe_vocab_size is {vocab_size}, but {self.config.type} has "
                f"{self._base_size} tokens before BPE: ask for more, or leave BPE out"
            )
        words = [
            self._miditok._ids_to_bytes([bar.tolist() for bar in _split(piece)], as_one_str=True)
            for piece in pieces
        ]
        with _silent_output():
            self._miditok.train(vocab_size=vocab_size, model="BPE", iterator=words)
        self._bar_ids.clear()

    def compress(self, piece: Tokens) -> Ids:
        """The ids of a piece as the model sees them: base ids, or BPE's if it has one. int64 [n]."""
        if not self.trained:
            return piece.ids
        bars = _split(piece)
        new = {key: bar for bar in bars if (key := bar.tobytes()) not in self._bar_ids}
        if new:
            sequences = [miditok.TokSequence(ids=bar.tolist()) for bar in new.values()]
            self._miditok.encode_token_ids(sequences)
            self._bar_ids.update({k: np.array(s.ids, np.int64) for k, s in zip(new, sequences, strict=True)})
        return np.concatenate([self._bar_ids[bar.tobytes()] for bar in bars])

    def encode(self, score: ScoreTick) -> list[int]:
        """The ids of a score, without BOS and EOS."""
        tokens = self.tokenize(score)
        return [int(i) for i in self.compress(tokens)] if len(tokens.ids) else []

    def decode(self, ids: Sequence[int]) -> ScoreTick:
        """The music in any ids, also ones that a model made up. PAD, BOS and EOS are passed over.

        Raises ValueError for an id that is not below `vocab_size`.
        """
        if any(not 0 <= i < self.vocab_size for i in ids):
            raise ValueError(f"token ids must be from 0 to {self.vocab_size - 1}")
        special = {self.pad_id, self.bos_id, self.eos_id}
        kept = miditok.TokSequence(ids=[int(i) for i in ids if i not in special])
        if not kept.ids:
            return ScoreTick(int(self._miditok.time_division))
        if self.trained:
            # MidiTok's own guess fails on ids that happen to be base ids only.
            kept.are_ids_encoded = True
            self._miditok.decode_token_ids(kept)
        score: ScoreTick = self._miditok.decode(kept if self._miditok.one_token_stream else [kept])
        return score

    def transposition(self, semitones: int) -> Ids:
        """Table from base id to base id, int64 [base tokens]: -1 where a pitch leaves MIDI's range.

        Drums and everything without a pitch stay. For a piece the same as transposing its notes first,
        since tokens of one time are ordered by pitch.
        """
        table = np.arange(self._base_size, dtype=np.int64)
        for token, index in self._miditok.vocab.items():
            if match := _PITCHED.fullmatch(token):
                table[index] = self._miditok.vocab.get(f"{match[1]}_{int(match[2]) + semitones}", -1)
        return table

    def _shortened(self, score: ScoreTick) -> int:
        """How many notes, and for Structured silences, are longer than a token can say."""
        if self.config.type == "MIDILike":
            return 0
        smallest = max((s.denominator for s in score.time_signatures), default=4)
        limit = LONGEST_BEATS * score.ticks_per_quarter * 4 // max(4, smallest)
        count = sum(int((t.notes.numpy()["duration"] > limit).sum()) for t in score.tracks)
        if self.config.type == "Structured":
            onsets = np.sort(np.concatenate([[0], *(t.notes.numpy()["time"] for t in score.tracks)]))
            count += int((np.diff(onsets) > limit).sum())
        return count


def _miditok_config(config: TokenizerConfig) -> Any:
    fine = config.resolution
    return miditok.TokenizerConfig(
        # All of MIDI: MidiTok deletes notes outside these without a word.
        pitch_range=(0, 127),
        drums_pitch_range=(0, 127),
        beat_res={(0, 4): fine, (4, 12): max(1, fine // 2), (12, LONGEST_BEATS): 1},
        use_velocities=config.velocities > 1,
        num_velocities=config.velocities,
        use_tempos=config.tempos,
        use_time_signatures=config.type != "Structured",
        time_signature_range={4: list(range(1, 17)), 8: list(range(1, 17)), 16: list(range(1, 17))},
        use_programs=config.programs,
        one_token_stream_for_programs=True,
        # Pieces are split into bars here, for tokenizations without bar tokens too.
        encode_ids_split="no",
        special_tokens=_SPECIAL,
    )


def arrange(score: ScoreTick, programs: bool) -> ScoreTick:
    """A copy of a score that MidiTok takes as it is.

    Without `programs`, all tracks but drums become one: drum notes name instruments, not pitches. Time
    signatures over 1 and 2 are written over 4, which keeps the bars (MidiTok's beat is the denominator, so
    4/2 would have half the positions); other ones that no token names are left out.
    """
    arranged = score.copy()
    arranged.time_signatures = TimeSignatureTickList(
        TimeSignatureTick(s.time, s.numerator * 4 // s.denominator, 4) if s.denominator in (1, 2) else s
        for s in score.time_signatures
        if s.numerator > 0
    )
    if not programs:
        merged = TrackTick("", 0, False)
        for track in score.tracks:
            if not track.is_drum:
                merged.notes.extend(track.notes)
        merged.notes.sort(key=lambda n: (n.time, n.pitch, n.duration, n.velocity))
        arranged.tracks = TrackTickList([merged])
    return arranged


def _one_note_per_key(track: TrackTick, cut: bool) -> None:
    """Of notes that begin together on one pitch, keep the longest.

    With `cut`, a note also ends where its key is struck again: note-off tokens cannot tell two sounding
    notes of one pitch apart.
    """
    if not len(track.notes):
        return
    notes = track.notes.numpy()
    order = np.lexsort((-notes["duration"], notes["pitch"], notes["time"]))
    notes = {name: values[order] for name, values in notes.items()}
    again = (np.diff(notes["time"], prepend=-1) == 0) & (np.diff(notes["pitch"], prepend=-1) == 0)
    notes = {name: values[~again] for name, values in notes.items()}
    if cut:
        by_key = np.lexsort((notes["time"], notes["pitch"]))
        here, after = by_key[:-1], by_key[1:]
        same = notes["pitch"][here] == notes["pitch"][after]
        room = notes["time"][after] - notes["time"][here]
        notes["duration"][here] = np.where(
            same, np.minimum(notes["duration"][here], room), notes["duration"][here]
        )
    track.notes = cast(NoteTickList, Note.from_numpy(**notes))


def _split(piece: Tokens) -> list[Ids]:
    return np.split(piece.ids, piece.bars[1:]) if len(piece.bars) > 1 else [piece.ids]


@contextmanager
def _silent_output() -> Iterator[None]:
    """Nothing reaches standard output: tokenizers writes empty lines there, into what a script reads."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - not a path of ours
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
