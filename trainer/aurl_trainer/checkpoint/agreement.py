"""What ranks do together: each acts, and all learn how it went before any goes on.

A failure on one rank is raised on all of them, as the same kind of error, so no rank is left waiting in a
collective. A rank that dies inside one is the heartbeat's matter, not ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch.distributed as dist

from aurl_trainer.errors import (
    AurlTrainerError,
    CheckpointError,
    DamagedError,
    FencedError,
    GoneError,
    RefusedError,
    UnavailableError,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

# From the least to the gravest: with several failures the gravest is raised. Damage can be fallen back from.
_KINDS: tuple[type[AurlTrainerError], ...] = (
    DamagedError,
    UnavailableError,
    CheckpointError,
    RefusedError,
    FencedError,
    GoneError,
)


def gravest(failures: Sequence[tuple[str, str]]) -> AurlTrainerError:
    """One error for several, each the name of its kind and its message: the gravest, of equals the first."""
    names = [k.__name__ for k in _KINDS]
    ranked = [
        (names.index(kind if kind in names else CheckpointError.__name__), message)
        for kind, message in failures
    ]
    grade, message = max(ranked, key=lambda r: r[0])
    return _KINDS[grade](message)


def caught(act: Callable[[], T]) -> Callable[[], T]:
    """`act`, whose unforeseen errors are CheckpointErrors: no memory, say, or a defect of ours.

    A failed save costs that save, never the run. The traceback of a defect is logged.
    """

    def guarded() -> T:
        try:
            return act()
        except AurlTrainerError:
            raise
        except Exception as error:
            log.exception("a save has failed unforeseen")
            raise CheckpointError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error

    return guarded


@dataclass(frozen=True)
class _Outcome:
    """How one rank's part went; only this travels, never an exception, which may not survive pickling."""

    rank: int
    value: Any = None
    kind: str | None = None
    message: str = ""

    def error(self) -> AurlTrainerError:
        return gravest([(self.kind or "", self.message)])


class Ranks:
    """The ranks that save and load together. `group` None: the default group, or none at all at size 1."""

    def __init__(self, rank: int, size: int, group: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self._group = group

    def together(self, act: Callable[[], T]) -> list[T]:
        """Every rank acts; returns all results in the order of ranks. Raises if any rank failed."""
        mine, own_error = self._try(act)
        outcomes = [mine]
        if self.size > 1:
            outcomes = cast(list[_Outcome], [None] * self.size)
            dist.all_gather_object(outcomes, mine, group=self._group)
        self._raise([o for o in outcomes if o.kind is not None], own_error)
        return [o.value for o in outcomes]

    def first(self, act: Callable[[], T]) -> T:
        """Rank 0 acts; all get its result, or its failure."""
        mine, own_error = self._try(act) if self.rank == 0 else (None, None)
        shared = [mine]
        if self.size > 1:
            dist.broadcast_object_list(shared, src=self._source(), group=self._group)
        outcome = cast(_Outcome, shared[0])
        self._raise([outcome] if outcome.kind is not None else [], own_error)
        return cast(T, outcome.value)

    def _source(self) -> int:
        return 0 if self._group is None else dist.get_global_rank(self._group, 0)

    def _try(self, act: Callable[[], T]) -> tuple[_Outcome, Exception | None]:
        try:
            return _Outcome(self.rank, act()), None
        except AurlTrainerError as error:
            return _Outcome(self.rank, None, type(error).__name__, str(error)), error
        except Exception as error:  # a defect: its rank shows the traceback, the others must not hang
            return _Outcome(self.rank, None, "defect", f"{type(error).__name__}: {error}"), error

    def _raise(self, failures: list[_Outcome], own_error: Exception | None) -> None:
        if not failures:
            return
        if own_error is not None and not isinstance(own_error, AurlTrainerError):
            raise own_error
        worst = gravest([(o.kind or "", o.message) for o in failures])
        if own_error is not None and type(own_error) is type(worst):
            raise own_error
        raise worst from own_error
