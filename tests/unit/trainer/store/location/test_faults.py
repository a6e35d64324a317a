"""What each client library's own errors mean."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

import pytest
from aiohttp import (
    ClientPayloadError,
    ClientSession,
    ClientTimeout,
    InvalidURL,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from fsspec import FSTimeoutError
from gcsfs.retry import HttpError, validate_response
from s3fs.errors import translate_boto_error

from aurl_trainer.store.location.faults import Kind, understand


def s3(code: str, status: int, message: str = "said the store") -> Exception:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(response, "PutObject"))  # type: ignore[arg-type]


def gcs(status: int, message: str = "said the store") -> Exception:
    try:
        validate_response(status, json.dumps({"error": {"code": status, "message": message}}), "b/bucket/o")
    except Exception as error:
        return error
    raise AssertionError("no error")


def azure(status: int, code: str, kind: type[HttpResponseError] = HttpResponseError) -> Exception:
    error = kind(message="said the store")
    error.status_code, error.error_code = status, code  # type: ignore[attr-defined]
    return error


CASES = [
    (s3("InternalError", 500), Kind.PASSING),
    (s3("SlowDown", 503), Kind.PASSING),
    (s3("500", 500), Kind.PASSING),
    (s3("503", 503), Kind.PASSING),
    (s3("Throttling", 400), Kind.PASSING),
    (s3("TooManyRequests", 429), Kind.PASSING),
    (s3("RequestTimeout", 400), Kind.PASSING),
    (s3("ExpiredToken", 400), Kind.EXPIRED),
    (s3("InvalidAccessKeyId", 403), Kind.EXPIRED),
    (s3("SignatureDoesNotMatch", 403), Kind.EXPIRED),
    (s3("AccessDenied", 403), Kind.DENIED),
    (s3("403", 403), Kind.DENIED),
    (s3("NoSuchBucket", 404), Kind.NO_BUCKET),
    (s3("NoSuchKey", 404), Kind.OTHER),
    (s3("InvalidRequest", 400), Kind.OTHER),
    (NoCredentialsError(), Kind.NO_CREDENTIALS),
    (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), Kind.PASSING),
    (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), Kind.PASSING),
    (gcs(500), Kind.PASSING),
    (gcs(502), Kind.PASSING),
    (gcs(503), Kind.PASSING),
    (gcs(429), Kind.PASSING),
    (gcs(403), Kind.DENIED),
    (gcs(401, "Invalid Credentials"), Kind.EXPIRED),
    (gcs(401, "Anonymous caller does not have storage.objects.list access"), Kind.NO_CREDENTIALS),
    (HttpError({"code": 400, "message": "odd"}), Kind.OTHER),
    (azure(500, "InternalError"), Kind.PASSING),
    (azure(503, "ServerBusy"), Kind.PASSING),
    (azure(403, "AuthenticationFailed", ClientAuthenticationError), Kind.EXPIRED),
    (azure(403, "AuthorizationPermissionMismatch"), Kind.DENIED),
    (azure(404, "ContainerNotFound", ResourceNotFoundError), Kind.NO_BUCKET),
    (azure(404, "BlobNotFound", ResourceNotFoundError), Kind.OTHER),
    (ServiceRequestError("Cannot connect to host"), Kind.PASSING),
    (ServerDisconnectedError(), Kind.PASSING),
    (ClientPayloadError("Response payload is not completed"), Kind.PASSING),
    (FSTimeoutError(), Kind.PASSING),
    (BrokenPipeError(32, "Broken pipe"), Kind.PASSING),
    (OSError(116, "Stale file handle"), Kind.PASSING),
    (OSError(122, "Disk quota exceeded"), Kind.FULL),
    (OSError(30, "Read-only file system"), Kind.DENIED),
    (OSError(5, "Input/output error"), Kind.BROKEN),
    (ValueError("a defect"), Kind.OTHER),
]


@pytest.mark.parametrize(
    ("error", "kind"), CASES, ids=[f"{i}-{type(e).__name__}" for i, (e, _) in enumerate(CASES)]
)
def test_every_error_has_its_kind(error: Exception, kind: Kind) -> None:
    found = understand(error)
    assert found.kind is kind, f"expected {kind.name} for {error!r}, found {found.kind.name}"
    assert "\n" not in str(found)


def test_the_cause_counts_where_the_error_itself_says_nothing() -> None:
    try:
        try:
            raise ConnectionResetError(104, "Connection reset by peer")
        except ConnectionResetError as cause:
            raise RuntimeError("upload failed") from cause
    except RuntimeError as error:
        assert understand(error).passing


def test_the_reason_is_told_that_stands_on_a_second_line() -> None:
    """As botocore says which parameter is wrong."""
    report = 'Invalid bucket name "My_Bucket!": Bucket name must match the regex "^[a-z]"'
    found = understand(ParamValidationError(report=report))
    assert found.kind is Kind.NO_BUCKET and 'Invalid bucket name "My_Bucket!"' in str(found)


class _Silent(AbstractResolver):
    """A name server that never answers."""

    async def resolve(self, *_: Any, **__: Any) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError("nothing ends the waiting")

    async def close(self) -> None:
        """Nothing to close."""


def aiohttp_timeout(url: str) -> Exception:
    """What aiohttp raises when no connection is made in time."""

    async def ask() -> None:
        async with ClientSession(connector=TCPConnector(resolver=_Silent())) as session:
            await session.get(url, timeout=ClientTimeout(connect=0.01))

    try:
        asyncio.run(ask())
    except Exception as error:
        return error
    raise AssertionError("no error")


def test_no_secret_in_a_url_is_told() -> None:
    secret = "c2VjcmV0"
    sas = f"http://store.example/c/run/it's%20one.json?sv=2024-01-01&comp=block&sig={secret}%3D"
    upload = f"http://store.example/upload/b/o?uploadType=resumable&upload_id={secret}"
    for url in (sas, upload):
        late = aiohttp_timeout(url)
        assert secret in str(late), f"expected aiohttp to tell the whole URL, it says {late}"
        wrapped = ServiceResponseError(late, error=late)  # as azure's transport does
        told = HttpResponseError(f"Operation failed: {url}, tried 3 times")
        for error in (late, wrapped, InvalidURL(url), told, OSError(110, f"timed out: {url}")):
            found = str(understand(error))
            assert secret not in found, f"{type(error).__name__} tells a secret: {found}"
            assert f"{url.partition('?')[0]}?***" in found, f"the rest of the URL is gone: {found}"


def test_a_secret_that_the_end_of_a_long_line_cuts_is_not_told() -> None:
    found = str(understand(ValueError(f"{'x' * 270} http://store.example/c?sig=c2VjcmV0")))
    assert "sig" not in found, f"half a secret is one, too: {found}"
