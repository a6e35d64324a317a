"""The agent's files of a `command` job: its own, those that its pods name, there again when somebody has
deleted them, and none left at its end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aurl_operator.api import names
from aurl_operator.backends.kubernetes import controller
from aurl_operator.backends.kubernetes.act import beside
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.core.names import rfc3339
from aurl_operator.launch.pod import agent_mount
from aurl_operator.launch.pod.agent_mount import mounted
from tests.unit.operator.kubernetes.room import KEY, PATH, Room, within


def _lost(room: Room) -> None:
    """The job's pods are gone."""
    for pod in room.server.named("pods"):
        room.cache.drop_pod({"kind": "Pod", **pod}, time.time())
        del room.server.objects[paths.pod("music", pod["metadata"]["name"])]


def _agent_of(pod: dict[str, Any]) -> str:
    return str(mounted(pod))


def test_a_job_made_again_under_its_name_has_files_of_its_own() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (before,) = room.server.named("configmaps")
        room.forget()
        for pod in room.server.named("pods"):
            del room.server.objects[paths.pod("music", pod["metadata"]["name"])]
        del room.server.objects[PATH]
        room.job(uid="another")
        await room.look()
        mine = [c for c in room.server.named("configmaps") if c is not before]
        assert len(mine) == 1, "expected files of its own: those of the job before go with it"
        (pod,) = room.server.named("pods")
        assert _agent_of(pod) == mine[0]["metadata"]["name"]
        keys = {
            item["key"] for v in pod["spec"]["volumes"] for item in v.get("configMap", {}).get("items", [])
        }
        assert keys == set(mine[0]["data"])

    within(story)


def test_files_that_are_not_the_jobs_are_not_mounted() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (files,) = room.server.named("configmaps")
        path = f"{paths.config_maps('music')}/{files['metadata']['name']}"
        room.forget()
        _lost(room)
        room.server.put(path, {**files, "metadata": {"name": files["metadata"]["name"]}})
        del room.server.objects[PATH]
        room.job()
        await room.look()
        await room.look()
        assert not room.server.named("pods"), "expected no pod with files of a stranger"
        assert "not of this job" in (room.condition("Waiting") or ""), room.status()
        del room.server.objects[path]
        room.cache.entries[KEY].refusals.clear()
        await room.look()
        await room.look()
        assert room.server.named("pods"), f"expected it to be tried again, found {room.status()}"

    within(story)


@pytest.mark.parametrize("restarted", [False, True])
def test_an_upgrade_brings_files_of_its_own_and_leaves_none(
    restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before had other files of the agent."""

    async def story(room: Room) -> None:
        at_once = {"preemptions": {"backoff": {"initialSeconds": 0}}}
        spec = {"cleanup": {"pods": "All"}, "recovery": at_once}
        room.job(spec=spec)
        with monkeypatch.context() as before:
            old = {"__main__.py": "1", "aurl_trainer/gone.py": "2"}
            before.setattr(agent_mount, "_sources", lambda: old)
            agent_mount._digest.cache_clear()
            await room.look()
        agent_mount._digest.cache_clear()
        (pod,) = room.server.named("pods")
        if restarted:
            room.forget()
            room.cache.put_pod({"kind": "Pod", **pod})
        room.cache.put_job(room.server.objects[PATH])
        entry = room.cache.entries[KEY]
        entry.prepared_at = None
        _lost(room)
        await room.look_again()
        await room.look_again()
        assert len(room.server.named("pods")) == 1, f"expected a replacement, found {room.status()}"
        (again,) = room.server.named("pods")
        made = {c["metadata"]["name"]: set(c["data"]) for c in room.server.named("configmaps")}
        assert len(made) == 2
        items = [i["key"] for v in again["spec"]["volumes"] for i in v.get("configMap", {}).get("items", [])]
        assert set(items) == made[_agent_of(again)], "expected it to mount the files that it names"
        _ended(room, again)
        for _ in range(3):
            await room.look_again()
        assert room.status()["phase"] == "Succeeded", room.status()
        assert not room.server.named("configmaps"), "expected nothing to be left"

    within(story)


AT_ONCE = {"recovery": {"preemptions": {"backoff": {"initialSeconds": 0}}}}


def _calls(room: Room) -> list[str]:
    """Verbs of what was asked about ConfigMaps."""
    return [verb for verb, path in room.server.asked if "/configmaps" in path]


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("lately", [False, True])
def test_files_are_looked_after_as_long_as_pods_are_started(
    deleted: bool, lately: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "LATELY_SECONDS", 60.0 if lately else 0.0)

    async def story(room: Room) -> None:
        room.job(spec=AT_ONCE)
        await room.look()
        (files,) = room.server.named("configmaps")
        if deleted:
            del room.server.objects[f"{paths.config_maps('music')}/{files['metadata']['name']}"]
        room.server.asked.clear()
        _lost(room)
        await room.look_again()
        await room.look_again()
        assert len(room.server.named("pods")) == 1, f"expected a replacement, found {room.status()}"
        if lately:
            assert not _calls(room), "expected nodes that start together to ask once"
        else:
            assert len(room.server.named("configmaps")) == 1, "expected the replacement to find its files"
            assert _calls(room) == (["GET", "POST"] if deleted else ["GET"])

    within(story)


def test_a_pod_that_waits_for_deleted_files_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other is started as long as it waits, so nothing else would make them."""
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (files,), (pod,) = room.server.named("configmaps"), room.server.named("pods")
        name = files["metadata"]["name"]
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": rfc3339(time.time() - 60),
        }
        status = {"phase": "Pending", "conditions": [scheduled]}
        put = room.server.put(room.path(pod), {**pod, "status": status})
        room.cache.put_pod({"kind": "Pod", **put})
        del room.server.objects[f"{paths.config_maps('music')}/{name}"]
        body = {"metadata": {"name": "bach.1"}, "involvedObject": {"uid": pod["metadata"]["uid"]}}
        words = f'MountVolume.SetUp failed for volume "aurl-agent" : configmap "{name}" not found'
        told = {**body, "reason": "FailedMount", "message": words}
        room.server.put(f"{paths.events('music')}/bach.1", told)
        await room.look_again()
        assert not room.server.named("configmaps"), "nobody has told yet"
        await room.mounts.look(time.time())
        await room.look_again()
        assert [c["metadata"]["name"] for c in room.server.named("configmaps")] == [name]
        room.server.asked.clear()
        await room.mounts.look(time.time() + 60.0)
        await room.look_again()
        assert not _calls(room), "expected no question again for the same words"

    within(story)


def _ended(room: Room, pod: dict[str, Any]) -> None:
    """The program has ended well."""
    done = {"exitCode": 0, "finishedAt": "2026-01-31T12:00:00Z", "startedAt": "2026-01-31T11:00:00Z"}
    status = {
        "phase": "Succeeded",
        "containerStatuses": [{"name": names.TRAINER_CONTAINER, "state": {"terminated": done}}],
    }
    path = paths.pod("music", pod["metadata"]["name"])
    room.cache.put_pod({"kind": "Pod", **room.server.put(path, {**pod, "status": status})})
