"""What an error of a store means: whether trying again may help, and what a person can do. Pure.

Each client library raises errors of its own and wraps others, so the whole chain of causes is looked at, for
a status of HTTP, a code of the service, or a kind of exception by its name: no client library is imported.
Not here: trying again (patience.py).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What is wrong; the value is what to do about it."""

    PASSING = "the store is busy or cannot be reached"
    EXPIRED = "renew the credentials: they have expired or are not valid"
    NO_CREDENTIALS = (
        "no credentials were found: give the job's checkpoint.secret, or set the store's variables"
    )
    DENIED = "the run must be allowed to list, read, write and delete there"
    NO_BUCKET = "create the bucket or container, or correct checkpoint.uri"
    BROKEN = "the disk or file system there fails; its system's log says more"
    FULL = "make room there, or give the run another place"
    OTHER = ""


@dataclass(frozen=True)
class Fault:
    """One error, understood. `text` is what the store said, one line, without what may be a secret."""

    kind: Kind
    text: str

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.kind in (Kind.PASSING, Kind.BROKEN)

    def __str__(self) -> str:
        advice = "" if self.kind in (Kind.PASSING, Kind.OTHER) else f"; {self.kind}"
        return f"{self.text}{advice}"


_STATUS = {401: Kind.EXPIRED, 403: Kind.DENIED, 507: Kind.FULL}
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

# Codes of S3, GCS and Azure, lower case. They say more than the status: an expired token is a 400 of S3.
_CODES = {
    Kind.PASSING: """
        internalerror slowdown serviceunavailable requesttimeout throttling throttlingexception serverbusy
        toomanyrequests requestlimitexceeded operationaborted xamzcontentsha256mismatch baddigest
        incompletebody operationtimedout
    """,
    Kind.EXPIRED: """
        expiredtoken expiredtokenexception invalidtoken tokenrefreshrequired invalidaccesskeyid
        signaturedoesnotmatch requesttimetooskewed authenticationfailed invalidauthenticationinfo
        noauthenticationinformation
    """,
    Kind.DENIED: """
        accessdenied allaccessdisabled accountproblem authorizationfailure insufficientaccountpermissions
        authorizationpermissionmismatch invalidobjectstate
    """,
    Kind.NO_BUCKET: "nosuchbucket containernotfound invalidbucketname accountnotfound",
    Kind.FULL: "quotaexceeded entitytoolarge insufficientstorage",
}
_KIND_OF_CODE = {code: kind for kind, codes in _CODES.items() for code in codes.split()}

# Kinds of exceptions, by name: of botocore, aiohttp, requests, azure, google.auth and fsspec.
_NAMES = {
    "NoCredentialsError": Kind.NO_CREDENTIALS,
    "PartialCredentialsError": Kind.NO_CREDENTIALS,
    "ProfileNotFound": Kind.NO_CREDENTIALS,
    "DefaultCredentialsError": Kind.NO_CREDENTIALS,
    "CredentialUnavailableError": Kind.NO_CREDENTIALS,
    "CredentialRetrievalError": Kind.EXPIRED,
    "RefreshError": Kind.EXPIRED,
    "ClientAuthenticationError": Kind.EXPIRED,
    "TokenRetrievalError": Kind.EXPIRED,
    "FSTimeoutError": Kind.PASSING,
    "HTTPClientError": Kind.PASSING,
    "ClientConnectionError": Kind.PASSING,
    "ClientPayloadError": Kind.PASSING,
    "ConnectionClosedError": Kind.PASSING,
    "EndpointConnectionError": Kind.PASSING,
    "IncompleteReadError": Kind.PASSING,
    "IncompleteRead": Kind.PASSING,
    "ResponseParserError": Kind.PASSING,
    "ProxyError": Kind.PASSING,
    "ChunkedEncodingError": Kind.PASSING,
    "ChecksumError": Kind.PASSING,
    "ServiceRequestError": Kind.PASSING,
    "ServiceResponseError": Kind.PASSING,
    "ConnectTimeout": Kind.PASSING,
    "ReadTimeout": Kind.PASSING,
    "TransportError": Kind.PASSING,
}

_ERRNO = {
    errno.ENOSPC: Kind.FULL,
    errno.EDQUOT: Kind.FULL,
    errno.EFBIG: Kind.FULL,
    errno.EACCES: Kind.DENIED,
    errno.EPERM: Kind.DENIED,
    errno.EROFS: Kind.DENIED,
    errno.ESTALE: Kind.PASSING,
    errno.EAGAIN: Kind.PASSING,
    errno.EINTR: Kind.PASSING,
    errno.ETIMEDOUT: Kind.PASSING,
}

# Where nothing else tells: what the clients say in words.
_WORDS = {
    "anonymous caller": Kind.NO_CREDENTIALS,
    "must provide either a connection_string or account_name": Kind.NO_CREDENTIALS,
    "unable to locate credentials": Kind.NO_CREDENTIALS,
    "invalid credentials": Kind.EXPIRED,
    "bucket does not exist": Kind.NO_BUCKET,
    "invalid bucket name": Kind.NO_BUCKET,
    "forbidden": Kind.DENIED,
}


_QUERY = re.compile(r"\?[^\s?]*=\S*")
"""Of a URL: there are the signature of an Azure SAS, and the id with which anybody may end a GCS upload."""


def understand(error: BaseException) -> Fault:
    """What `error` means."""
    chain = list(_chain(error))
    text = _text(chain)
    return Fault(_kind(chain, text), text)


def is_no_bucket(error: BaseException) -> bool:
    """Whether an error that says that something is not there means the whole bucket or container."""
    return understand(error).kind is Kind.NO_BUCKET


def _kind(chain: list[BaseException], text: str) -> Kind:
    for error in chain:
        kind = _KIND_OF_CODE.get(_code(error).lower())
        if kind is not None:
            return kind
    words = " ".join(str(error) for error in chain).lower()
    for said, kind in _WORDS.items():
        if said in words:
            return kind
    for error in chain:
        status = _status(error)
        if status in _PASSING_STATUS:
            return Kind.PASSING
        if status in _STATUS:
            return _STATUS[status]
    for error in chain:
        for base in type(error).__mro__:
            if base.__name__ in _NAMES:
                return _NAMES[base.__name__]
        if isinstance(error, TimeoutError | ConnectionError):
            return Kind.PASSING
        if isinstance(error, OSError) and error.errno in _ERRNO:
            return _ERRNO[error.errno]
    # A bad sector, or bits that the file system found flipped. s3fs raises it for answers it does not know.
    if any(isinstance(error, OSError) and error.errno == errno.EIO for error in chain) and not any(
        _code(error) or _status(error) for error in chain
    ):
        return Kind.BROKEN
    return Kind.DENIED if any(isinstance(error, PermissionError) for error in chain) else Kind.OTHER


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the error itself first."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)


def _code(error: BaseException) -> str:
    """The service's own word for it: `NoSuchBucket` of botocore, `ContainerNotFound` of azure."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    code: Any = getattr(error, "error_code", "")
    return str(getattr(code, "value", code) or "")


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = (
            getattr(error, "status_code", None)
            or getattr(error, "status", None)
            or getattr(error, "code", None)
        )
    try:
        return int(found)
    except (TypeError, ValueError):
        return None


def _text(chain: list[BaseException]) -> str:
    """The first line that says something."""
    for error in chain:
        if isinstance(error, OSError) and error.errno is not None and error.strerror:
            code = errno.errorcode.get(error.errno, "")
            return "no space is left there" if code in ("ENOSPC", "EDQUOT") else _line(str(error.strerror))
        line = _line(str(error))
        if line:
            return f"{type(error).__name__}: {line}"
    return type(chain[0]).__name__


def _line(text: str) -> str:
    lines = [part.strip() for part in text.strip().splitlines() if part.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # as botocore's: what is wrong comes after it
        lines[0] = f"{lines[0]} {lines[1]}"
    return _QUERY.sub("?***", lines[0])[:300] if lines else ""
