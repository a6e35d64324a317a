"""What the core would do for a job, in words: `aurl explain`. Nothing is observed and nothing is started.

Not here: arguments and environment of the processes (launch/).
"""

from __future__ import annotations

from dataclasses import dataclass

from aurl_operator.api.recovery import Backoff, Recovery
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.memory import Memory
from aurl_operator.core.names import process_name
from aurl_operator.core.observed import CLUSTER, Capabilities, Observed, Role
from aurl_operator.core.policies import hang, recovery
from aurl_operator.core.policies.cleanup import TRIES
from aurl_operator.core.reconcile import reconcile
from aurl_trainer.contract import NOTICED, Cause, Phase


@dataclass(frozen=True)
class Rule:
    """One rule: when it acts, and what it does then."""

    name: str
    when: str
    then: str


@dataclass(frozen=True)
class Explanation:
    """What would start first, in order, and which rules would act when."""

    processes: tuple[str, ...]
    """Names of what would be started, the store first."""
    nodes: str
    rules: tuple[Rule, ...]


def explain(job: AurlTrainingJob, capabilities: Capabilities = CLUSTER) -> Explanation:
    """What would start for `job` on a backend with these `capabilities`, and which rules would act when."""
    spec = job.spec
    least, most = spec.nodes.min, spec.nodes.max
    ranks = f"{spec.procs_per_node} rank{'s' if spec.procs_per_node > 1 else ''} each"
    count = f"{most} node{'s' if most > 1 else ''}, {ranks}"
    names = [process_name(Role.STORE, 0, 0)] if most > 1 else []
    names += [process_name(Role.NODE, index, 0) for index in range(most)]
    first = reconcile(Observed(now=0.0, job=job, run_id="", memory=Memory(), capabilities=capabilities))
    return Explanation(
        processes=() if not first.starts else tuple(names),
        nodes=count if least == most else f"{count}; trains on with as few as {least}",
        rules=(
            *_start(job, capabilities),
            *_elastic(job),
            *_recovery(spec.recovery, reports=spec.training is not None),
            *_limits(job),
            *_cleanup(job, capabilities),
        ),
    )


def _start(job: AurlTrainingJob, capabilities: Capabilities) -> list[Rule]:
    spec = job.spec
    if spec.suspend:
        return [Rule("suspend", "from the start", "nothing starts until suspend is false")]
    if spec.scheduling.gang != "None":
        return [Rule("start", "nodes wait for machines", f"{spec.scheduling.gang} starts all or none")]
    then = (
        "the job fails: nothing will make room"
        if capabilities.start_timeout_final
        else "gives back all it holds, pauses 30 s (doubling, at most 15 min), tries again"
    )
    when = f"fewer than {spec.nodes.min} ready for {_time(spec.start_timeout_seconds)}"
    return [Rule("start time-out", when, then)]


def _elastic(job: AurlTrainingJob) -> list[Rule]:
    nodes = job.spec.nodes
    if nodes.max == 1:
        return [Rule("replacement", "the node is gone", "a new one starts from the newest checkpoint")]
    rules = [
        Rule(
            "notice", "a node is told that it must go", "its replacement starts at once; the ranks save first"
        ),
        Rule("store", "the rendezvous store is lost", "one incident; a new store, all agents anew"),
    ]
    if nodes.min < nodes.max:
        then = f"the others train on (down to {nodes.min}) while its replacement starts and joins"
        return [Rule("elastic", "a node is gone", then), *rules]
    return [Rule("replacement", "a node is gone", "the others wait for its replacement"), *rules]


def _recovery(rules: Recovery, *, reports: bool) -> list[Rule]:
    found: list[Rule] = []
    for name in dict.fromkeys(recovery.BUDGETS.values()):
        budget = recovery.budget(rules, name)
        causes = [c.value for c, b in recovery.BUDGETS.items() if b == name]
        fresh = budget.refill == "Progress" and reports
        per = "without a new checkpoint between them" if fresh else "in the whole run"
        end = "never fails the job" if budget.limit is None else f"fails after {budget.limit} restarts {per}"
        found.append(Rule(name.replace("_", " "), " or ".join(causes), f"{_wait(budget.backoff)}; {end}"))
    for rule in rules.rules:
        codes = ", ".join(map(str, rule.exit_codes))
        found.append(Rule("exit code", f"exit code {codes}", f"counts as {rule.cause}"))
    found.append(Rule("final error", Cause.FINAL_ERROR.value, "the job fails at once with its message"))
    if reports:
        limits = rules.hang.limits.seconds()
        slowest = ", ".join(f"{p.value} {_time(limits[p])}" for p in (Phase.STEP, Phase.EVALUATE, Phase.SAVE))
        found.append(
            Rule(
                "hang",
                f"no progress ({slowest}, ...)",
                f"the rank's own agent ends it; if none does, all are killed {_time(hang.MARGIN)} later",
            )
        )
        noticed = " or ".join(cause.value for cause in Cause if cause in NOTICED)
        found.append(Rule("checkpoints", noticed, "an incident; nothing restarts, no budget is charged"))
    return found


def _limits(job: AurlTrainingJob) -> list[Rule]:
    spec = job.spec
    finish = _time(spec.finish_timeout_seconds)
    grace = _time(spec.termination_grace_period_seconds)
    rules = [
        Rule("success", "the agents exit 0 after the last step", f"the last ones get {finish} to end"),
        Rule("grace", "a node is told to stop", f"it has {grace} to save"),
    ]
    if spec.active_deadline_seconds is not None:
        when = f"active for {_time(spec.active_deadline_seconds)}"
        rules.append(Rule("deadline", when, "nodes save, the job fails"))
    return rules


def _cleanup(job: AurlTrainingJob, capabilities: Capabilities) -> list[Rule]:
    if not capabilities.removes_jobs:
        return []
    cleanup = job.spec.cleanup
    pods = {
        "None": "all pods stay",
        "Running": "pods still running are deleted",
        "All": "all pods are deleted",
    }
    stay = cleanup.pods == "None" and job.spec.active_deadline_seconds is not None
    what = "all pods stay, but those that the deadline stops" if stay else pods[cleanup.pods]
    rules = [Rule("clean-up", "the job has ended", what)]
    if cleanup.ttl_seconds_after_finished is not None:
        rules.append(
            Rule("time to live", f"{_time(cleanup.ttl_seconds_after_finished)} later", "the job is deleted")
        )
    kept = {
        "Keep": "checkpoints stay",
        "KeepBest": f"all but the best checkpoints are deleted, in at most {TRIES} tries",
        "Delete": f"its checkpoints are deleted, in at most {TRIES} tries",
    }
    return [*rules, Rule("deletion", "the job is deleted", kept[cleanup.checkpoints])]


def _wait(backoff: Backoff) -> str:
    first, most = _time(backoff.initial_seconds), _time(backoff.max_seconds)
    return f"restarts after {first}, times {backoff.factor:g} for each in a row, at most {most}"


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
