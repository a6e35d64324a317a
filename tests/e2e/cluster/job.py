"""One job on the cluster under test: how it is written, watched, and read after its end."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aurl_trainer.monitor.record_files import record_files
from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.e2e.cluster.kube import get, kubectl, wait_for

STEPS = 300
EVERY = 20
TRAINER = os.environ.get("AURL_TRAINER_IMAGE", "docker.io/local/aurl-trainer:dev")
SETTINGS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@dataclass
class Job:
    """A job and its namespace."""

    namespace: str
    name: str = "bach"
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"s3://aurl/{self.namespace}/{self.name}"

    def apply(self) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3", "namespace": self.namespace},
            "stringData": {name: os.environ[name] for name in SETTINGS},
        }
        spec = {
            "image": TRAINER,
            "nodes": {"min": 1, "max": 2},
            "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
            "checkpoint": {"uri": self.uri, "every": EVERY, "secret": "s3"},
            "cleanup": {"pods": "All"},
            "terminationGracePeriodSeconds": 30,
            "training": {"preset": "quick_test", "overrides": OVERRIDES},
            "template": SPREAD,
            **self.spec,
        }
        spec = {name: value for name, value in spec.items() if value is not None}
        whole = {
            "apiVersion": "aurl.dev/v1alpha1",
            "kind": "AurlTrainingJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([secret, whole]))

    def patch(self, spec: dict[str, Any]) -> None:
        body = json.dumps({"spec": spec})
        kubectl("-n", self.namespace, "patch", "atj", self.name, "--type=merge", "-p", body)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = get("-n", self.namespace, "atj", self.name).get("status", {})
        return found

    def step(self) -> int:
        return int((self.status().get("progress") or {}).get("step", 0))

    def durable(self) -> int:
        return int((self.status().get("checkpoint") or {}).get("lastDurableStep") or 0)

    def store(self) -> RunStore:
        """Its checkpoints, as they lie there: a status may be half a minute old."""
        return RunStore(Location(self.uri))

    def saved(self) -> int:
        """The step of the newest checkpoint."""
        return max((name.step for name in self.store().valid()), default=0)

    def newest(self) -> CheckpointName:
        """The newest checkpoint."""
        return self.store().valid()[-1]

    def newest_generation(self) -> GenerationId:
        """Of the last world that has formed."""
        return self.store().fences()[-1].id

    def world(self) -> int:
        """How many ranks the last world has, by the records that they have sent; 0 before that."""
        place, number = Location(self.uri), self.newest_generation().number
        files = [f for f in record_files(place.names("records")) if f.generation == number]
        lines = [line for f in files for line in place.get(f"records/{f.name}").splitlines()]
        starts = [json.loads(line) for line in lines if line.startswith(b'{"kind":"start"')]
        return max((int(start["world"]) for start in starts), default=0)

    def pods(self, role: str | None = None) -> list[dict[str, Any]]:
        selector = f"aurl.dev/job={self.name}" + (f",aurl.dev/role={role}" if role else "")
        items: list[dict[str, Any]] = get("-n", self.namespace, "pods", "-l", selector)["items"]
        return items

    def running(self, role: str = "node") -> list[dict[str, Any]]:
        return [p for p in self.pods(role) if p["status"].get("phase") == "Running" and _stays(p)]

    def first_rank(self) -> str:
        """The name of the pod with rank 0."""
        names = [str(pod["metadata"]["name"]) for pod in self.running()]
        # The last world that each was in.
        here = {n: kubectl("-n", self.namespace, "logs", n).rpartition("here: ")[2] for n in names}
        return next(n for n in names if here[n].startswith("0"))

    def on(self, machine: str, role: str = "node") -> dict[str, Any]:
        """The running pod on a machine."""
        found = [p for p in self.running(role) if p["spec"].get("nodeName") == machine]
        assert found, f"no running {role} of {self.name} on {machine}"
        return found[0]

    def wait_durable(self, step: int, seconds: float = 240) -> None:
        wait_for(f"a checkpoint at step {step}", lambda: self.durable() >= step, seconds)

    def wait_phase(self, phase: str, seconds: float = 300) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            status = self.status()
            ended = status.get("phase") in ("Failed", "Succeeded") and status["phase"] != phase
            assert not ended, f"{self.name} is {status['phase']}: {status.get('message')}"
            return status if status.get("phase") == phase else None

        found: dict[str, Any] = wait_for(f"{self.name} is {phase}", there, seconds)
        return found

    def steps(self, folder: Path) -> dict[int, tuple[float, frozenset[int]]]:
        """Loss and sample ids of every step of the result, from the records beside the checkpoints.

        Without steps that only some ranks tell of: a lost machine takes its last seconds of records along.
        """
        import fsspec

        fs, path = fsspec.core.url_to_fs(self.uri, use_listings_cache=False, skip_instance_cache=True)
        fs.get(f"{path}/records/", f"{folder}/records/", recursive=True)
        worlds: dict[int, int] = {}
        told: dict[int, dict[int, list[dict[str, Any]]]] = {}
        for record in read_records(folder / "records", ("start", "audit")):
            if record["kind"] == "start":
                worlds[record["generation"]] = record["world"]
            else:
                told.setdefault(record["step"], {}).setdefault(record["generation"], []).append(record)
        found = {}
        for step, by_generation in told.items():
            # A later generation's step replaces the same step that was done before and lost.
            last = max(by_generation)
            ranks = by_generation[last]
            if len(ranks) == worlds.get(last):
                found[step] = (ranks[0]["loss"], frozenset(i for r in ranks for i in r["ids"]))
        return found


# A hundred of the chorales: two pods that read all of them at once take most of a minute, in every scenario.
OVERRIDES: dict[str, Any] = {
    "data": {"source": {"music21": "bach", "limit": 100}},
    "engine": {"steps": STEPS},
    "monitor": {"audit": True},
    "samples": {"count": 0},
}


def slowed(samples: int) -> dict[str, Any]:
    """The same training, step by step, but validated after each: for what has to happen before it ends.

    It lasts about twice as long with 32 samples, three times with 64.
    """
    monitor = {"audit": True, "evaluate_every": 1, "evaluate_samples": samples}
    return {"preset": "quick_test", "overrides": {**OVERRIDES, "monitor": monitor}}


SPREAD: dict[str, Any] = {
    "spec": {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"aurl.dev/role": "node"}},
            }
        ]
    }
}


def _stays(pod: dict[str, Any]) -> bool:
    return pod["metadata"].get("deletionTimestamp") is None


def nothing_left(job: Job) -> list[str]:
    """Names of what a job has left beside itself."""
    kinds = "pods,configmaps,services,persistentvolumeclaims"
    found = get("-n", job.namespace, kinds, "-l", f"aurl.dev/job={job.name}")["items"]
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found]


def figure(name: str, **values: float) -> None:
    """Adds measured seconds to the file of figures, if one is wanted."""
    print(f"figure {name}: {values}")
    if "AURL_FIGURES" in os.environ:
        with Path(os.environ["AURL_FIGURES"]).open("a") as file:
            file.write(json.dumps({"name": name, "at": time.time(), **values}) + "\n")
