"""From pods as the API server shows them to causes and reasons for waiting."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aurl_operator.backends.kubernetes.client.errors import error_of
from aurl_operator.backends.kubernetes.observe.machine import NOTICE_TAINTS, Machine, machine
from aurl_operator.backends.kubernetes.observe.process import Sight, process
from aurl_operator.backends.kubernetes.observe.refusal import refusal
from aurl_operator.core.accounts.causes import conclude
from aurl_operator.core.observed import Role, State, WaitingReason
from aurl_operator.core.plan import Start
from aurl_trainer.contract import Cause

CREATED = "2026-01-31T12:00:00Z"
AT = 1769860800.0
ANNOUNCED = Machine("node-2", notice="machine node-2 will go: taint spot")
LOST = Machine("node-2", "machine node-2 is not ready: silent", AT)


def pod(**parts: Any) -> dict[str, Any]:
    metadata = {
        "name": "bach-worker-1-0",
        "namespace": "ns",
        "uid": "u1",
        "resourceVersion": "5",
        "creationTimestamp": CREATED,
        "annotations": {
            "aurl.dev/process": json.dumps({"role": "node", "index": 1, "attempt": 0, "round": 2})
        },
        **parts.pop("metadata", {}),
    }
    return {"metadata": metadata, "spec": {"nodeName": "node-2", **parts.pop("spec", {})}, "status": parts}


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "trainer", "state": state}]


RUNNING = {"phase": "Running", "containerStatuses": container(running={"startedAt": CREATED})}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason, "message": message, "finishedAt": CREATED}
    return {"phase": "Failed", "containerStatuses": container(terminated=state)}


def disrupted(reason: str) -> dict[str, Any]:
    return {
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": reason}]
    }


DELETED = {"deletionTimestamp": CREATED, "deletionGracePeriodSeconds": 30}
LATER = {"deletionTimestamp": "2026-01-31T12:01:30Z", "deletionGracePeriodSeconds": 30}
OWN_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
TERMINATION = json.dumps({"v": 1, "cause": "crash", "message": "boom", "exit_code": 1, "at": 1.0})


@pytest.mark.parametrize(
    ("parts", "sight", "cause"),
    [
        (ended(0, "Completed"), Sight(AT), Cause.SUCCEEDED),
        (ended(1, message=TERMINATION), Sight(AT), Cause.CRASH),
        (ended(137, "OOMKilled"), Sight(AT), Cause.OUT_OF_MEMORY),
        (ended(84), Sight(AT), Cause.OUT_OF_MEMORY),
        (ended(86), Sight(AT), Cause.FINAL_ERROR),
        (ended(128, "StartError", "no such file"), Sight(AT), Cause.FINAL_ERROR),
        (ended(128, "StartError", "no such file"), Sight(AT, ran_before=True), Cause.CRASH),
        (ended(83), Sight(AT), Cause.HANG),
        ({**ended(82), "metadata": DELETED}, Sight(AT), Cause.DELETED),
        ({**ended(82), "metadata": DELETED}, Sight(AT, ours=True), Cause.STOPPED),
        (
            {**ended(82), "metadata": DELETED, **disrupted("EvictionByEvictionAPI")},
            Sight(AT),
            Cause.PREEMPTED,
        ),
        ({**ended(143), **disrupted("PreemptionByScheduler")}, Sight(AT), Cause.PREEMPTED),
        (RUNNING, Sight(AT, vanished=AT), Cause.DELETED),
        # It had crashed a minute before somebody deleted what was left.
        ({**ended(1, message=TERMINATION), "metadata": LATER}, Sight(AT), Cause.CRASH),
        ({**RUNNING, "reason": "Evicted", "message": OWN_DISK}, Sight(AT), Cause.CRASH),
        (
            {**RUNNING, "phase": "Failed", "reason": "Evicted", "message": "low on memory"},
            Sight(AT),
            Cause.PREEMPTED,
        ),
        ({**RUNNING, "metadata": DELETED}, Sight(AT, machine_gone=True), Cause.NODE_LOST),
        ({**ended(82), "metadata": DELETED}, Sight(AT, machine=ANNOUNCED), Cause.PREEMPTED),
        ({**RUNNING, **disrupted("EvictionByEvictionAPI")}, Sight(AT, vanished=AT), Cause.PREEMPTED),
        (RUNNING, Sight(AT, machine=LOST), Cause.NODE_LOST),
        (
            {**RUNNING, "metadata": DELETED, **disrupted("DeletionByTaintManager")},
            Sight(AT, machine=LOST),
            Cause.NODE_LOST,
        ),
        (RUNNING, Sight(AT, machine_gone=True), Cause.NODE_LOST),
        ({**RUNNING, **disrupted("DeletionByPodGC")}, Sight(AT, vanished=AT), Cause.NODE_LOST),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, Sight(AT), Cause.PREEMPTED),
    ],
)
def test_causes_are_told_apart(parts: dict[str, Any], sight: Sight, cause: Cause) -> None:
    found = process(pod(**parts), sight)
    assert found is not None
    assert found.end is not None, "expected the pod to have ended"
    told = conclude(found.end, found.role, [], stopped=sight.ours, noticed=found.notice is not None)
    assert told.cause is cause, f"expected {cause}, found {told}"


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfcpu"])
def test_a_pod_that_the_kubelet_rejects_says_why(reason: str) -> None:
    found = process(pod(phase="Failed", reason=reason, message="Pod was rejected: no room"), Sight(AT))
    assert found is not None and found.end is not None
    assert not found.ready, "it has never run"
    told = conclude(found.end, found.role, [], stopped=False, noticed=False)
    assert (told.cause, told.message) == (Cause.NODE_LOST, f"{reason}: Pod was rejected: no room")


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition], "spec": {"nodeName": ""}}


def pulling(reason: str) -> dict[str, Any]:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED}
    waiting = {"reason": reason, "message": "no such image"}
    return {"phase": "Pending", "conditions": [scheduled], "containerStatuses": container(waiting=waiting)}


@pytest.mark.parametrize(
    ("parts", "sight", "reason", "final"),
    [
        ({"phase": "Pending"}, Sight(AT), WaitingReason.STARTING, False),
        (unscheduled("0/2 nodes: Insufficient cpu"), Sight(AT), WaitingReason.UNSCHEDULABLE, False),
        (unscheduled('persistentvolumeclaim "x" not found'), Sight(AT), WaitingReason.VOLUME, False),
        (
            {"phase": "Pending", "spec": {"schedulingGates": [{"name": "kueue"}]}},
            Sight(AT),
            WaitingReason.GATED,
            False,
        ),
        (pulling("ErrImagePull"), Sight(AT + 10), WaitingReason.IMAGE, False),
        (pulling("ImagePullBackOff"), Sight(AT + 60), WaitingReason.IMAGE, True),
        (pulling("ImagePullBackOff"), Sight(AT + 60, ran_before=True), WaitingReason.IMAGE, False),
        (pulling("InvalidImageName"), Sight(AT), WaitingReason.IMAGE, True),
        (pulling("CreateContainerConfigError"), Sight(AT), WaitingReason.REFUSED, False),
    ],
)
def test_waiting_has_a_named_reason(
    parts: dict[str, Any], sight: Sight, reason: WaitingReason, final: bool
) -> None:
    found = process(pod(**parts), sight)
    assert found is not None
    assert found.state is State.WAITING
    assert found.waiting is not None
    assert (found.waiting.reason, found.waiting.final) == (reason, final)


def test_times_that_the_cluster_leaves_out_are_those_of_the_pod() -> None:
    running = process(pod(phase="Running", containerStatuses=container(running={})), Sight(AT))
    assert running is not None and (running.state, running.since) == (State.RUNNING, AT)
    untimed = pulling("ImagePullBackOff")
    del untimed["conditions"][0]["lastTransitionTime"]
    late = process(pod(**untimed), Sight(AT + 60))
    assert late is not None and late.waiting is not None and late.waiting.final


def test_a_pod_whose_other_container_runs_on_lingers() -> None:
    alone = process(pod(**ended(70)), Sight(AT))
    beside = process(pod(**ended(70) | {"phase": "Running"}), Sight(AT))
    assert alone is not None and alone.end is not None and not alone.lingers
    assert beside is not None and beside.end is not None and beside.lingers


def test_a_deletion_that_we_did_not_order_is_a_notice() -> None:
    noticed = process(pod(**RUNNING, metadata=DELETED), Sight(AT))
    ours = process(pod(**RUNNING, metadata=DELETED), Sight(AT, ours=True))
    assert noticed is not None and noticed.notice is not None
    assert noticed.stopping_since == AT - 30, "expected the instant at which the deletion was asked for"
    assert ours is not None and ours.notice is None


@pytest.mark.parametrize("taint", NOTICE_TAINTS)
def test_a_taint_that_announces_the_end_is_a_notice(taint: str) -> None:
    node = {"metadata": {"name": "node-2"}, "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]}}
    found = process(pod(**RUNNING), Sight(AT, machine=machine(node, NOTICE_TAINTS)))
    assert found is not None and found.notice is not None
    assert taint in found.notice.message


def test_identity_survives_the_loss_of_all_labels() -> None:
    found = process(pod(**RUNNING), Sight(AT))
    assert found is not None
    assert (found.role, found.index, found.round, found.name) == (Role.NODE, 1, 2, "worker-1-0")


def test_a_stranger_is_no_process() -> None:
    assert process({"metadata": {"uid": "x", "name": "other"}, "status": {}}, Sight(AT)) is None


@pytest.mark.parametrize(
    ("status", "message", "reason", "final"),
    [
        (403, "pods x is forbidden: exceeded quota: q", WaitingReason.QUOTA, False),
        (403, "no PriorityClass with name high was found", WaitingReason.REFUSED, False),
        (403, 'pods is forbidden: User "x" cannot create', WaitingReason.REFUSED, False),
        (422, "spec.containers[0].image: Invalid value", WaitingReason.REFUSED, True),
        (400, 'admission webhook "a.b" denied the request: no', WaitingReason.REFUSED, False),
        (
            422,
            "pods x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied",
            WaitingReason.REFUSED,
            False,
        ),
    ],
)
def test_refusals_say_whether_they_may_change(
    status: int, message: str, reason: WaitingReason, final: bool
) -> None:
    start = Start(Role.NODE, 0, 0, 1, "worker-0-0", "r", 1, 2)
    found = refusal(start, error_of(status, json.dumps({"message": message})), AT)
    assert (found.waiting.reason, found.waiting.final) == (reason, final)
    assert message in found.waiting.message
