"""What the chart looks up in the cluster: a release never serves what another one serves already."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.apiserver.conftest import ROOT, Namespaces, kubectl

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")

MINE = "aurl-chart-test"
"""Release whose roles are there."""


@pytest.fixture(autouse=True)
def no_roles_are_left(apiserver: None) -> Iterator[None]:
    yield
    kinds = "clusterroles,clusterrolebindings"
    kubectl("delete", kinds, "-l", f"app.kubernetes.io/instance={MINE}", "--ignore-not-found")


def _template(release: str, where: str, *options: str) -> subprocess.CompletedProcess[str]:
    sets = [part for option in options for part in ("--set", option)]
    argv = ["helm", "template", release, str(ROOT / "charts"), "-n", where, "-s", "templates/rbac.yaml"]
    return subprocess.run([*argv, "--dry-run=server", *sets], capture_output=True, text=True, timeout=120)


def _install(where: str, *options: str) -> None:
    made = _template(MINE, where, *options)
    assert made.returncode == 0, made.stderr
    kubectl("apply", "-f", "-", stdin=made.stdout)


def _may(where: str, verb: str, what: str) -> bool:
    who = f"system:serviceaccount:{where}:{MINE}-operator"
    return kubectl("auth", "can-i", verb, what, "--as", who, check=False).stdout.strip() == "yes"


def test_nobody_serves_beside_a_release_for_the_whole_cluster(namespaces: Namespaces) -> None:
    own, other = namespaces(), namespaces()
    _install(own)
    words = f"release {MINE} serves the whole cluster already"
    for options in ((), (f"namespaces={{{other}}}",)):
        refused = _template("second", other, *options)
        assert words in refused.stderr, f"{options}: expected it to be refused, found {refused}"
    assert words in _template(MINE, other).stderr, "one of the same name elsewhere is another one"
    assert _template(MINE, own).returncode == 0, "expected an upgrade to be no conflict"


def test_no_namespace_is_served_twice(namespaces: Namespaces) -> None:
    own, shared, free = namespaces(), namespaces(), namespaces()
    _install(own, f"namespaces={{{own},{shared}}}", "watchNodes=yes")
    words = f"release {MINE} serves namespace {shared} already"
    both = _template("second", free, f"namespaces={{{free},{shared}}}")
    assert words in both.stderr, f"expected it to be refused, found {both}"
    every = _template("second", free)
    assert f"release {MINE} serves namespace" in every.stderr, f"expected it to be refused, found {every}"
    beside = _template("second", free, f"namespaces={{{free}}}")
    assert beside.returncode == 0, beside.stderr
    again = _template(MINE, own, f"namespaces={{{own},{shared}}}")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("watch", ["yes", "auto"])
def test_a_release_with_namespaces_may_watch_machines_if_it_is_to(namespaces: Namespaces, watch: str) -> None:
    own = namespaces()
    _install(own, f"namespaces={{{own}}}", f"watchNodes={watch}")
    rights = {verb: _may(own, verb, "nodes") for verb in ("list", "watch", "get", "delete")}
    watched = watch == "yes"
    assert rights == {"list": watched, "watch": watched, "get": False, "delete": False}
    assert not _may(own, "list", "pods"), "expected no right on all pods of the cluster"
