"""What a status keeps of a predecessor's words, as long as no node has answered this operator."""

from __future__ import annotations

from typing import Any

from aurl_operator.api.status import JobPhase

_SAVED = ("lastDurableStep", "lastDurableName")


def keeping(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The status `after`, with the progress that `before` tells of: nobody was asked yet.

    Nodes that have finished are never asked again; ending well means that the last step was made. What is
    saved, and from what the job went on, the memory knows, and their ends tell: only a memory that knows
    nothing of it, being built anew, leaves the old words.
    """
    progress = dict(before["progress"])
    if after.get("phase") == JobPhase.SUCCEEDED.value:
        progress["step"] = progress.get("total")
        progress.pop("etaSeconds", None)
    told = dict(before.get("checkpoint") or {})
    known = {key: value for key, value in (after.get("checkpoint") or {}).items() if value != []}
    if "lastDurableStep" in known:
        told = {key: value for key, value in told.items() if key not in _SAVED}
    return {**after, "progress": progress, "checkpoint": {**told, **known}}
