"""How a rank ends: every exception becomes an exit code and a record that its agent understands.

Not here: what the agent makes of it (agent/blame.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch

from aurl_trainer.agent.blame import peers_fault
from aurl_trainer.contract import Cause, Env, ExitCode, RankFailure, RankSaved
from aurl_trainer.engine.survival.earlier import trained_before
from aurl_trainer.engine.survival.heartbeat import Heartbeat
from aurl_trainer.errors import (
    AurlTrainerError,
    CheckpointError,
    FencedError,
    GoneError,
    LeaveError,
    UnavailableError,
    UnreadError,
    UnsavedError,
)

PEER_EVIDENCE_SECONDS = 15.0
"""How long after a failed collective to look for a peer that is missing or has failed."""

OTHER_EVIDENCE_SECONDS = 1.0
"""The same after an error that does not look like a peer's fault: the others wait for this rank meanwhile."""

_DEVICE_MEMORY = re.compile(r"CUDA error: out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED")
"""What torch says, in errors of no kind of their own, when CUDA, and not its allocator, had no memory."""


def run_rank(work: Callable[[], None], beats: Heartbeat) -> NoReturn:
    """Do `work` and end the process with the code that says how it went.

    Ends by os._exit: after an error, threads of the process group may never return.
    """
    try:
        work()
        code = ExitCode.OK
    except LeaveError as error:
        leave_saved(*error.durable)
        code = error.exit_code
    except GoneError as error:
        code = _failed(error, beats)
    except FencedError as error:
        _say(f"leaving: {error}")
        code = ExitCode.REJOIN
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BaseException as error:
        code = _failed(error, beats)
    with contextlib.suppress(Exception):
        beats.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _failed(error: BaseException, beats: Heartbeat) -> ExitCode:
    cause, code = classify(error, first_start=_first_start())
    expected = isinstance(error, AurlTrainerError)
    if not expected and cause is Cause.CRASH and _multi():
        suspected = peers_fault(f"{type(error).__name__}: {error}")
        peer = beats.peer_failed(PEER_EVIDENCE_SECONDS if suspected else OTHER_EVIDENCE_SECONDS)
        if peer is not None:
            _say(f"leaving: {peer} ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
            return ExitCode.REJOIN
    text = "" if expected else "".join(traceback.format_exception(error))
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    beats.failed(cause, message)
    _say(f"error: {message}" if expected else text)
    _leave_record(cause, message, text, error.exit_code if isinstance(error, AurlTrainerError) else None)
    return code


def classify(error: BaseException, *, first_start: bool) -> tuple[Cause, ExitCode]:
    """What kind of end `error` is.

    An error that names its own exit code is final: the same input fails again. But a store that does not
    answer, of checkpoints or of music, and a checkpoint location that worked before, may come back: that is a
    crash, with the crash's budget and back-off; unless the location was deleted, when a restart would begin
    anew in silence.
    """
    device = isinstance(error, RuntimeError) and _DEVICE_MEMORY.search(str(error)) is not None
    if device or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Cause.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY
    if isinstance(error, UnreadError):
        return Cause.CRASH, ExitCode.CRASH
    passes = isinstance(error, UnavailableError | UnsavedError) or not first_start
    if isinstance(error, CheckpointError) and not isinstance(error, GoneError) and passes:
        return Cause.CRASH, ExitCode.CRASH
    if isinstance(error, AurlTrainerError) and error.exit_code is not ExitCode.CRASH:
        return Cause.FINAL_ERROR, ExitCode.FINAL
    return Cause.CRASH, ExitCode.CRASH


def _leave_record(cause: Cause, message: str, text: str, asked: ExitCode | None) -> None:
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not error_file:
        return
    rank = int(os.environ.get("RANK", "0"))
    record = RankFailure(
        cause=cause, message=message, traceback=text, at=time.time(), rank=rank, exit_code=asked
    )
    with contextlib.suppress(OSError):
        Path(error_file + ".aurl").write_text(record.to_json())


def leave_saved(durable_step: int | None, durable_name: str | None) -> None:
    """Before a good end: what the run has made durable, for the agent to tell."""
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if error_file:
        with contextlib.suppress(OSError):
            Path(error_file + ".saved").write_text(RankSaved(durable_step, durable_name).to_json())


def _first_start() -> bool:
    counts = (os.environ.get(name, "0") for name in (Env.ATTEMPT, "TORCHELASTIC_RESTART_COUNT"))
    return all(count == "0" for count in counts) and not trained_before()


def _multi() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
