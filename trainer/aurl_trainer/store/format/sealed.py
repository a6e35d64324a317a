"""Small JSON objects that notice any change: their last bytes are a digest of all bytes before.

A sealed object is one line of JSON, `{..., "digest": "sha256:<hex>"}`. The digest is taken over the exact
bytes before it, so a flipped bit is found even where the JSON would mean the same. This form never changes:
readers of any version check it before they look at anything else.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from aurl_trainer.errors import DamagedError

_TAIL = re.compile(rb',"digest":"sha256:([0-9a-f]{64})"\}\n')
_TAIL_BYTES = len(b',"digest":"sha256:"}\n') + 64


def seal(value: dict[str, Any]) -> bytes:
    """`value` with its digest. Raises ValueError or TypeError for what JSON cannot hold."""
    if not value or "digest" in value:
        raise ValueError("a sealed object has at least one field, and none named digest")
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return body + b',"digest":"sha256:' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The object in `data`. Raises DamagedError if a byte of it is not what was written."""
    body, tail = data[:-_TAIL_BYTES], _TAIL.fullmatch(data[-_TAIL_BYTES:])
    if tail is None or hashlib.sha256(body).hexdigest().encode() != tail[1]:
        raise DamagedError(f"{name}: its digest does not match: damaged, cut short, or edited by hand")
    try:
        value = json.loads(body + b"}")
    except (ValueError, RecursionError):
        raise DamagedError(f"{name}: not JSON") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{name}: not a JSON object")
    return value
