"""Our errors on TorchX's command line, which would show each as a traceback: said in a line, as `aurl` does.

Not here: the errors (errors.py), and `aurl`'s own way of saying them (cli.py).
"""

from __future__ import annotations

import sys
from types import TracebackType

from aurl_operator.errors import AurlError
from aurl_trainer.errors import AurlTrainerError


def say_plainly() -> None:
    """From now on, errors of ours that nobody catches are a line; all others stay as they were."""
    before = sys.excepthook
    if getattr(before, "of_aurl", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, (AurlError, AurlTrainerError)):
            before(kind, error, trace)
            return
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)

    hook.of_aurl = True  # type: ignore[attr-defined]
    sys.excepthook = hook
