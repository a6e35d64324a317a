"""Building prepared data: read every piece in children, split, train BPE, write the shard.

Everything goes into a folder of its own that gets its name at the end, so what has the name is complete.
The caller holds the lock. Not here: the key and opening (prepared.py), the children (readers.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aurl_trainer.config.data import DataConfig
from aurl_trainer.data.alive import Alive
from aurl_trainer.data.prepared import META, STREAMS, TOKENIZER, TOKENS, Piece, Rejected, token_type
from aurl_trainer.data.readers import Task, run
from aurl_trainer.data.source.listing import Listing, Source, refusal, tasks
from aurl_trainer.data.split import check_labels, choose, group, held_out
from aurl_trainer.data.tokenizer import PieceTokenizer, Tokens
from aurl_trainer.errors import DataError

Advance = Callable[[int], None]


def build(
    config: DataConfig, seed: int, listing: Listing, key: str, folder: Path, progress: bool, alive: Alive
) -> None:
    """Write the prepared data of `listing` to `folder`, complete or not at all. `alive` hears of each piece.

    Raises DataError if no piece can be used or none is left to train on; then nothing is written.
    """
    check_labels(listing, config.split)
    chosen = choose(listing, config.source.limit, seed)
    read, rejected = _read(config, chosen, folder.parent, progress, alive)
    read = _without_duplicates(chosen, read, rejected)
    if not read:
        raise DataError(_nothing_usable(chosen, rejected))
    groups = {i: group(chosen[i], config.split) or "" for i in read}
    validation = held_out(list(groups.values()), config.split, seed)
    splits: dict[int, Literal["train", "validation"]] = {
        i: "validation" if groups[i] in validation else "train" for i in sorted(read)
    }
    ordered = sorted(read, key=lambda i: (splits[i], i))
    tokenizer = PieceTokenizer(config.tokenizer)
    variants = _variants(tokenizer, config.transpose)
    warnings = list(listing.warnings)
    if (size := config.tokenizer.bpe_vocab_size) is not None:
        own = (_told(read[i], alive) for i in ordered if splits[i] == "train")
        training = (v for tokens in own for v, _ in variants(tokens))
        tokenizer.train(training, size)
        if tokenizer.vocab_size < size:
            warnings.append(f"the music gave BPE only {tokenizer.vocab_size:,} of {size:,} tokens")
    if shortened := sum(tokens.shortened for tokens in read.values()):
        warnings.append(f"{shortened:,} notes or silences longer than 32 beats were shortened to that")

    part = folder.with_name(f".building-{folder.name}-{os.getpid()}")
    for left in folder.parent.glob(f".building-{folder.name}-*"):
        shutil.rmtree(left)  # of a build that was cut off: we hold the lock
    part.mkdir()
    try:
        with _progress(progress, "Writing tokens", len(ordered), alive) as advance:
            pieces, tokens_hash = _write_streams(
                part, tokenizer, ordered, read, splits, chosen, variants, advance
            )
        tokenizer.save(part / TOKENIZER)
        meta = {
            "key": key,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.pad_id,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
            "tokenizer": config.tokenizer.model_dump(),
            "pieces": [asdict(piece) for piece in pieces],
            "rejected": [asdict(Rejected(chosen[i].name, rejected[i])) for i in sorted(rejected)],
            "warnings": warnings,
            "sha256": {"tokens": tokens_hash, "vocabulary": tokenizer.vocabulary_hash()},
            "bytes": {name: (part / name).stat().st_size for name in (TOKENS, STREAMS, TOKENIZER)},
        }
        (part / META).write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
        for path in part.iterdir():
            _to_disk(path)
            alive()
        if folder.exists():
            shutil.rmtree(folder)  # incomplete, or it would have been opened
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _read(
    config: DataConfig, chosen: Sequence[Source], cache: Path, progress: bool, alive: Alive
) -> tuple[dict[int, Tokens], dict[int, str]]:
    """Tokens by number of the source, and the reasons of those that gave none."""
    rejected: dict[int, str] = {}
    wanted = []
    for index, source in enumerate(chosen):
        if problem := refusal(source.size, config.source.max_file_bytes):
            rejected[index] = problem
        elif group(source, config.split) is None:
            rejected[index] = f"no {config.split.by} in data.source.labels, by which the split is made"
        else:
            wanted.append((index, source))
    read: dict[int, Tokens] = {}
    what = "Reading chorales" if config.source.midi is None else "Reading MIDI"
    with _progress(progress, what, len(wanted), alive) as advance:

        def readable() -> Iterator[Task]:
            for item in tasks(config.source, wanted, cache):
                if isinstance(item, Task):
                    yield item
                else:
                    rejected[item[0]] = item[1]
                    advance(1)

        setup = {"tokenizer": config.tokenizer.model_dump()}
        for answer in run(readable(), setup, config.workers):
            if "fault" in answer.head:
                raise DataError(f"data.cache: {answer.head['fault']}")
            if answer.failure is not None:
                rejected[answer.index] = answer.failure
            else:
                ids, bars = (np.frombuffer(frame, dtype="<i8") for frame in answer.frames)
                read[answer.index] = Tokens(ids, bars, answer.head["notes"], answer.head["shortened"])
            advance(1)
    return read, rejected


def _told(piece: Tokens, alive: Alive) -> Tokens:
    alive()
    return piece


def _without_duplicates(
    chosen: Sequence[Source], read: dict[int, Tokens], rejected: dict[int, str]
) -> dict[int, Tokens]:
    """Without pieces whose tokens another one has: they would leak from training into validation."""
    first: dict[bytes, int] = {}
    for index in sorted(read):
        kept = first.setdefault(read[index].ids.tobytes(), index)
        if kept != index:
            rejected[index] = f"the same music as {chosen[kept].name}"
    return {index: read[index] for index in first.values()}


def _variants(tokenizer: PieceTokenizer, transpose: int) -> Callable[[Tokens], Iterator[tuple[Tokens, int]]]:
    """A function that gives a piece in every transposition that stays within MIDI's pitches."""
    tables = {s: tokenizer.transposition(s) for s in range(-transpose, transpose + 1)}

    def of(piece: Tokens) -> Iterator[tuple[Tokens, int]]:
        for semitones, table in tables.items():
            ids = table[piece.ids]
            if (ids >= 0).all():
                yield Tokens(ids, piece.bars, piece.notes, piece.shortened), semitones

    return of


def _write_streams(
    part: Path,
    tokenizer: PieceTokenizer,
    ordered: Sequence[int],
    read: dict[int, Tokens],
    splits: dict[int, Literal["train", "validation"]],
    chosen: Sequence[Source],
    variants: Callable[[Tokens], Iterator[tuple[Tokens, int]]],
    advance: Advance,
) -> tuple[list[Piece], str]:
    """Write tokens and the table of streams; the pieces in the table's numbering, and the tokens' SHA-256."""
    rows: list[tuple[int, int, int, int]] = []
    pieces: list[Piece] = []
    offset, whole = 0, hashlib.sha256()
    kind = token_type(tokenizer.vocab_size)
    with (part / TOKENS).open("wb") as out:
        for index in ordered:
            base, own = read[index], 0
            for variant, semitones in variants(base) if splits[index] == "train" else [(base, 0)]:
                ids = tokenizer.compress(variant)
                stream = np.concatenate([[tokenizer.bos_id], ids, [tokenizer.eos_id]]).astype(kind)
                out.write(data := stream.tobytes())
                whole.update(data)
                rows.append((offset, len(stream), len(pieces), semitones))
                offset += len(stream)
                if semitones == 0:
                    own = len(ids)
            labels = chosen[index].labels or {}
            pieces.append(Piece(chosen[index].name, splits[index], base.notes, own, **labels))
            advance(1)
    np.save(part / STREAMS, np.array(rows, dtype=np.int64), allow_pickle=False)
    return pieces, whole.hexdigest()


def _nothing_usable(chosen: Sequence[Source], rejected: dict[int, str]) -> str:
    """Every reason once, the commonest first, with one of its files."""
    counts = Counter(rejected.values())
    example = {rejected[i]: chosen[i].name for i in sorted(rejected, reverse=True)}
    lines = [f"none of the {len(chosen)} files can be used:"]
    lines += [f"  {count} x {reason}, as in {example[reason]}" for reason, count in counts.most_common(5)]
    if len(counts) > 5:
        lines.append(f"  and {len(counts) - 5} other reasons")
    return "\n".join(lines)


def _to_disk(path: Path) -> None:
    """Make a file's content survive a power cut before its folder gets the final name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _progress(wanted: bool, what: str, total: int, alive: Alive) -> Iterator[Advance]:
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (wanted and console.is_terminal),
    )
    with bar:
        task = bar.add_task(what, total=total)

        def advance(count: int) -> None:
            alive()
            bar.advance(task, count)

        yield advance
