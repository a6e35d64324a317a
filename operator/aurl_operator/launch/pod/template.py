"""The job's `template` laid over a pod: what it may change, and what it may not.

A node gets all of it. The cleaner gets it too, for it reaches the same storage, without further containers,
which would keep it from ending, and without what the trainer asks of a machine. The store gets what decides
where pods go and how images are pulled. Whatever a template does, what makes a pod recognisable and safe to
replace stays as it was, or the template is refused. Not here: merging (`merge.py`), and whether a template
has the shape of a pod (`shape.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aurl_operator.api import names
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.observed import Role
from aurl_operator.launch.pod import shape
from aurl_operator.launch.pod.merge import merge
from aurl_trainer.errors import ConfigError

PATH = "spec.template"

PLACING = (
    "affinity",
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "imagePullSecrets",
    "nodeSelector",
    "preemptionPolicy",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "tolerations",
)
"""Fields of a template's pod spec that count for the store as well."""

_NOT_OF_A_CLEANER = ("resources", "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")


def apply(pod: dict[str, Any], job: AurlTrainingJob, role: Role) -> dict[str, Any]:
    """`pod` with what the job's template has for this role. Raises ConfigError."""
    template = job.spec.template
    if not template:
        return pod
    _known(template)
    made = merge(pod, _for(role, template), PATH)
    _guard(pod, made)
    return made


def _known(template: dict[str, Any]) -> None:
    extra = sorted(set(template) - {"metadata", "spec"})
    if extra:
        raise ConfigError([f"{PATH}: {', '.join(extra)}: a template has metadata and spec, as in a pod"])
    for name in ("metadata", "spec"):
        if not isinstance(template.get(name, {}), dict):
            raise ConfigError([f"{PATH}.{name}: expected fields, found {type(template[name]).__name__}"])
    extra = sorted(set(template.get("metadata", {})) - {"labels", "annotations"})
    if extra:
        raise ConfigError([f"{PATH}.metadata: {', '.join(extra)}: only labels and annotations can be set"])
    shape.check(template, PATH)


def _for(role: Role, template: dict[str, Any]) -> dict[str, Any]:
    if role is Role.NODE:
        return template
    spec = template.get("spec", {})
    if role is Role.STORE:
        return {**template, "spec": {name: spec[name] for name in PLACING if name in spec}}
    mine = {
        name: value
        for name, value in spec.items()
        if name not in ("containers", "initContainers", "topologySpreadConstraints", "resourceClaims")
    }
    containers = spec.get("containers") or []
    own = [c for c in containers if isinstance(c, dict) and c.get("name") == names.TRAINER_CONTAINER]
    if own:
        kept = {name: value for name, value in own[0].items() if name not in _NOT_OF_A_CLEANER}
        mine["containers"] = [{**kept, "name": names.CLEANER_CONTAINER}]
    return {**template, "spec": mine}


def _container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    found = pod.get("spec", {}).get("containers") or []
    return next((c for c in found if c.get("name") == name), {})


_POD_FIELDS = {
    "restartPolicy": "the operator starts pods again",
    "serviceAccountName": "set spec.serviceAccountName",
    "terminationGracePeriodSeconds": "set spec.terminationGracePeriodSeconds",
    "activeDeadlineSeconds": "set spec.activeDeadlineSeconds",
    "priorityClassName": "set spec.scheduling.priorityClass",
    "hostname": "pods are called by the operator",
    "subdomain": "pods are called by the operator",
}

_CONTAINER_FIELDS = {
    "command": "set spec.command",
    "args": "set spec.command",
    "image": "set spec.image",
    "restartPolicy": "the operator starts pods again",
    "terminationMessagePath": "the agent's last words go there",
    "terminationMessagePolicy": "the agent's last words go there",
}


def _guard(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuses a template that touched what the operator relies on."""
    name = before["spec"]["containers"][0]["name"]
    problems: list[str] = []

    def same(path: str, of: Callable[[dict[str, Any]], Any], words: str) -> None:
        if of(before) != of(after):
            problems.append(f"{PATH}.{path}: a template cannot change it: {words}")

    for kind in ("labels", "annotations"):
        same(f"metadata.{kind}", _ours(kind), f"{names.GROUP}/* and {names.MANAGED_BY} are the operator's")
    for field, words in _POD_FIELDS.items():
        same(f"spec.{field}", lambda pod, f=field: pod.get("spec", {}).get(f), words)  # type: ignore[misc]
    path = f"spec.containers[name={names.TRAINER_CONTAINER}]"
    if not _container(after, name):
        raise ConfigError([f"{PATH}.{path}: a template cannot remove it"])
    for field, hint in _CONTAINER_FIELDS.items():
        same(f"{path}.{field}", lambda pod, f=field: _container(pod, name).get(f), hint)  # type: ignore[misc]
    ours, theirs = _env(before, name), _env(after, name)
    problems += [
        f"{PATH}.{path}.env[name={entry}]: a template cannot change it: it is the operator's"
        for entry, value in ours.items()
        if theirs.get(entry) != value
    ]
    extra = sorted(set(theirs) - set(ours))
    problems += [
        f"{PATH}.{path}.env[name={e}]: a template cannot set it: it is the operator's" for e in extra
    ]
    for mount in _mounts(before, name):
        same(
            f"{path}.volumeMounts[mountPath={mount}]",
            lambda pod, m=mount: _mounts(pod, name).get(m),  # type: ignore[misc]
            "it is the operator's",
        )
    if problems:
        raise ConfigError(problems)


def _ours(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def of(pod: dict[str, Any]) -> dict[str, Any]:
        found = pod.get("metadata", {}).get(kind) or {}
        return {k: v for k, v in found.items() if k == names.MANAGED_BY or k.startswith(f"{names.GROUP}/")}

    return of


def _env(pod: dict[str, Any], container: str) -> dict[str, str]:
    """The environment that agent and ranks rely on."""
    found = _container(pod, container).get("env") or []
    return {
        e["name"]: json.dumps(e, sort_keys=True)
        for e in found
        if e.get("name", "").startswith("AURL_") or e.get("name") == "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
    }


def _mounts(pod: dict[str, Any], container: str) -> dict[str, Any]:
    """Folders of ours that others must not lie over, with the volumes behind them."""
    volumes = {v.get("name"): v for v in pod.get("spec", {}).get("volumes") or []}
    return {
        m["mountPath"]: (m, volumes.get(m.get("name")))
        for m in _container(pod, container).get("volumeMounts") or []
        if m.get("mountPath", "").startswith(("/aurl", "/run/aurl"))
    }
