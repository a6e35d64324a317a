"""How long and how often to try: exponential backoff with full jitter, bounded by attempts and by a deadline.

Not here: which errors pass (faults.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from aurl_trainer.store.location.faults import understand

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """At most `attempts` tries and `seconds` from the first to the last answer.

    Before try n+1 it waits a random time up to `first * 2**(n-1)` seconds, `longest` at most: many ranks that
    failed at the same instant do not come back at the same instant.
    """

    attempts: int = 6
    seconds: float = 120.0
    first: float = 0.5
    longest: float = 20.0

    def within(self, deadline: float | None) -> Patience:
        """The same, but done at `deadline` (by time.monotonic) at the latest."""
        if deadline is None:
            return self
        left = max(deadline - time.monotonic(), 0.0)
        return replace(self, seconds=min(self.seconds, left))

    def persist(self, act: Callable[[float], T]) -> T:
        """The result of `act`, which is given the seconds left for it; tried again while its errors pass.

        Raises what it raised last, with a note `gave up after ...` if that was a passing error; TimeoutError
        where there is no time left to begin.
        """
        if self.seconds <= 0:
            raise TimeoutError("its deadline has passed")
        began = time.monotonic()
        try:
            return act(self.seconds)
        except Exception as error:
            if not _passing(error):
                raise
            failed = [error]

        # Only now: what counts tries costs more than most of what is tried, and to load it more again.
        from tenacity import (
            Retrying,
            retry_if_exception,
            stop_after_attempt,
            stop_any,
            stop_before_delay,
            wait_random_exponential,
        )

        def try_again() -> T:
            if failed:
                raise failed.pop()
            return act(max(began + self.seconds - time.monotonic(), 0.001))

        left = self.seconds - (time.monotonic() - began)
        retrying = Retrying(
            stop=stop_any(stop_after_attempt(self.attempts), stop_before_delay(left)),
            wait=wait_random_exponential(multiplier=self.first, max=self.longest),
            retry=retry_if_exception(_passing),
            retry_error_callback=lambda state: _give_up(state, began),
        )
        return retrying(try_again)


def _passing(error: BaseException) -> bool:
    return isinstance(error, Exception) and understand(error).passing


def _give_up(state: RetryCallState, began: float) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    tries = "1 try" if state.attempt_number == 1 else f"{state.attempt_number} tries"
    error.add_note(f"gave up after {tries} in {time.monotonic() - began:.0f} s")
    raise error
