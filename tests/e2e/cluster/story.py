"""What every disturbed job must come to: the same training, its losses told once, nothing left behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from aurl_trainer.monitor.records import read_records
from tests.e2e.cluster.job import STEPS, Job, nothing_left
from tests.e2e.cluster.kube import get, wait_for

Steps = dict[int, tuple[float, frozenset[int]]]

UNSENT = 20
"""Steps whose records go with a node that ends without notice, at most: it sends what is new every 2 s
(monitor/uploads.py), and makes some four steps a second, ten on a quick machine."""


def the_same_training(job: Job, undisturbed: Steps, folder: Path, silent: int = 0) -> None:
    """For every step, the sample ids of the undisturbed run, and its loss within 1e-3.

    `silent`: in how many losses nodes ended without notice. Their last records may be gone, of steps that are
    not done again since a checkpoint holds them.
    """
    steps = job.steps(folder)
    missing = sorted(set(undisturbed) - set(steps))
    assert max(steps) == STEPS, f"expected step {STEPS} at the end, found {max(steps)}"
    starts = list(read_records(folder / "records", ("start",)))
    resumed = {start["resumed_from"] for start in starts if start.get("resumed_from")} if silent else set()
    unsent = {step for at in resumed for step in range(at - UNSENT + 1, at + 1)}
    assert len(missing) <= silent * UNSENT, f"records of too many steps are missing: {missing}"
    assert set(missing) <= unsent, f"expected all but the last before {sorted(resumed)}, missing: {missing}"
    for step in sorted(steps):
        loss, ids = steps[step]
        expected_loss, expected_ids = undisturbed[step]
        assert ids == expected_ids, (
            f"step {step}: expected samples {sorted(expected_ids)}, found {sorted(ids)}"
        )
        assert abs(loss - expected_loss) < 1e-3, f"step {step}: expected loss {expected_loss}, found {loss}"


def told_once(job: Job, status: dict[str, Any], *causes: str) -> dict[str, Any]:
    """Exactly these incidents, in the status and as Events. Returns the first."""
    expected = Counter(causes)
    assert Counter(i["cause"] for i in status["incidents"]) == expected, f"found {status['incidents']}"
    assert Counter(status["restarts"]) == expected, f"expected {expected}, found {status['restarts']}"
    selector = f"involvedObject.name={job.name},type=Warning"
    events = get("-n", job.namespace, "events", "--field-selector", selector)["items"]
    assert len(events) == len(causes), f"expected {causes} as events, found {[e['message'] for e in events]}"
    first: dict[str, Any] = status["incidents"][0]
    return first


def told_among(job: Job, status: dict[str, Any], *possible: str, most: int = 1) -> None:
    """One incident or up to `most`, of these causes, each told once, in the status and as an Event."""
    causes = [incident["cause"] for incident in status.get("incidents", [])]
    assert 1 <= len(causes) <= most, f"expected up to {most} incidents, found {status.get('incidents')}"
    assert set(causes) <= set(possible), f"expected {possible}, found {status['incidents']}"
    told_once(job, status, *causes)


def nothing_remains(job: Job) -> None:
    """With cleanup.pods=All: nothing but the job object."""
    wait_for(f"nothing left of {job.name}", lambda: not nothing_left(job), 60)
