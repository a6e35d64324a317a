"""Init containers of a template: one that fails is told as such, and is not tried for ever."""

from __future__ import annotations

from typing import Any

import pytest

from aurl_operator.backends.kubernetes.observe.process import Sight, process
from aurl_operator.core.accounts.causes import conclude
from aurl_operator.core.observed import State, WaitingReason
from aurl_trainer.contract import Cause
from tests.unit.operator.kubernetes.room import Room, within
from tests.unit.operator.kubernetes.test_observe import (
    AT,
    CREATED,
    DELETED,
    LOST,
    RUNNING,
    TERMINATION,
    container,
    disrupted,
    pod,
    pulling,
)

NOT_YET = {"waiting": {"reason": "PodInitializing"}}


def one(name: str, code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    end = {"exitCode": code, "reason": reason, "message": message, "finishedAt": CREATED}
    return {"name": name, "state": {"terminated": end}}


def failed(*init: dict[str, Any], **state: Any) -> dict[str, Any]:
    """A pod that has failed before its own container ran, unless `state` has more of that."""
    own = container(**(state or NOT_YET))
    return {"phase": "Failed", "initContainerStatuses": list(init), "containerStatuses": own}


FETCH = failed(one("fetch", 1))
UNSEEN = one("fetch", 137, "ContainerStatusUnknown")


@pytest.mark.parametrize(
    ("parts", "sight", "cause", "message"),
    [
        (FETCH, Sight(AT), Cause.CRASH, "init container fetch: exit code 1"),
        (
            failed(one("fetch", 3, message="looking\nno such bucket\n")),
            Sight(AT),
            Cause.CRASH,
            "init container fetch: exit code 3: no such bucket",
        ),
        # Whatever it has written, it is no agent.
        (failed(one("fetch", 1, message=TERMINATION)), Sight(AT), Cause.CRASH, "init container fetch: exit"),
        (
            failed(one("fetch", 137, "OOMKilled")),
            Sight(AT),
            Cause.OUT_OF_MEMORY,
            "init container fetch: exit code 137, OOMKilled",
        ),
        (
            failed(one("fetch", 128, "StartError", "no such file")),
            Sight(AT),
            Cause.FINAL_ERROR,
            "init container fetch: exit code 128, StartError: no such file",
        ),
        # One beside it that runs on is stopped because it has failed.
        (failed(one("proxy", 143), one("fetch", 1)), Sight(AT), Cause.CRASH, "init container fetch"),
        (failed(one("fetch", 0, "Completed"), one("unpack", 2)), Sight(AT), Cause.CRASH, "init container un"),
        ({**FETCH, "metadata": DELETED}, Sight(AT, ours=True), Cause.STOPPED, ""),
        ({**FETCH, **disrupted("EvictionByEvictionAPI")}, Sight(AT), Cause.PREEMPTED, ""),
        # Nobody has seen how it ended: its machine was away.
        (failed(UNSEEN), Sight(AT), Cause.NODE_LOST, "gone without a word"),
        (FETCH | {"phase": "Pending"}, Sight(AT, machine=LOST), Cause.NODE_LOST, ""),
        # The pod's own container has run: its end is what counts.
        (failed(one("proxy", 137), terminated={"exitCode": 0}), Sight(AT), Cause.SUCCEEDED, ""),
        (
            failed(one("proxy", 1), terminated={**UNSEEN["state"]["terminated"]}),
            Sight(AT),
            Cause.NODE_LOST,
            "",
        ),
    ],
)
def test_the_init_container_that_failed_is_why(
    parts: dict[str, Any], sight: Sight, cause: Cause, message: str
) -> None:
    found = process(pod(**parts), sight)
    assert found is not None and found.end is not None, "expected the pod to have ended"
    told = conclude(found.end, found.role, [], stopped=sight.ours, noticed=found.notice is not None)
    assert told.cause is cause, f"expected {cause}, found {told}"
    assert told.message.startswith(message), f"expected {message!r}, found {told.message!r}"


def test_a_pod_whose_init_container_may_run_again_has_not_ended() -> None:
    found = process(pod(**FETCH | {"phase": "Pending"}), Sight(AT))
    assert found is not None and found.state is State.WAITING


def loops(started: bool = False, **state: Any) -> dict[str, Any]:
    last = {"terminated": {"exitCode": 2, "reason": "Error"}}
    status = {"name": "proxy", "restartCount": 4, "started": started, "lastState": last, "state": state}
    return {
        "phase": "Pending",
        "initContainerStatuses": [status],
        "containerStatuses": container(**NOT_YET),
    }


@pytest.mark.parametrize(
    ("parts", "reason", "message"),
    [
        (
            loops(waiting={"reason": "CrashLoopBackOff", "message": "back-off"}),
            WaitingReason.INIT,
            "proxy: exit code 2",
        ),
        (loops(running={"startedAt": CREATED}), WaitingReason.INIT, "proxy: exit code 2"),
        (loops(started=True, running={"startedAt": CREATED}), WaitingReason.STARTING, ""),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    {
                        "name": "fetch",
                        "state": {"waiting": {"reason": "InvalidImageName", "message": "X: no name"}},
                    }
                ],
                "containerStatuses": container(**NOT_YET),
            },
            WaitingReason.IMAGE,
            "init container fetch: InvalidImageName: X: no name",
        ),
    ],
)
def test_what_waits_for_an_init_container_says_for_which(
    parts: dict[str, Any], reason: WaitingReason, message: str
) -> None:
    found = process(pod(**parts), Sight(AT))
    assert found is not None and found.waiting is not None
    assert found.waiting.reason is reason, found.waiting
    assert message in found.waiting.message, found.waiting
    assert found.waiting.final is (reason is WaitingReason.IMAGE)


@pytest.mark.parametrize(("after", "final"), [(10, False), (50, True)])
def test_a_pull_has_its_time_also_after_a_long_init_container(after: float, final: bool) -> None:
    end = {"exitCode": 0, "finishedAt": "2026-01-31T12:10:00Z"}
    fetched = {"name": "fetch", "state": {"terminated": end}}
    parts = pulling("ErrImagePull") | {"initContainerStatuses": [fetched]}
    found = process(pod(**parts), Sight(AT + 600 + after))
    assert found is not None and found.waiting is not None
    assert found.waiting.final is final


def test_one_beside_a_program_that_runs_changes_nothing() -> None:
    beside = loops(waiting={"reason": "CrashLoopBackOff", "message": "back-off"})
    found = process(pod(**beside | RUNNING), Sight(AT))
    assert found is not None and found.state is State.RUNNING


def test_a_job_whose_init_container_fails_each_time_ends() -> None:
    async def story(room: Room) -> None:
        at_once = {"backoff": {"initialSeconds": 0}}
        first = {"spec": {"initContainers": [{"name": "fetch", "image": "y", "command": ["false"]}]}}
        room.job(spec={"template": first, "recovery": {"crashes": at_once, "nodeLost": at_once}})
        await room.look()
        for _ in range(20):
            for made in room.server.named("pods"):
                if "status" not in made:
                    put = room.server.put(room.path(made), {**made, "status": FETCH})
                    room.cache.put_pod({"kind": "Pod", **put})
            await room.look_again()
        status = room.status()
        assert status["phase"] == "Failed", status
        assert "crash for the 4th time" in status["message"], status["message"]
        assert "init container fetch: exit code 1" in status["message"], status["message"]
        assert len(room.server.named("pods")) <= 4, "expected three restarts, and no more"

    within(story)
