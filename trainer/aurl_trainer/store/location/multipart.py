"""Uploads in parts that nobody will end: what a process leaves on S3 that was killed in a large object.

S3 keeps their parts, unseen and billed, until somebody says so; the other stores drop them after a week.
Not here: uploading (stream.py), whose uploads are to be ended (retention/).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Call = Callable[..., Any]
"""One request of S3: its name in botocore and its arguments."""


@dataclass(frozen=True)
class Begun:
    """An upload that has neither ended nor been given up.

    `key` is the object's, in the bucket. `at` is when it was begun, seconds since the epoch by the store's
    clock; infinity where the store does not tell.
    """

    key: str
    id: str
    at: float


def has_parts(fs: Any) -> bool:
    """Whether `fs` is a store that keeps them for ever."""
    return hasattr(fs, "_list_multipart_uploads")


def begun(call: Call, bucket: str, prefix: str) -> Iterator[Begun]:
    """Those of keys that begin with `prefix`."""
    marks: dict[str, str] = {}
    while True:
        page = call("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **marks)
        for upload in page.get("Uploads", []):
            if upload["Key"].startswith(prefix):  # not every server looks at the prefix
                at = upload.get("Initiated")
                yield Begun(upload["Key"], upload["UploadId"], at.timestamp() if at else math.inf)
        marks = {
            "KeyMarker": page.get("NextKeyMarker", ""),
            "UploadIdMarker": page.get("NextUploadIdMarker", ""),
        }
        if not page.get("IsTruncated") or not marks["KeyMarker"]:
            return


def end(call: Call, bucket: str, upload: Begun) -> None:
    """Its parts go; one that has ended meanwhile raises FileNotFoundError."""
    call("abort_multipart_upload", Bucket=bucket, Key=upload.key, UploadId=upload.id)
