"""Which cluster is spoken to: that of the context, of KUBECONFIG, or the one around us."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from aurl_operator.backends.kubernetes.client.connection import connection
from aurl_operator.errors import MissingError


def kubeconfig(path: Path, current: str | None, **namespaces: str | None) -> None:
    """A file of one cluster and one context for each name."""
    contexts = [
        {"name": name, "context": {"cluster": name, "user": "me", **({"namespace": own} if own else {})}}
        for name, own in namespaces.items()
    ]
    clusters = [{"name": name, "cluster": {"server": f"http://{name}.example"}} for name in namespaces]
    users = [{"name": "me", "user": {"token": "t"}}]
    body = {"apiVersion": "v1", "kind": "Config", "contexts": contexts, "clusters": clusters, "users": users}
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**body, **({"current-context": current} if current else {})}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a kubeconfig of two clusters, and no other to be found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    kubeconfig(tmp_path / ".kube" / "config", "near", near=None, spot="music")
    return tmp_path


@pytest.fixture
def pod(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same home in a pod, which has no service account here."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return home


def found(context: str | None = None) -> tuple[str, str]:
    made = asyncio.run(connection(context))
    return made.host, made.namespace


def test_the_context_that_is_named_or_the_current_one(home: Path) -> None:
    assert found() == ("http://near.example", "default")
    assert found("spot") == ("http://spot.example", "music")


def test_a_context_is_found_in_a_pod_too(pod: Path) -> None:
    assert found("spot") == ("http://spot.example", "music")


def test_a_pod_speaks_to_the_cluster_around_it_unless_told_otherwise(
    pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingError, match="Service token file does not exist"):
        found()
    kubeconfig(pod / "other", "far", far="x")
    monkeypatch.setenv("KUBECONFIG", str(pod / "other"))
    assert found() == ("http://far.example", "x")
    monkeypatch.setenv("KUBECONFIG", "")
    with pytest.raises(MissingError, match="Service token file does not exist"):
        found()


def test_a_context_needs_no_current_one(home: Path) -> None:
    kubeconfig(home / ".kube" / "config", None, spot="music")
    assert found("spot") == ("http://spot.example", "music")


def test_a_context_that_is_not_there_is_named_with_those_that_are(pod: Path) -> None:
    with pytest.raises(MissingError, match=r"no context spto in ~/\.kube/config; it has near, spot"):
        found("spto")
    (pod / ".kube" / "config").unlink()
    with pytest.raises(MissingError, match=r"no context spot in .*; set KUBECONFIG"):
        found("spot")
