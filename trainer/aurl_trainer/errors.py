"""The trainer's one exception tree. Each error knows its exit code; its text is for people.

    AurlTrainerError
    ├── ConfigError         the experiment is not valid (file, line, field)
    ├── DataError           the music cannot be used
    │   └── UnreadError     its storage does not give it now; later it may
    ├── CheckpointError     a checkpoint or its location cannot be used
    │   ├── DamagedError    an object is not what its manifest says
    │   ├── UnavailableError the store does not answer; later it may
    │   ├── UnsavedError    the last step could not be saved: the run is not over
    │   └── FencedError     a later generation has taken over: this one may not write
    │       └── GoneError   the place was deleted under this run
    ├── QueryError          a condition or an order on the command line is not understood
    ├── RefusedError        would harm something that exists
    ├── MissingError        a program, package or file is not there
    ├── DivergedError       training left the range of numbers
    └── LeaveError          a rank ends on purpose (preempted, rejoin, hang)

Not here: torch's and fsspec's own errors; rooms turn those into one of these where the cause is known.
"""

from __future__ import annotations

from aurl_trainer.contract import ExitCode


class AurlTrainerError(Exception):
    """Root of all errors that the trainer raises on purpose."""

    exit_code: ExitCode = ExitCode.CRASH


class ConfigError(AurlTrainerError):
    """The experiment is not valid. `problems` holds one line each: file, line, field, what to do."""

    exit_code = ExitCode.INVALID_JOB

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(AurlTrainerError):
    """The music cannot be used."""

    exit_code = ExitCode.DATA


class UnreadError(DataError):
    """The storage of the music failed for as long as was allowed. The same may succeed later."""


class CheckpointError(AurlTrainerError):
    """A checkpoint or its location cannot be used."""

    exit_code = ExitCode.CHECKPOINT


class DamagedError(CheckpointError):
    """An object is not what its manifest says. The message names the item."""


class UnavailableError(CheckpointError):
    """The store failed or did not answer for as long as was allowed. The same may succeed later."""


class UnsavedError(CheckpointError):
    """The last step could not be saved: the run is not over, a restart makes it again from the newest."""


class FencedError(CheckpointError):
    """A later generation has taken over this run: this one may not write any more."""

    exit_code = ExitCode.REJOIN


class GoneError(FencedError):
    """The place was deleted under this run. A restart would find nothing, and begin anew in silence."""

    exit_code = ExitCode.CHECKPOINT


class QueryError(AurlTrainerError):
    """A condition or an order on the command line is not understood. The message points at the place."""

    exit_code = ExitCode.USAGE


class RefusedError(AurlTrainerError):
    """Would harm something that exists."""

    exit_code = ExitCode.REFUSED


class MissingError(AurlTrainerError):
    """A program, package or file is not there. The message says how to get it."""

    exit_code = ExitCode.MISSING


class DivergedError(AurlTrainerError):
    """Training left the range of numbers; the same seed would do so again."""

    exit_code = ExitCode.FINAL


class BrokenOffError(AurlTrainerError):
    """An evaluation has ended early on all ranks, since one of them has to leave."""


class LeaveError(AurlTrainerError):
    """A rank ends on purpose with `exit_code`, which its agent understands.

    `durable`: step and name of its run's newest checkpoint.
    """

    def __init__(
        self, exit_code: ExitCode, message: str, durable: tuple[int | None, str | None] = (None, None)
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.durable = durable
