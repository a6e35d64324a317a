"""From a TorchX AppDef to an AurlTrainingJob: plain values in, plain values out.

`aurl.train` says in its role's metadata what it is; every other app must be one role that starts torchrun, as
`dist.ddp` and `dist.spmd` do. What a job cannot say is refused by name rather than dropped. Not here: sending
it (scheduler.py).
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from torchx.specs import AppDef, Role
from torchx.version import TORCHX_IMAGE

from aurl_operator.api import names
from aurl_operator.errors import UsageError

SPEC = "aurl.dev/spec"
"""Metadata of a role that brings its own spec."""

_TORCHRUN = ("torchrun", "torch.distributed.run")
_OURS = ("rdzv_endpoint", "rdzv_id", "tee", "role", "log_dir", "redirects", "local_addr", "rdzv_conf")
"""Options of torchrun that are the operator's business."""

_NOT_GIVEN = {"LOGLEVEL": "WARNING"}
_CPU, _MEMORY = 2, 1024
"""dist.ddp's defaults, which nobody chose: they are not asked for."""


def job_object(app: AppDef, options: Mapping[str, Any]) -> dict[str, Any]:
    """The job that `app` is. `options`: those of the scheduler. Raises UsageError."""
    if len(app.roles) != 1:
        found = ", ".join(role.name for role in app.roles)
        raise UsageError(f"an Aurl job has one role; this app has {len(app.roles)}: {found}")
    role = app.roles[0]
    given = role.metadata.get(SPEC)
    spec = dict(given) if isinstance(given, Mapping) else _spec(role)
    name = app.name if isinstance(given, Mapping) else f"{app.name[:40]}-{secrets.token_hex(3)}"
    if options.get("image"):
        spec["image"] = options["image"]
    if options.get("secret"):
        spec["checkpoint"] = {**spec.get("checkpoint", {}), "secret": options["secret"]}
    if options.get("checkpoint"):
        spec["checkpoint"] = {**spec.get("checkpoint", {}), "uri": options["checkpoint"]}
    if options.get("priority_class"):
        spec["scheduling"] = {"priorityClass": options["priority_class"]}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": _name(name)},
        "spec": {"cleanup": {"pods": options.get("pods") or "Running"}, **spec},
    }


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:63] or "job"


def _spec(role: Role) -> dict[str, Any]:
    _refuse(role)
    options, command = _torchrun(_words(role), role.name)
    least, _, most = str(options.get("nnodes", role.num_replicas)).partition(":")
    spec: dict[str, Any] = {
        "nodes": {"min": _number(least, "nnodes"), "max": _number(most or least, "nnodes")},
        "command": command,
    }
    if role.image and role.image != TORCHX_IMAGE:
        spec["image"] = role.image
    if "nproc_per_node" in options:
        spec["procsPerNode"] = _number(options["nproc_per_node"], "nproc_per_node")
    resources = _resources(role)
    if resources:
        spec["resources"] = resources
    env = [
        {"name": name, "value": value.replace("$$", "$")}
        for name, value in sorted(role.env.items())
        if not name.startswith("TORCHX_") and _NOT_GIVEN.get(name) != value
    ]
    if env:
        container = {"name": names.TRAINER_CONTAINER, "env": env}
        spec["template"] = {"spec": {"containers": [container]}}
    return spec


def _number(text: str, option: str) -> int:
    if not text.isdecimal():
        raise UsageError(
            f"{option}={text}: an Aurl job has a number here, as in 2; it does not count devices"
        )
    return int(text)


def _refuse(role: Role) -> None:
    if role.mounts:
        raise UsageError("mounts are not taken from TorchX: write a job with `template` volumes")
    if role.max_retries:
        raise UsageError(
            f"max_retries={role.max_retries}: Aurl restarts by cause, see spec.recovery in "
            "docs/job-reference.md"
        )


def _words(role: Role) -> list[str]:
    """The command line of the role's torchrun, a shell around it taken off."""
    words = [role.entrypoint, *role.args]
    if role.entrypoint in ("bash", "sh", "/bin/bash", "/bin/sh") and role.args[:1] in (["-c"], ["-lc"]):
        words = shlex.split(role.args[1].replace("$$", "$"))
    for start in range(len(words)):
        if words[start].rpartition("/")[2] in _TORCHRUN:
            return words[start + 1 :]
    raise UsageError(f"role {role.name} does not start torchrun: an Aurl job is a torchrun script")


def _torchrun(words: Sequence[str], role: str) -> tuple[dict[str, str], list[str]]:
    """torchrun's own options, and what comes after them."""
    options: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-m", "--module"):
        name, equals, value = words[at].lstrip("-").partition("=")
        if not equals:
            if at + 1 >= len(words):
                raise UsageError(f"role {role}: torchrun's --{name} has no value")
            at += 1
            value = words[at]
        options[name.replace("-", "_")] = value
        at += 1
    command = ["-m" if word == "--module" and not n else word for n, word in enumerate(words[at:])]
    if options.get("rdzv_backend", "c10d") != "c10d":
        raise UsageError(f"rdzv_backend={options['rdzv_backend']}: Aurl's nodes meet by c10d only")
    unknown = sorted(set(options) - {*_OURS, "nnodes", "nproc_per_node", "rdzv_backend"})
    if unknown:
        raise UsageError(f"role {role}: torchrun's --{unknown[0]} cannot be said in an Aurl job")
    if not command:
        raise UsageError(f"role {role}: torchrun is given no script")
    return options, command


def _resources(role: Role) -> dict[str, Any]:
    asked = role.resource
    found: dict[str, str] = {}
    if asked.cpu > 0 and asked.cpu != _CPU:
        found["cpu"] = str(asked.cpu)
    if asked.memMB > 0 and asked.memMB != _MEMORY:
        found["memory"] = f"{asked.memMB}Mi"
    resources: dict[str, Any] = {"requests": dict(found)} if found else {}
    limits = {name: amount for name, amount in found.items() if name == "memory"}
    if asked.gpu > 0:
        limits["nvidia.com/gpu"] = str(asked.gpu)
    limits |= {name: str(count) for name, count in (asked.devices or {}).items()}
    return {**resources, "limits": limits} if limits else resources
