"""Ledger entries as Kubernetes Events: what `kubectl describe` tells about a job, each exactly once.

An Event's name follows from the entry, so writing it twice is one Event. Not here: the ledger (core).
"""

from __future__ import annotations

import hashlib
import time
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
    kind = "Warning" if _bad(entry) else "Normal"
    return _event(job, f"{entry.kind}/{entry.id}", kind, _reason(entry), _message(entry), entry.at)


def denial(job: Entry, right: str) -> dict[str, Any]:
    """The Event of a right that the operator lacks for this job, in the API server's words."""
    text = f"the operator waits for a right that it needs (docs/security.md): {right}"
    return _event(job, f"forbidden/{right}", "Warning", "Forbidden", text[:MESSAGE_BYTES], time.time())


def _event(job: Entry, key: str, kind: str, reason: str, message: str, at: float) -> dict[str, Any]:
    """`key`: what the Event's name follows from, within its job."""
    metadata = job.job["metadata"]
    name = f"{metadata['name'][:200]}.{hashlib.sha256(f'{job.uid}/{key}'.encode()).hexdigest()[:16]}"
    told_at = rfc3339(at)
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
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": told_at,
        "lastTimestamp": told_at,
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
