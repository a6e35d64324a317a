"""The pod of one start: TorchX's own `role_to_pod`, and then everything that a cluster must be sure of.

TorchX takes 1024 MB and 100m off the requests and leaves the security context empty, so resources and
security are always written over. The user's `template` is merged last, and may not touch what makes the pod
ours. Not here: the role (`launch/appdef.py`), merging (`merge.py`), the agent for foreign images
(`agent_mount.py`), creating it (`backends/kubernetes`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient
from torchx.schedulers.kubernetes_scheduler import role_to_pod
from torchx.specs import Role as TorchxRole

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.names import node_name
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch import appdef
from aurl_operator.launch.experiment import experiment
from aurl_operator.launch.node import Place, command
from aurl_operator.launch.pod import agent_mount, gang
from aurl_operator.launch.pod.merge import merge
from aurl_operator.launch.pod.security import CONTAINER_SECURITY, POD_SECURITY, SCRATCH, SCRATCH_MOUNTS
from aurl_trainer.contract import Env
from aurl_trainer.errors import ConfigError

Json = dict[str, Any]

TERMINATION_LOG = "/dev/termination-log"
RUN_DIR = "/run/aurl"
LOST_SECONDS = 30
"""How long a pod stays on a machine that the cluster has lost, where the template says nothing else."""

_ADDRESS = "aurl-pod-ip"
_SMALL = {"cpu": "50m", "memory": "512Mi"}
"""What store and cleaner ask for: torch's import is all that they need."""

_CONTAINERS = {
    Role.NODE: names.TRAINER_CONTAINER,
    Role.STORE: names.STORE_CONTAINER,
    Role.CLEANER: names.CLEANER_CONTAINER,
}


@dataclass(frozen=True)
class PodDefaults:
    """What the operator's settings say about pods."""

    image: str | None = None
    """For jobs that name none."""


def check(job: AurlTrainingJob, defaults: PodDefaults) -> None:
    """Whether pods can be made for `job` at all. Raises ConfigError with a line for each problem."""
    problems: list[str] = []
    if job.spec.image is None and defaults.image is None:
        problems.append("spec.image: name an image; this operator has no default")
    if job.metadata.namespace is None or job.metadata.uid is None:
        problems.append("metadata: the job is not on a cluster yet")
    trained = experiment(job)
    if trained is not None and trained.checkpoint.uri is None:
        problems.append("spec.checkpoint.uri: name a place that all nodes reach, as in s3://bucket/run")
    problems += _refused_template(job)
    if problems:
        raise ConfigError(problems)


def pod(job: AurlTrainingJob, start: Start, defaults: PodDefaults) -> Json:
    """The manifest of the pod for `start`. Raises ConfigError as `check` does."""
    check(job, defaults)
    role = _role(job, start)
    role.image = job.spec.image or defaults.image or ""
    made = role_to_pod(_CONTAINERS[start.role], role, job.spec.service_account_name)
    base: Json = ApiClient().sanitize_for_serialization(made)
    base |= {"apiVersion": "v1", "kind": "Pod"}
    base["metadata"] = _metadata(job, start, base["metadata"])
    base["spec"] = _spec(job, start, base["spec"])
    if start.role is Role.NODE:
        base = merge(base, job.spec.template)
        base["metadata"] = _metadata(job, start, base["metadata"])
        base = gang.joined(job, start, base)
    return base


def _role(job: AurlTrainingJob, start: Start) -> TorchxRole:
    trained = experiment(job)
    launch = appdef.Launch(
        run=job.metadata.uid or "",
        rendezvous=start.rdzv_id,
        nodes=(start.nodes_min, start.nodes_max),
        store=f"0.0.0.0:{names.STORE_PORT}" if start.role is Role.STORE else start.store,
        address=_ADDRESS,
        run_dir=RUN_DIR,
        log_dir=f"{RUN_DIR}/logs",
        experiment=None if trained is None else trained.model_dump(mode="json"),
    )
    if start.role is Role.CLEANER:
        role = {r.name: r for r in appdef.app_def(job, launch).roles}[appdef.NODES]
        uri = trained.checkpoint.uri if trained else job.spec.checkpoint.uri
        role.args = ["-m", "aurl_trainer", "purge", "--uri", appdef.literal(uri or "")]
        if start.keep_best:
            role.args.append("--keep-best")
    else:
        wanted = appdef.STORE if start.role is Role.STORE else appdef.NODES
        role = {r.name: r for r in appdef.app_def(job, launch).roles}[wanted]
    place = Place(
        name=node_name(start.role, start.index),
        index=start.index,
        attempt=start.attempt,
        uid="",
        termination_log=TERMINATION_LOG,
        progress_port=names.PROGRESS_PORT if start.role is Role.NODE else None,
    )
    made = command(role, place)
    role.args = ["$(AURL_POD_IP)" if a == _ADDRESS else _plain(a) for a in made.argv[1:]]
    role.env = {name: _plain(value) for name, value in made.env.items() if name != Env.NODE_UID}
    role.env |= _surroundings(job, start)
    role.port_map = _ports(start)
    return role


def _surroundings(job: AurlTrainingJob, start: Start) -> dict[str, str]:
    env = {"HOME": "/tmp/home", "XDG_CACHE_HOME": "/tmp/cache"}
    if start.role is Role.NODE:
        env[Env.PROGRESS_HOST] = "0.0.0.0"
        if start.barred:
            env[Env.BARRED] = ",".join(start.barred)
    if job.spec.command is not None:
        env["PYTHONPATH"] = agent_mount.PATH
    return env


def _ports(start: Start) -> dict[str, int]:
    if start.role is Role.NODE:
        return {"progress": names.PROGRESS_PORT}
    return {"c10d": names.STORE_PORT} if start.role is Role.STORE else {}


def _plain(text: str) -> str:
    """Text that the kubelet leaves as it is: it takes `$(` for its own."""
    return text.replace("$(", "$$(")


def _metadata(job: AurlTrainingJob, start: Start, base: Json) -> Json:
    process = {
        "role": start.role.value,
        "index": start.index,
        "attempt": start.attempt,
        "round": start.round,
    }
    labels = {
        names.MANAGED_BY: names.MANAGER,
        names.JOB: job.metadata.name,
        names.JOB_UID: job.metadata.uid,
        names.ROLE: start.role.value,
        names.INDEX: str(start.index),
        names.ATTEMPT: str(start.attempt),
        names.ROUND: str(start.round),
    }
    return {
        **base,
        "name": names.pod_name(job.metadata.name, start.name),
        "namespace": job.metadata.namespace,
        "labels": {**(base.get("labels") or {}), **labels},
        "annotations": {**(base.get("annotations") or {}), names.PROCESS: json.dumps(process)},
        "ownerReferences": [owner(job)],
    }


def owner(job: AurlTrainingJob) -> Json:
    """What makes an object go with its job."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _spec(job: AurlTrainingJob, start: Start, base: Json) -> Json:
    spec = job.spec
    container = base["containers"][0]
    is_node = start.role is Role.NODE
    container["resources"] = (
        spec.resources.to_object() if is_node else {"requests": _SMALL, "limits": {"memory": "1Gi"}}
    )
    container["securityContext"] = CONTAINER_SECURITY
    container["imagePullPolicy"] = "IfNotPresent"
    container["terminationMessagePath"] = TERMINATION_LOG
    container["terminationMessagePolicy"] = "File"
    container["env"] += [
        {"name": str(Env.NODE_UID), "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]
    # Before the arguments that name it: the kubelet expands only what it has read.
    container["env"].insert(
        0, {"name": "AURL_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    )
    container["volumeMounts"] += SCRATCH_MOUNTS
    base["volumes"] += SCRATCH
    if start.role is Role.STORE:
        container["readinessProbe"] = {
            "tcpSocket": {"port": names.STORE_PORT},
            "periodSeconds": 1,
            "failureThreshold": 3,
        }
    elif spec.checkpoint.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": spec.checkpoint.secret}}]
    if spec.command is not None:
        container["volumeMounts"].append(agent_mount.MOUNT)
        base["volumes"].append(agent_mount.volume(job))
    base |= {
        "restartPolicy": "Never",
        "securityContext": POD_SECURITY,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds if is_node else 5,
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{state}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": LOST_SECONDS,
            }
            for state in ("not-ready", "unreachable")
        ],
    }
    if spec.scheduling.priority_class is not None:
        base["priorityClassName"] = spec.scheduling.priority_class
    if not base.get("nodeSelector"):
        base.pop("nodeSelector", None)
    if not is_node:
        _place_like_nodes(job, base)
    return base


def _place_like_nodes(job: AurlTrainingJob, base: Json) -> None:
    """Store and cleaner go where the nodes may go; all else of the template is about training."""
    wanted = job.spec.template.get("spec") or {}
    for field in ("nodeSelector", "schedulerName", "imagePullSecrets", "runtimeClassName"):
        if field in wanted:
            base[field] = wanted[field]
    base["tolerations"] += wanted.get("tolerations") or []


_OURS = ("restartPolicy", "hostNetwork", "hostPID", "hostIPC", "terminationGracePeriodSeconds")


def _refused_template(job: AurlTrainingJob) -> list[str]:
    template = job.spec.template
    problems = [
        f"spec.template.{key}: only metadata and spec can be overridden"
        for key in template
        if key not in ("metadata", "spec")
    ]
    spec = template.get("spec")
    if spec is not None and not isinstance(spec, dict):
        return [*problems, "spec.template.spec: expected a mapping, as in a pod"]
    spec = spec or {}
    problems += [f"spec.template.spec.{key}: is Aurl's to set" for key in _OURS if key in spec]
    for at, container in enumerate(spec.get("containers") or []):
        place = f"spec.template.spec.containers[{at}]"
        if not isinstance(container, dict) or not container.get("name"):
            problems.append(f"{place}: give its name; the training container is called trainer")
        elif container["name"] == names.TRAINER_CONTAINER:
            for key in ("command", "args", "image"):
                if key in container:
                    problems.append(f"{place}.{key}: use spec.image, spec.command or spec.training")
    return problems
