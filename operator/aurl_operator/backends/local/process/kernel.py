"""What Linux offers so that no process outlives a run; on other systems these do nothing.

Here: the parent-death signal and the adoption of orphans (prctl). Not here: who is killed when; where the
kernel does not help, `guard.py` and `processes.py` find processes by a mark in their environment.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def die_with_parent() -> None:
    """The calling process gets SIGKILL when the thread that forked it ends. For Popen's `preexec_fn`.

    Safe between fork and exec because the symbol is resolved at import and the supervisor has one thread.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Descendants whose parent dies become children of the calling process instead of init's."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
