"""Prepared music on disk: `prepare` builds it once, or opens what is there.

A folder `prepared-<key>` in the cache holds all tokens in one memory-mapped file, a table of streams, the
tokenizer, and what was rejected. The key is a hash over everything that decides its content; the sequence
length does not, since samples are windows (dataset.py). Not here: how it is built (build.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from aurl_trainer.config.data import DataConfig, TokenizerConfig
from aurl_trainer.data.alive import Alive, turn
from aurl_trainer.data.source.listing import Listing, list_source
from aurl_trainer.errors import DataError

if TYPE_CHECKING:
    from aurl_trainer.data.tokenizer import PieceTokenizer
    from aurl_trainer.store.music import SharedMusic

FORMAT = 2
"""Raised when the same inputs become other files."""

META, TOKENS, STREAMS, TOKENIZER = "meta.json", "tokens.bin", "streams.npy", "tokenizer.json"


@dataclass(frozen=True)
class Rejected:
    """A file that is not used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Piece:
    """A piece that is used: its name in the source, its split and labels, and its size.

    `tokens` counts its own tokens, without BOS and EOS, of one variant.
    """

    name: str
    split: Literal["train", "validation"]
    notes: int
    tokens: int
    composer: str = ""
    set: str = ""
    title: str = ""


@dataclass(frozen=True)
class Streams:
    """Where streams lie in the token file, int64 [streams] each: a stream is BOS, a piece, EOS.

    `offset` and `length` are in tokens, `piece` is an index into the pieces, `semitones` is how far this
    variant is transposed.
    """

    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    piece: npt.NDArray[np.int64]
    semitones: npt.NDArray[np.int64]


@dataclass(frozen=True)
class PreparedData:
    """Music ready for training, in `folder`; `key` names its content.

    `rejected` lists every file that is not used; `warnings` are lines for people. `tokens_hash` is the
    SHA-256 of the token file, `vocabulary_hash` that of what each id means, both noted when it was written.
    """

    folder: Path
    key: str
    sequence_length: int
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    pieces: tuple[Piece, ...]
    rejected: tuple[Rejected, ...]
    warnings: tuple[str, ...]
    tokenizer_config: TokenizerConfig
    tokens_hash: str
    vocabulary_hash: str

    def tokens(self) -> npt.NDArray[Any]:
        """All streams one after the other, memory-mapped, read-only; uint16 or uint32 [tokens]."""
        return np.memmap(self.folder / TOKENS, dtype=token_type(self.vocab_size), mode="r")

    @cached_property
    def _table(self) -> npt.NDArray[np.int64]:
        table: npt.NDArray[np.int64] = np.load(self.folder / STREAMS, allow_pickle=False)
        return table

    def streams(self, split: Literal["train", "validation"]) -> Streams:
        """The streams of a split; in training, transposed variants are streams too."""
        is_split = np.array([piece.split == split for piece in self.pieces], dtype=bool)
        rows = self._table[is_split[self._table[:, 2]]]
        return Streams(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])

    def token_streams(self, split: Literal["train", "validation"]) -> list[npt.NDArray[Any]]:
        """The streams of a split as views of the memory-mapped file, BOS and EOS included."""
        streams, tokens = self.streams(split), self.tokens()
        return [tokens[o : o + n] for o, n in zip(streams.offset, streams.length, strict=True)]

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer's file, hexadecimal: models of the same one mean the same by a token."""
        return hashlib.sha256((self.folder / TOKENIZER).read_bytes()).hexdigest()

    def tokenizer(self) -> PieceTokenizer:
        """The tokenizer that made the tokens. Imports MidiTok."""
        from aurl_trainer.data.tokenizer import PieceTokenizer

        return PieceTokenizer(self.tokenizer_config, self.folder / TOKENIZER)

    def check_length(self) -> None:
        """Raises DataError if no training piece is as long as one sample.

        Such a run would work, and only pretend: each sample would be a piece and then padding, paid for in
        time and memory, and the model would never see a context of the length it was configured for. One
        long piece is enough to let it pass, since mixed lengths are what music is like; `aurl prepare`
        shows how much of the samples is padding.
        """
        lengths = np.sort(self.streams("train").length - 1)
        if lengths[-1] < self.sequence_length:
            raise DataError(
                f"data.sequence_length is {self.sequence_length:,}, longer than any training piece: the "
                f"longest has {lengths[-1]:,} tokens, half of them at most {lengths[len(lengths) // 2]:,}; "
                f"set it to {lengths[-1]:,} or less"
            )


def token_type(vocab_size: int) -> npt.DTypeLike:
    """The smallest type that holds every token id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def cache_folder(config: DataConfig) -> Path:
    """Where prepared data lies: `data.cache`, else `aurl` in the user's cache folder."""
    if config.cache is not None:
        return Path(config.cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aurl"


def data_key(config: DataConfig, seed: int, listing: Listing) -> str:
    """Hash over all that decides the prepared data: configuration, seed, inputs, and the libraries.

    SHA-256, its first 32 hexadecimal digits. Places and `workers` are not in it, so every node and every
    number of processes gets the same.
    """
    source = config.source.model_dump(include={"music21", "limit", "max_file_bytes"})
    libraries = {name: version(name) for name in ("miditok", "symusic", "tokenizers")}
    decides = {
        "format": FORMAT,
        "libraries": libraries,
        "source": source,
        "inputs": listing.digest,
        "tokenizer": config.tokenizer.model_dump(),
        "split": config.split.model_dump(),
        "transpose": config.transpose,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def prepare(
    config: DataConfig,
    seed: int,
    progress: bool = False,
    shared: SharedMusic | None = None,
    alive: Alive = lambda: None,
) -> PreparedData:
    """The prepared data of this configuration: opened if the cache has it, else fetched or built.

    However many processes ask at once, on one machine or over a shared file system, one builds and the
    others wait; a build that is cut off leaves nothing that could be taken for data. `progress` shows bars
    on a terminal's standard error. From `shared` it is fetched if another node has left it there, and there
    it is left. `alive` is called again and again while this or, waited for, another process gets on with it.

    Raises DataError if the music cannot be used, MissingError if a package is not there.
    """
    cache = cache_folder(config)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "locks").mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"data.cache: {cache} cannot be written: {error.strerror}") from None
    listing = list_source(config.source, cache, alive)
    key = data_key(config, seed, listing)
    folder = cache / f"prepared-{key}"
    prepared = open_prepared(folder, config)
    if prepared is None:
        with turn(cache / "locks" / f"{key}.lock", alive) as alive:
            prepared = open_prepared(folder, config)
            if prepared is None and shared is not None and shared.fetch(key, folder, alive):
                prepared = open_prepared(folder, config)
            if prepared is None:
                from aurl_trainer.data.build import build  # and with it MidiTok, which opening does not need

                try:
                    build(config, seed, listing, key, folder, progress, alive)
                    if shared is not None:
                        shared.publish(key, folder, alive)
                except OSError as error:
                    raise DataError(
                        f"data.cache: {error.filename or cache} cannot be written: {error.strerror or error}"
                    ) from None
                prepared = open_prepared(folder, config)
    if prepared is None:
        raise DataError(f"{folder} was written and cannot be read back: is the disk sound?")
    prepared.check_length()
    return prepared


def open_prepared(folder: Path, config: DataConfig) -> PreparedData | None:
    """What lies in `folder`, or None if nothing complete does."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in meta["bytes"]}
        hashes = meta["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    if sizes != meta["bytes"]:
        return None
    return PreparedData(
        folder=folder,
        key=meta["key"],
        sequence_length=config.sequence_length,
        vocab_size=meta["vocab_size"],
        pad_id=meta["pad_id"],
        bos_id=meta["bos_id"],
        eos_id=meta["eos_id"],
        pieces=tuple(Piece(**piece) for piece in meta["pieces"]),
        rejected=tuple(Rejected(**rejected) for rejected in meta["rejected"]),
        warnings=tuple(meta["warnings"]),
        tokenizer_config=TokenizerConfig.model_validate(meta["tokenizer"]),
        tokens_hash=hashes["tokens"],
        vocabulary_hash=hashes["vocabulary"],
    )
