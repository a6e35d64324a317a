"""Where things lie on the API server. Not here: what is done with them."""

from __future__ import annotations

from aurl_operator.api import names


def jobs(namespace: str | None = None) -> str:
    """All jobs, or those of one namespace."""
    return _group(f"apis/{names.GROUP}/{names.VERSION}", namespace, names.PLURAL)


def job(namespace: str, name: str, part: str = "") -> str:
    """One job, or a part of it: `status`, `scale`."""
    return f"{jobs(namespace)}/{name}{'/' if part else ''}{part}"


def pods(namespace: str | None = None) -> str:
    """All pods, or those of one namespace."""
    return _group("api/v1", namespace, "pods")


def pod(namespace: str, name: str, part: str = "") -> str:
    """One pod, or a part of it: `log`."""
    return f"{pods(namespace)}/{name}{'/' if part else ''}{part}"


def events(namespace: str) -> str:
    """Events of one namespace."""
    return _group("api/v1", namespace, "events")


def config_maps(namespace: str) -> str:
    """ConfigMaps of one namespace."""
    return _group("api/v1", namespace, "configmaps")


def nodes() -> str:
    """The cluster's machines."""
    return "/api/v1/nodes"


def leases(namespace: str) -> str:
    """Leases of one namespace."""
    return _group("apis/coordination.k8s.io/v1", namespace, "leases")


def pod_group(namespace: str, name: str) -> str:
    """One of Volcano's gangs."""
    return f"{_group('apis/scheduling.volcano.sh/v1beta1', namespace, 'podgroups')}/{name}"


def _group(api: str, namespace: str | None, plural: str) -> str:
    return f"/{api}/{plural}" if namespace is None else f"/{api}/namespaces/{namespace}/{plural}"
