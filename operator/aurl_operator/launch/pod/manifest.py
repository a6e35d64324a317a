"""One start of the core as a whole Pod: TorchX's pod, then what the operator decides, then the template.

Requests, limits and security context are always ours: TorchX takes some off the requests and leaves the
security context empty. A pod is reached by its own address; there is no service. Not here: sending it to
the API server (`backends/kubernetes`), the roles' programs (`launch/appdef.py`).
"""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient
from torchx.schedulers.kubernetes_scheduler import role_to_pod
from torchx.specs import Role as TorchxRole

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.appdef import NODES, STORE, Launch, app_def, literal
from aurl_operator.launch.command import Command
from aurl_operator.launch.experiment import experiment
from aurl_operator.launch.node import Place, command
from aurl_operator.launch.pod import agent_mount, gang, surroundings, template
from aurl_operator.launch.pod.identity import metadata
from aurl_trainer.contract import Env
from aurl_trainer.errors import ConfigError

CONTAINERS = {
    Role.NODE: names.TRAINER_CONTAINER,
    Role.STORE: names.STORE_CONTAINER,
    Role.CLEANER: names.CLEANER_CONTAINER,
}
"""The name of our container in a pod of each role."""

RANK_PREFIX = "[{node} rank ${{rank}}]: "

_ENV_BYTES = 120_000
"""Linux takes no longer variable than 128 KiB; a pod with one could not start, and would not say why."""

_POD_IP = "AURL_POD_IP"


@dataclass(frozen=True)
class PodDefaults:
    """What the operator's settings say about every pod."""

    image: str | None = None
    """Image of a job that names none."""
    user: int = 10001
    """User and group of processes in pods."""


def pod(job: AurlTrainingJob, start: Start, defaults: PodDefaults) -> dict[str, Any]:
    """The Pod of `start`. Raises ConfigError if the job's experiment or template is not valid."""
    image = job.spec.image or defaults.image
    if not image:
        raise ConfigError(["spec.image: name one: this operator has no default image"])
    role, made = _program(job, start)
    name = CONTAINERS[start.role]
    plain = _plain(name, role)
    container = plain["spec"]["containers"][0]
    volumes, mounts = surroundings.folders()
    if job.spec.command is not None and start.role is not Role.CLEANER:
        volumes.append(agent_mount.volume(job))
        mounts.append({"name": agent_mount.VOLUME, "mountPath": agent_mount.FOLDER, "readOnly": True})
    container |= {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(made.argv),
        "env": _env(start, made),
        "resources": _resources(job) if start.role is Role.NODE else surroundings.SMALL,
        "securityContext": surroundings.security(),
        "terminationMessagePath": surroundings.TERMINATION_LOG,
        "terminationMessagePolicy": "File" if start.role is Role.NODE else "FallbackToLogsOnError",
        "volumeMounts": mounts,
        **_ports(start.role),
    }
    meta = metadata(job, start)
    meta["annotations"] = {**plain["metadata"]["annotations"], **meta["annotations"]}
    spec: dict[str, Any] = {
        "containers": [container],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": (
            # Of a store, too: while it is drained its nodes save.
            5 if start.role is Role.CLEANER else job.spec.termination_grace_period_seconds
        ),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": surroundings.pod_security(defaults.user),
        "volumes": volumes,
    }
    if job.spec.service_account_name is not None and start.role is not Role.STORE:
        spec["serviceAccountName"] = job.spec.service_account_name
    if job.spec.scheduling.priority_class is not None:
        spec["priorityClassName"] = job.spec.scheduling.priority_class
    whole: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    whole = template.apply(gang.in_gang(whole, job, start), job, start.role)
    whole["spec"]["tolerations"] = surroundings.tolerations(whole["spec"].get("tolerations") or [])
    if job.spec.checkpoint.secret is not None and start.role is not Role.STORE:
        own = next(c for c in whole["spec"]["containers"] if c["name"] == name)
        own["envFrom"] = surroundings.sources(own.get("envFrom") or [], job.spec.checkpoint.secret)
    return whole


def _program(job: AurlTrainingJob, start: Start) -> tuple[TorchxRole, Command]:
    """The TorchX role of `start`, and its command on this very pod as Kubernetes writes it."""
    if start.role is Role.CLEANER:
        return _cleaner(job, start)
    found = experiment(job) if start.role is Role.NODE else None
    mounted = job.spec.command is not None
    own = literal(f"$({_POD_IP})")
    launch = Launch(
        run=str(job.metadata.uid),
        rendezvous=start.rdzv_id,
        nodes=(start.nodes_min, start.nodes_max),
        store=f"{own}:{names.STORE_PORT}" if start.role is Role.STORE else start.store,
        address=own,
        agent=(agent_mount.FOLDER,) if mounted else ("-m", "aurl_trainer.agent"),
        run_dir=surroundings.RUN_DIR,
        log_dir=f"{surroundings.RUN_DIR}/logs/ranks",
        experiment=None if found is None else found.model_dump(mode="json"),
    )
    roles = {role.name: role for role in app_def(job, launch).roles}
    role = roles[NODES if start.role is Role.NODE else STORE]
    made = command(role, _place(start))
    return role, Command(_as_written(made.argv, start.role), {n: _escaped(v) for n, v in made.env.items()})


def _cleaner(job: AurlTrainingJob, start: Start) -> tuple[TorchxRole, Command]:
    found = experiment(job)
    uri = job.spec.checkpoint.uri if found is None else found.checkpoint.uri
    arguments = ["-m", "aurl_trainer", "purge", "--uri", literal(uri or "")]
    if start.keep_best:
        keep = None if found is None else found.checkpoint.keep
        arguments += ["--keep-best", str(max(1, keep.best) if keep else 1)]
        for name, weight in keep.by.items() if keep else ():
            arguments += ["--by", literal(f"{name}={weight!r}")]
    role = TorchxRole(
        name=CONTAINERS[Role.CLEANER],
        image="",
        entrypoint="python",
        args=arguments,
        env={str(Env.JOB): job.metadata.name, str(Env.RUN_ID): str(job.metadata.uid)},
    )
    made = command(role, _place(start))
    argv = tuple(_escaped(part) for part in made.argv)
    return role, Command(argv, {n: _escaped(v) for n, v in made.env.items()})


def _place(start: Start) -> Place:
    node = start.name.rpartition("-")[0]
    is_node = start.role is Role.NODE
    return Place(
        name=node,
        index=start.index,
        attempt=start.attempt,
        trained=start.trained,
        uid="",
        termination_log=surroundings.TERMINATION_LOG,
        progress_port=names.PROGRESS_PORT if is_node else None,
        log_line_prefix=RANK_PREFIX.format(node=node) if is_node else None,
    )


def _escaped(text: str) -> str:
    """`text` so that the kubelet, which takes `$(NAME)` for its own, leaves it as it is."""
    return text.replace("$", "$$")


def _as_written(argv: tuple[str, ...], role: Role) -> tuple[str, ...]:
    """Arguments for the kubelet. Only our own option, the first of its name, is for it to fill in."""
    flag = "--host" if role is Role.STORE else "--local-addr"
    own = argv.index(flag) + 1 if flag in argv else None
    return tuple(part if at == own else _escaped(part) for at, part in enumerate(argv))


def _env(start: Start, made: Command) -> list[dict[str, Any]]:
    plain = {
        # The user of a pod is in no image's list of users: it has no home and no name.
        "HOME": "/tmp",
        "USER": "aurl",
        **{name: value for name, value in made.env.items() if name != Env.NODE_UID},
    }
    if start.role is Role.NODE:
        # Where the operator asks: IPv4 or IPv6, as the cluster has it.
        plain[Env.PROGRESS_HOST] = f"$({_POD_IP})"
        plain[Env.BARRED] = ",".join(start.barred)
        plain[Env.UPLOAD] = "1"
        if Env.EXPERIMENT in plain:
            # A pod starts with an empty cache: the others need not wait while it reads all the music.
            plain[Env.PREPARE] = json.dumps(["python", "-m", "aurl_trainer", "prepare"])
    for name, value in plain.items():
        if len(value.encode()) > _ENV_BYTES:
            raise ConfigError(
                [
                    f"spec.training: the experiment takes {len(value.encode())} bytes as {name}; "
                    f"at most {_ENV_BYTES} reach a pod"
                ]
            )
    of_the_pod = {str(Env.NODE_UID): "metadata.uid", _POD_IP: "status.podIP"}
    return [
        *({"name": n, "valueFrom": {"fieldRef": {"fieldPath": path}}} for n, path in of_the_pod.items()),
        *({"name": name, "value": value} for name, value in plain.items() if value),
    ]


def _resources(job: AurlTrainingJob) -> dict[str, Any]:
    given = job.spec.resources
    both = {"requests": given.requests, "limits": given.limits}
    return {k: {name: str(amount) for name, amount in v.items()} for k, v in both.items() if v}


def _ports(role: Role) -> dict[str, Any]:
    if role is Role.NODE:
        return {"ports": [{"name": "progress", "containerPort": names.PROGRESS_PORT}]}
    if role is Role.STORE:
        probe = {"tcpSocket": {"port": names.STORE_PORT}, "periodSeconds": 1, "failureThreshold": 3}
        return {
            "ports": [{"name": "c10d", "containerPort": names.STORE_PORT}],
            "readinessProbe": probe,
        }
    return {"ports": []}


@functools.cache
def _client() -> ApiClient:
    return ApiClient()


def _plain(name: str, role: TorchxRole) -> dict[str, Any]:
    """TorchX's pod of a role as plain JSON, without the program, which `pod` puts in itself."""
    return copy.deepcopy(_made(name, role.name, role.image, tuple(sorted(role.port_map.items()))))


@functools.lru_cache(maxsize=256)
def _made(name: str, role: str, image: str, ports: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Made once for each kind of role: the client's models are slow to build."""
    bare = TorchxRole(name=role, image=image, port_map=dict(ports))
    made: dict[str, Any] = _client().sanitize_for_serialization(role_to_pod(name, bare, None))
    return made
