"""Whether all ranks have the same music, and a run goes on with that which its weights were trained on.

The order of samples follows from their number, a token's meaning from the tokenizer, and what is best from
the pieces that are held out. With other music all three would change, without a word: in the middle of a run,
or from rank to rank, of which each would train on an order of its own.
Not here: what counts as the same (data/content.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.data.content import Content
from aurl_trainer.errors import DataError, RefusedError

SHOWN = 12
"""Digits of a hash that people are shown."""

MOST = 4
"""Kinds of music that are named where ranks differ."""


@dataclass(frozen=True)
class Here:
    """What one rank has: the content, and the key and folder under which its node keeps it."""

    content: Content
    key: str
    folder: str
    node: str


def agreed(here: Here, ranks: Ranks) -> None:
    """Raises DataError on all ranks when another rank has other music."""
    compare([Here(**found) for found in ranks.together(lambda: asdict(here))])


def compare(found: Sequence[Here]) -> None:
    """Raises DataError unless all of `found`, in the order of ranks, is the same music."""
    first: dict[str, int] = {}
    for rank, here in enumerate(found):
        first.setdefault(here.content["digest"], rank)
    if len(first) == 1:
        return
    told = [f"{_who(found, rank)}: digest {digest[:SHOWN]}" for digest, rank in list(first.items())[:MOST]]
    other = list(first.values())[1]
    told += lines(found[0].content, found[other].content, "on rank 0", f"on rank {other}")[:-1]
    if len({here.key for here in found}) == 1:
        mend = (
            "It was made of the same files, so what one node keeps is wrong: remove these folders, and "
            f"music/{found[0].key} below checkpoint.uri, and resume"
        )
    else:
        mend = "Give all nodes the same files in data.source, and the same image, and resume"
    raise DataError("the ranks have not prepared the same music:\n  " + "\n  ".join(told) + f"\n{mend}")


def _who(found: Sequence[Here], rank: int) -> str:
    here = found[rank]
    node = f" of {here.node}" if here.node else ""
    return f"rank {rank}{node}, {here.folder}"


def check(extra: Mapping[str, Any], now: Content, tokenizer: str | None, checkpoint: str) -> None:
    """Raises RefusedError if the checkpoint with this `extra` was trained on other music than `now`.

    One of an Aurl that kept no content is asked for the hash of its tokenizer's file; `tokenizer` is ours.
    """
    before, image = extra.get("prepared"), ""
    found = []
    if before is not None:
        found = lines(before, now, "then", "now")
    else:
        theirs = (extra.get("model") or {}).get("tokenizer")
        if theirs is not None and tokenizer is not None and theirs != tokenizer:
            found = [f"tokenizer: {theirs[:SHOWN]} then, {tokenizer[:SHOWN]} now"]
            image = ", and the image with the same versions of miditok, symusic and tokenizers,"
    if found:
        raise RefusedError(
            f"checkpoint {checkpoint} was trained on other music than there is now:\n  "
            + "\n  ".join(found)
            + f"\nbring back what data.source had then{image} and resume; or let a new run begin with these "
            "weights: another checkpoint.uri, and initFrom"
        )


def lines(old: Content, new: Content, before: str, now: str) -> list[str]:
    """What differs, a line each; none if it is the same music."""
    if old.get("digest") == new.get("digest"):
        return []
    found = [
        f"{split}: {_counts(old[split])} {before}, {_counts(new[split])} {now}"
        for split in ("train", "validation")
        if old.get(split) != new.get(split) and split in old and split in new
    ]
    if old.get("vocabulary") != new.get("vocabulary"):
        found.append(
            f"meaning of the tokens: {_brief(old, 'vocabulary')} {before}, {_brief(new, 'vocabulary')} {now}"
        )
    return [*found, f"digest: {_brief(old, 'digest')} {before}, {_brief(new, 'digest')} {now}"]


def _counts(split: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in split.items())


def _brief(content: Content, name: str) -> str:
    return str(content.get(name))[:SHOWN]
