"""What is known of the cluster: jobs, their pods, machines. Events and our own writes come in.

An older version of an object never replaces a newer one. A pod whose object is gone stays as a ghost until
its end is booked. Ends once seen stay as they were seen. Not here: watching (app.py), deciding (core).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.backends.kubernetes.observe.machine import Machine, machine
from aurl_operator.backends.kubernetes.observe.process import job_name
from aurl_operator.backends.kubernetes.unusable import Problem
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import End, Refusal, Role
from aurl_operator.launch.pod.agent_mount import VOLUME, mounted
from aurl_operator.queue import Key
from aurl_trainer.contract import LedgerEntry, Progress

Json = dict[str, Any]

LOST_SECONDS = 10.0
"""How long a machine must be not ready before its pods count as lost: an API server that comes back finds
every machine silent for a moment."""

GAP_SECONDS = 90.0
"""Nodes none of which has taken a connection for so long are out of reach: more than the longest pause
between two questions, less than a hang is waited for beyond its limit."""


@dataclass
class Entry:
    """One job, and all that the operator knows of it."""

    job: Json
    parsed: AurlTrainingJob | None = None
    parsed_generation: int | None = None
    problem: Problem | None = None
    """Why it cannot be worked."""
    trouble: Problem | None = None
    """An error of ours that a look at it met, and that is told until it has not come again for a while."""
    trouble_at: float = 0.0
    """When it was met last, seconds since the epoch."""
    memory: Memory | None = None
    """None until the first look; from then on ours, whatever the object says."""
    damaged: str | None = None
    """Why the memory in the object could not be read."""
    pods: dict[str, Json] = field(default_factory=dict)
    """By UID, ghosts included."""
    vanished: dict[str, float] = field(default_factory=dict)
    """UIDs whose object is gone, and since when."""
    ends: dict[str, End] = field(default_factory=dict)
    refusals: dict[tuple[Role, int], Refusal] = field(default_factory=dict)
    progress: Progress | None = None
    speaker: str | None = None
    """UID of the pod that answered as rank 0 last."""
    silent: int = 0
    """Questions for progress in a row that nobody answered."""
    reached_since: float | None = None
    """Since when a node has taken our connections without a gap, answered or not; with `reached_at`."""
    reached_at: float = 0.0
    """When one took a connection last."""
    patched_at: float = 0.0
    unlisted_asked: bool = False
    """Living pods of its memory that no list has shown were asked for by name, once."""
    waits_since: float | None = None
    """Since when there is something to write that can wait for more."""
    suspects: dict[str, float] = field(default_factory=dict)
    """Machines on which something of the job fell silent, and when: the cluster may not know it yet."""
    mounts: dict[str, str] = field(default_factory=dict)
    """What the kubelet says of volumes, by UID of a pod without a container."""
    prepared_at: float | None = None
    """When its ConfigMap was there last and was this job's, on the clock that never runs backwards; None: not
    made yet, or missed."""
    agents: set[str] = field(default_factory=set)
    """ConfigMaps that its pods have the agent from: another operator may have made another one."""
    gang: Json | None = None
    """What its pods have been told to wait for together, as it was applied last."""
    gang_at: float | None = None
    """When it was."""
    untold: list[LedgerEntry] = field(default_factory=list)
    """What is in the status, and has still to become an Event, oldest first."""
    denied: set[str] = field(default_factory=set)
    """Rights that the operator lacks for this job, in the API server's words, and has told of."""
    tidied: bool = False
    """They are gone again, since the job has ended and nothing is to be left."""

    @property
    def version(self) -> str:
        """The object's resourceVersion."""
        return str(self.job["metadata"]["resourceVersion"])

    @property
    def uid(self) -> str:
        """The object's UID."""
        return str(self.job["metadata"]["uid"])

    def hear_mounts(self, words: dict[str, str]) -> None:
        """Takes in what the kubelet says of volumes now; a pod may miss the job's ConfigMap."""
        news = [text for uid, text in words.items() if text != self.mounts.get(uid)]
        self.mounts = words
        if any(agent in text for text in news for agent in self.agents):
            self.prepared_at = None

    def reached(self, now: float) -> bool:
        """A node took a connection. Returns whether none had for a while."""
        anew = self.reached_since is None or now - self.reached_at > GAP_SECONDS
        if anew:
            self.reached_since = now
        self.reached_at = now
        return anew


DEPARTED_KEPT = 1024
"""Machines that have left last are remembered; pods of an earlier one the cluster has deleted long ago."""


class Cache:
    """All jobs by key. For one event loop."""

    def __init__(self, notice_taints: Collection[str]) -> None:
        self.entries: dict[Key, Entry] = {}
        self.machines: dict[str, Machine] = {}
        self._departed: deque[str] = deque(maxlen=DEPARTED_KEPT)
        self._taints = notice_taints
        self._orphans: dict[Key, dict[str, Json]] = {}

    def put_job(self, job: Json) -> tuple[Key, bool]:
        """Takes in a job. Returns its key, and whether it is news to us."""
        key = _key(job)
        entry = self.entries.get(key)
        job = _trimmed(job)
        if entry is None or entry.uid != job["metadata"]["uid"]:
            waiting = self._orphans.pop(key, {})
            pods = {uid: pod for uid, pod in waiting.items() if _is_of(pod, job["metadata"]["uid"])}
            self.entries[key] = Entry(job, pods=pods, agents=_agents(pods.values()))
            return key, True
        if _version(job) <= _version(entry.job):
            return key, False
        entry.job = job
        return key, True

    def renew_job(self, job: Json) -> None:
        """Takes in what the API server answered. The watch may have told already that this job is gone."""
        entry = self.entries.get(_key(job))
        if entry is not None and entry.uid == job["metadata"]["uid"]:
            self.put_job(job)

    def drop_job(self, job: Json) -> Key:
        """The job's object is gone; its pods follow by their owner references."""
        key = _key(job)
        entry = self.entries.get(key)
        if entry is not None and entry.uid == job["metadata"]["uid"]:
            del self.entries[key]
        return key

    def put_pod(self, pod: Json) -> Key | None:
        """Takes in a pod. Returns its job's key if that is news."""
        name = job_name(pod)
        if name is None:
            return None
        key = (pod["metadata"]["namespace"], name)
        pods = self._pods_of(key, pod)
        uid = pod["metadata"]["uid"]
        if uid in pods and _version(pod) <= _version(pods[uid]):
            return None
        pods[uid] = _trimmed(pod)
        entry = self.entries.get(key)
        if entry is not None:
            entry.vanished.pop(uid, None)
            entry.agents |= _agents([pods[uid]] if _is_of(pod, entry.uid) else [])
        return key

    def drop_pod(self, pod: Json, now: float) -> Key | None:
        """The pod's object is gone: it stays as a ghost until its end is booked."""
        name = job_name(pod)
        if name is None:
            return None
        key = (pod["metadata"]["namespace"], name)
        entry = self.entries.get(key)
        uid = pod["metadata"]["uid"]
        if entry is None:
            orphans = self._orphans.get(key, {})
            orphans.pop(uid, None)
            if not orphans:
                self._orphans.pop(key, None)
            return None
        if not _is_of(pod, entry.uid):
            # One of a deleted job of this name was perhaps in the way: what waited for it is tried at once.
            waited = bool(entry.refusals)
            entry.refusals.clear()
            return key if waited else None
        if uid not in entry.pods or _version(pod) >= _version(entry.pods[uid]):
            entry.pods[uid] = _trimmed(pod)
        entry.vanished.setdefault(uid, now)
        return key

    def held_jobs(self, namespace: str | None) -> list[Json]:
        """Jobs that are known to exist, in one namespace or in all."""
        return [e.job for key, e in self.entries.items() if namespace in (None, key[0])]

    def held_pods(self, namespace: str | None) -> list[Json]:
        """Pods that are known to exist, in one namespace or in all."""
        found = [
            p for key, pods in self._orphans.items() if namespace in (None, key[0]) for p in pods.values()
        ]
        for key, entry in self.entries.items():
            if namespace in (None, key[0]):
                found += [pod for uid, pod in entry.pods.items() if uid not in entry.vanished]
        return found

    def holds_job(self, job: Json) -> bool:
        """Whether this very job is known to exist."""
        entry = self.entries.get(_key(job))
        return entry is not None and entry.uid == job["metadata"]["uid"]

    def holds_pod(self, pod: Json) -> bool:
        """Whether this very pod is known to exist."""
        key, uid = (pod["metadata"]["namespace"], job_name(pod) or ""), pod["metadata"]["uid"]
        entry = self.entries.get(key)
        if entry is None:
            return uid in self._orphans.get(key, {})
        return uid in entry.pods and uid not in entry.vanished

    def lacks_job(self, job: Json) -> bool:
        """Whether this job, of which the metadata is enough, would be news."""
        entry = self.entries.get(_key(job))
        if entry is None or entry.uid != job["metadata"]["uid"]:
            return True
        return _version(job) > _version(entry.job)

    def lacks_pod(self, pod: Json) -> bool:
        """Whether this pod of a job, of which the metadata is enough, would be news."""
        name, uid = job_name(pod), pod["metadata"]["uid"]
        if name is None:
            return False
        key = (pod["metadata"]["namespace"], name)
        entry = self.entries.get(key)
        if entry is not None and not _is_of(pod, entry.uid):
            return False
        known = (self._orphans.get(key, {}) if entry is None else entry.pods).get(uid)
        return known is None or _version(pod) > _version(known)

    def put_machine(self, node: Json) -> set[Key]:
        """Takes in a machine. Returns the jobs to which that matters."""
        found = machine(node, self._taints)
        if self.machines.get(found.name) == found:
            return set()
        self.machines[found.name] = found
        return self._jobs_on(found.name)

    def drop_machine(self, node: Json) -> set[Key]:
        """The machine is not part of the cluster any more."""
        name = node["metadata"]["name"]
        self.machines.pop(name, None)
        self._departed.append(name)
        return self._jobs_on(name)

    def machines_listed(self) -> None:
        """All machines have been taken in, after all pods: who is on none of them has lost its own."""
        for entry in self.entries.values():
            for pod in entry.pods.values():
                place = pod.get("spec", {}).get("nodeName")
                if place and place not in self.machines and place not in self._departed:
                    self._departed.append(place)

    def machine_gone(self, name: str) -> bool:
        """Whether a machine has left the cluster. One of which nobody has told yet is new."""
        return name not in self.machines and name in self._departed

    def forget_ghosts(self, entry: Entry, booked: Collection[str]) -> None:
        """Lets go of pods that are gone and whose end is booked."""
        for uid in [u for u in entry.vanished if u in booked]:
            del entry.vanished[uid]
            entry.pods.pop(uid, None)
            entry.ends.pop(uid, None)
            entry.mounts.pop(uid, None)

    def _pods_of(self, key: Key, pod: Json) -> dict[str, Json]:
        entry = self.entries.get(key)
        if entry is None:
            return self._orphans.setdefault(key, {})
        return entry.pods if _is_of(pod, entry.uid) else {}

    def _jobs_on(self, name: str) -> set[Key]:
        return {
            key
            for key, entry in self.entries.items()
            if any(pod.get("spec", {}).get("nodeName") == name for pod in entry.pods.values())
        }


def _key(job: Mapping[str, Any]) -> Key:
    return job["metadata"]["namespace"], job["metadata"]["name"]


def _is_of(pod: Mapping[str, Any], uid: str) -> bool:
    """Whether the pod is of this very job: one of a deleted job of the same name is on its way out."""
    return uid in {owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])}


def _agents(pods: Iterable[Json]) -> set[str]:
    return {name for pod in pods if (name := mounted(pod)) is not None}


def _version(item: Mapping[str, Any]) -> int:
    return int(item["metadata"]["resourceVersion"])


def _trimmed(item: Mapping[str, Any]) -> Json:
    """Without what nobody reads and memory is spent on."""
    metadata = {k: v for k, v in item["metadata"].items() if k != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations is not None:
        last = "kubectl.kubernetes.io/last-applied-configuration"
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != last}
    trimmed: Json = {**item, "metadata": metadata}
    if item.get("kind") == "Pod" or "containers" in item.get("spec", {}):
        kept = ("nodeName", "schedulingGates")
        trimmed["spec"] = {k: v for k, v in item.get("spec", {}).items() if k in kept}
        agent = mounted(item)
        if agent is not None:
            trimmed["spec"]["volumes"] = [{"name": VOLUME, "configMap": {"name": agent}}]
    return {sys.intern(key): _shared(value) for key, value in trimmed.items()}


def _shared(value: Any, depth: int = 20) -> Any:
    """The same, with one copy in the process of each key and each word: most of an object is these.

    What lies deeper than `depth` stays as it is: a template can be of any depth.
    """
    if not depth:
        return value
    if isinstance(value, dict):
        return {sys.intern(key): _shared(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_shared(item, depth - 1) for item in value]
    return sys.intern(value) if isinstance(value, str) and value.isidentifier() else value
