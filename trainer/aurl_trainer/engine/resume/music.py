"""Whether a run goes on with the music that its weights were trained on. Pure.

The order of samples follows from their number, a token's meaning from the tokenizer, and what is best from
the pieces that are held out. With other music all three would change in the middle of a run, without a word.
Not here: what counts as the same (data/content.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aurl_trainer.data.content import Content
from aurl_trainer.errors import RefusedError

SHOWN = 12
"""Digits of a hash that people are shown."""


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
