"""What the API server answered when it did not do what was asked.

AurlError
└── ApiError             any refusal; `status` is the HTTP code, `reason` the server's one word
    ├── NotFoundError    404
    ├── ConflictError    409: exists already, or is not what it was when it was read
    ├── ForbiddenError   401, 403: not allowed, or a quota is used up
    ├── InvalidError     400, 422: the object itself is wrong
    └── UnavailableError the server cannot be reached or has no time, after all tries
"""

from __future__ import annotations

import json
from typing import Any

from aurl_operator.errors import AurlError
from aurl_trainer.contract import ExitCode


class ApiError(AurlError):
    """The API server refused. `body` is its Status object, as far as it sent one."""

    exit_code = ExitCode.REFUSED

    def __init__(self, status: int, reason: str, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message or reason or f"HTTP {status}")
        self.status = status
        self.reason = reason
        self.message = message or reason
        self.body = body or {}


class NotFoundError(ApiError):
    """There is no such object."""

    exit_code = ExitCode.MISSING


class ConflictError(ApiError):
    """It exists already, or it has changed since it was read."""


class ForbiddenError(ApiError):
    """Not allowed, or a quota is used up: the message has the server's words."""

    @property
    def right(self) -> str:
        """Who may not do what where, without the object's name: the same for every object of a kind."""
        return self.message.partition(" is forbidden: ")[2] or self.message


class InvalidError(ApiError):
    """The object is not valid."""

    exit_code = ExitCode.INVALID_JOB


class UnavailableError(ApiError):
    """The server cannot be reached, or has no time for us."""

    exit_code = ExitCode.MISSING


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    422: InvalidError,
    429: UnavailableError,
}


def error_of(status: int, text: str) -> ApiError:
    """The error for an answer of this status with this body."""
    try:
        body = json.loads(text)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    kind = _BY_STATUS.get(status, UnavailableError if status >= 500 else ApiError)
    return kind(status, str(body.get("reason", "")), str(body.get("message", text[:500])), body)
