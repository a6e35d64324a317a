"""What Prometheus is told about the operator. Not here: training's own metrics (the trainer's monitor)."""

from __future__ import annotations

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aurl_trainer.contract import Cause

REGISTRY = CollectorRegistry()

JOBS = Gauge("aurl_jobs", "Jobs by phase.", ["phase"], registry=REGISTRY)
INCIDENTS = Counter("aurl_incidents", "Incidents by cause.", ["cause"], registry=REGISTRY)
for _cause in Cause:
    # A series that is born with its first incident has no increase that an alert could see.
    INCIDENTS.labels(_cause)
RECOVERY = Histogram(
    "aurl_recovery_seconds",
    "From a loss to the next finished step.",
    ["cause"],
    buckets=(2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
    registry=REGISTRY,
)
GOODPUT = Gauge(
    "aurl_job_goodput_ratio",
    "Seconds of steps in the result, over seconds since the first node was ready.",
    ["namespace", "job"],
    registry=REGISTRY,
)
QUEUE_AGE = Gauge("aurl_queue_age_seconds", "How long the oldest key has waited.", registry=REGISTRY)
QUEUE_DEPTH = Gauge("aurl_queue_depth", "Keys that wait.", registry=REGISTRY)
RECONCILE = Histogram(
    "aurl_reconcile_seconds",
    "One look at one job, its calls included.",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
    registry=REGISTRY,
)
CALLS = Counter("aurl_api_calls", "Calls to the API server.", ["verb", "code", "resource"], registry=REGISTRY)
NOT_SERVED = Gauge(
    "aurl_namespaces_not_served",
    "Namespaces of the list without the rights to serve them.",
    registry=REGISTRY,
)
LEADER = Gauge("aurl_leader", "1 while this replica works.", registry=REGISTRY)


def counted(verb: str, status: int, resource: str) -> None:
    """Counts one call."""
    CALLS.labels(verb, str(status), resource).inc()


def forget(namespace: str, job: str) -> None:
    """A job is gone, and so are the series of its own."""
    with contextlib.suppress(KeyError):
        GOODPUT.remove(namespace, job)
