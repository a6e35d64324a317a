"""The operator's and the command line's one exception tree. Each error knows its exit code.

    AurlError
    ├── UsageError        the command line was wrong
    ├── RefusedError      would harm something that exists
    ├── MissingError      a program, package or file is not there
    ├── RunFailedError    the run ended Failed, with the exit code of what failed it
    ├── NotFinishedError  the run was interrupted and can be continued
    └── StoppedError      stopped at once by a second Ctrl-C

A job that is not valid is a ConfigError of `aurl_trainer.errors`, which knows file, line and field.
Messages are for people: what was wrong, where, what to do, in one or two lines.
"""

from __future__ import annotations

from aurl_trainer.contract import ExitCode


class AurlError(Exception):
    """Root of all errors that operator and command line raise on purpose."""

    exit_code: ExitCode = ExitCode.CRASH


class UsageError(AurlError):
    """The command line was wrong."""

    exit_code = ExitCode.USAGE


class RefusedError(AurlError):
    """Would harm something that exists. The message names it and says what can be done instead."""

    exit_code = ExitCode.REFUSED


class MissingError(AurlError):
    """A program, package or file is not there. The message says how to get it."""

    exit_code = ExitCode.MISSING


class RunFailedError(AurlError):
    """The run ended Failed. The message says why; `exit_code` what kind of failure it was, where known."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.RUN_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NotFinishedError(AurlError):
    """The run was interrupted, saved, and can be continued. The message names the command."""

    exit_code = ExitCode.NOT_FINISHED


class StoppedError(AurlError):
    """The run was stopped at once by a second Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED
