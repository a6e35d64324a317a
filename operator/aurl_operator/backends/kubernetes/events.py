"""Ledger entries as Kubernetes Events: what `kubectl describe` tells about a job, each exactly once.

An Event's name follows from the entry, so writing it twice is one Event. Not here: the ledger (core).
"""

from __future__ import annotations

import hashlib
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.cache import Entry
from aurl_operator.core.names import rfc3339
from aurl_trainer.contract import Cause, LedgerEntry

MESSAGE_BYTES = 1024
"""What the API server takes as an Event's message."""

_PHASES = ("Recovering", "Suspended", "Succeeded", "Failed")


def told(entry: LedgerEntry) -> bool:
    """Whether people want to read it among a job's events."""
    wanted = entry.kind in ("incident", "recovered", "cleanup")
    return wanted or (entry.kind == "phase" and entry.phase in _PHASES)


def event(job: Entry, entry: LedgerEntry) -> dict[str, Any]:
    """The Event of a ledger entry."""
    metadata = job.job["metadata"]
    text = f"{job.uid}/{entry.kind}/{entry.id}"
    name = f"{metadata['name'][:200]}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    at = rfc3339(entry.at)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {names.MANAGED_BY: names.MANAGER, names.JOB: metadata["name"]},
        },
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": job.uid,
        },
        "type": "Warning" if _bad(entry) else "Normal",
        "reason": _reason(entry),
        "message": _message(entry),
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def _bad(entry: LedgerEntry) -> bool:
    return entry.kind in ("incident", "cleanup") or entry.phase == "Failed"


def _reason(entry: LedgerEntry) -> str:
    if entry.kind == "phase":
        return entry.phase or "Phase"
    if entry.kind == "cleanup":
        return "CheckpointsStay"
    if entry.kind == "recovered":
        return "Recovered"
    return "".join(part.capitalize() for part in Cause(entry.cause or "crash").value.split("-"))


def _message(entry: LedgerEntry) -> str:
    parts = [f"{', '.join(entry.nodes)}: {entry.message}" if entry.nodes else entry.message]
    if entry.kind == "recovered" and entry.recovery_seconds is not None:
        parts = [f"{parts[0]} recovered in {entry.recovery_seconds:.1f} s".strip()]
        if entry.steps_redone:
            parts.append(f"{entry.steps_redone} steps done again")
    if entry.step is not None and entry.kind == "incident":
        parts.append(f"at step {entry.step}")
    text = "; ".join(part for part in parts if part)
    if entry.traceback:
        room = MESSAGE_BYTES - len(text.encode()) - 2
        text = f"{text}\n{entry.traceback.encode()[-max(room, 0) :].decode(errors='ignore')}"
    return text.encode()[:MESSAGE_BYTES].decode(errors="ignore")
