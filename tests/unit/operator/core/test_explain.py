from __future__ import annotations

from aurl_operator.core.explain import explain
from aurl_operator.core.observed import CLUSTER, LOCAL
from tests.unit.operator.core.scene import make_job


def test_it_says_what_starts_and_what_each_budget_allows() -> None:
    found = explain(make_job(nodes={"min": 1, "max": 2}, recovery={"crashes": {"limit": 7}}), LOCAL)
    assert found.processes == ("store-0-0", "worker-0-0", "worker-1-0")
    rules = {r.name: r for r in found.rules}
    assert "fails after 7 restarts without a new checkpoint" in rules["crashes"].then
    assert "never fails the job" in rules["preemptions"].then
    assert "nothing will make room" in rules["start time-out"].then
    assert "train on (down to 1)" in rules["elastic"].then


def test_it_speaks_of_the_cluster_where_that_differs() -> None:
    found = explain(make_job(nodes=2, cleanup={"ttlSecondsAfterFinished": 3600}), CLUSTER)
    rules = {r.name: r for r in found.rules}
    assert "gives back all it holds" in rules["start time-out"].then
    assert rules["time to live"].when == "60 min later"


def test_it_says_which_pods_stay() -> None:
    def stay(**spec: int) -> str:
        rules = explain(make_job(cleanup={"pods": "None"}, **spec), CLUSTER).rules
        return next(r.then for r in rules if r.name == "clean-up")

    assert stay() == "all pods stay"
    assert stay(activeDeadlineSeconds=60) == "all pods stay, but those that the deadline stops"


def test_a_suspended_job_starts_nothing() -> None:
    assert explain(make_job(suspend=True)).processes == ()


def test_a_command_job_is_told_that_its_budgets_never_refill() -> None:
    rules = {r.name: r for r in explain(make_job(command=["train.py"])).rules}
    assert rules["crashes"].then.endswith("fails after 3 restarts in the whole run")
