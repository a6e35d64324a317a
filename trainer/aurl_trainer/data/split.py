"""Which pieces are used and which are held out: decided by name, before anything is cut into samples.

Pure. Not here: where labels come from (source/listing.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from aurl_trainer.config.data import SplitConfig
from aurl_trainer.data.source.listing import Listing, Source
from aurl_trainer.errors import DataError


def drawn(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in an order that depends on seed and purpose alone.

    Each name gets its place by its own hash, so that one more file moves no other from one split to the
    other, or only the one at the edge.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode()).digest())


def choose(listing: Listing, limit: int | None, seed: int) -> tuple[Source, ...]:
    """At most `limit` of the sources, sorted by name."""
    if limit is None or limit >= len(listing.sources):
        return listing.sources
    chosen = set(drawn((s.name for s in listing.sources), seed, "limit")[:limit])
    return tuple(s for s in listing.sources if s.name in chosen)


def check_labels(listing: Listing, config: SplitConfig) -> None:
    """Raises DataError if the split is by a label that there is none of."""
    if config.by != "piece" and config.by not in listing.labelled:
        raise DataError(
            f"data.split.by is {config.by}, but no piece has a label {config.by!r}: give data.source.labels "
            f"a CSV with the columns file and {config.by}, or split by piece"
        )


def group(source: Source, config: SplitConfig) -> str | None:
    """What a piece is held out together with; None if that cannot be known.

    A labelled piece without a set belongs to none and stands alone; one without a composer may be anyone's.
    """
    if config.by == "piece":
        return source.name
    if source.labels is None:
        return None
    composer, title = source.labels.get("composer", ""), source.labels.get("set")
    if config.by == "composer":
        return composer or None
    # Sets of two composers may have one title.
    return f"{composer}\0{title}" if title else source.name


def held_out(groups: Sequence[str], config: SplitConfig, seed: int) -> set[str]:
    """The groups for validation: the configured share of them, at least one.

    Raises DataError if there are not two groups, so that one of the splits would be empty.
    """
    distinct = sorted(set(groups))
    if len(distinct) < 2:
        what = {"piece": "piece", "set": "set", "composer": "composer"}[config.by]
        raise DataError(
            f"nothing is left to {'train on' if distinct else 'split'}: there is {len(distinct)} {what}, and "
            f"data.split.by: {config.by} holds out at least one of two"
        )
    count = min(len(distinct) - 1, max(1, round(config.validation * len(distinct))))
    return set(drawn(distinct, seed, "split")[:count])
