"""Scenes for tests of the core: jobs, processes and ends in few words, and a desk that keeps the memory."""

from __future__ import annotations

from typing import Any

from aurl_operator.api.spec import API_VERSION, KIND, AurlTrainingJob
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import (
    CLUSTER,
    Capabilities,
    End,
    Notice,
    Observed,
    Process,
    Refusal,
    Role,
    State,
    Waiting,
)
from aurl_operator.core.plan import Plan, Start
from aurl_operator.core.reconcile import reconcile
from aurl_trainer.contract import Cause, ExitCode, Phase, Progress, Termination

T0 = 1_000_000.0


def make_job(**spec: Any) -> AurlTrainingJob:
    program = {} if "command" in spec else {"training": {"preset": "quick_test"}}
    return AurlTrainingJob.model_validate(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "bach"}, "spec": {**program, **spec}}
    )


def died(at: float, cause: Cause = Cause.CRASH, message: str = "boom", step: int | None = None) -> End:
    """An end that the agent explained."""
    codes = {
        Cause.CRASH: ExitCode.CRASH,
        Cause.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
        Cause.HANG: ExitCode.HANG,
        Cause.FINAL_ERROR: ExitCode.FINAL,
        Cause.STORE_LOST: ExitCode.STORE_LOST,
        Cause.PREEMPTED: ExitCode.PREEMPTED,
    }
    record = Termination(cause, message, codes[cause], at, rank=0, step=step, traceback="Traceback: boom")
    return End(at, exit_code=codes[cause], termination=record)


def killed(at: float) -> End:
    """SIGKILL without a word."""
    return End(at, signal=9)


def progress(
    at: float, step: int, generation: int = 1, durable: int | None = None, **others: Any
) -> Progress:
    values = {"rank": 0, "world": 2, "phase": Phase.STEP, "total_steps": 1000, **others}
    return Progress(at=at, step=step, generation=generation, last_durable_step=durable, **values)


class Desk:
    """One job under a core: keeps memory and processes; time moves with `now`."""

    def __init__(self, job: AurlTrainingJob, capabilities: Capabilities = CLUSTER) -> None:
        self.job = job
        self.capabilities = capabilities
        self.now = T0
        self.memory = Memory()
        self.processes: dict[str, Process] = {}
        self.refusals: tuple[Refusal, ...] = ()
        self.generation: int | None = None
        self.resume: str | None = None
        self.suspended = False
        self.deleting = False
        self.progress: Progress | None = None
        self.reached_since: float | None = T0
        self.plan: Plan | None = None

    def look(self, after: float = 0.0) -> Plan:
        """Reconciles once, `after` seconds later, over what is there."""
        self.now += after
        metadata = self.job.metadata.model_copy(update={"generation": self.generation})
        plan = reconcile(
            Observed(
                now=self.now,
                job=self.job.model_copy(update={"metadata": metadata}),
                run_id="run",
                memory=self.memory,
                processes=tuple(self.processes.values()),
                progress=self.progress,
                reached_since=self.reached_since,
                refusals=self.refusals,
                resume=self.resume,
                suspended=self.suspended,
                deleting=self.deleting,
                capabilities=self.capabilities,
            )
        )
        restored = Memory.from_json(plan.memory.to_json())
        assert restored == plan.memory, "the memory must survive its JSON"
        self.memory = plan.memory
        self.plan = plan
        return plan

    def start(self, plan: Plan, **state: Any) -> None:
        """Does the plan's starts: the processes are ready at once unless `state` says otherwise."""
        for start in plan.starts:
            self.put(start, **state)

    def put(
        self,
        start: Start,
        state: State = State.RUNNING,
        ready: bool = True,
        waiting: Waiting | None = None,
        notice: Notice | None = None,
    ) -> Process:
        process = Process(
            role=start.role,
            uid=f"{start.name}-uid",
            name=start.name,
            index=start.index,
            attempt=start.attempt,
            round=start.round,
            state=state,
            ready=ready,
            since=self.now if state is State.RUNNING else None,
            waiting=waiting,
            notice=notice,
            address="127.0.0.1:1" if start.role is Role.STORE else None,
        )
        self.processes[process.uid] = process
        return process

    def change(self, name: str, **changes: Any) -> None:
        """Changes what is seen of a process."""
        old = self.processes[f"{name}-uid"]
        values = {f: getattr(old, f) for f in Process.__dataclass_fields__}
        self.processes[old.uid] = Process(**{**values, **changes})

    def end(self, name: str, end: End) -> None:
        """A process ends."""
        self.change(name, state=State.ENDED, end=end)

    def stop(self, plan: Plan) -> None:
        """Does the plan's stops, at once."""
        for stop in plan.stops:
            self.end(stop.name, End(self.now, exit_code=ExitCode.PREEMPTED))

    def running(self) -> Plan:
        """Brings the job up: store, then nodes, all ready."""
        plan = self.look()
        for _ in range(4):
            self.start(plan)
            plan = self.look(1.0)
            if not plan.starts:
                return plan
        raise AssertionError("the job does not come up")

    def names(self) -> list[str]:
        """Names of the processes that have not ended."""
        return sorted(p.name for p in self.processes.values() if p.end is None)


def reasons(plan: Plan) -> dict[str, str]:
    """Reason by type of the conditions that are true."""
    return {c.type: c.reason for c in plan.status.conditions if c.status == "True"}


def kinds(plan: Plan, kind: str) -> list[str]:
    """Causes of the plan's ledger entries of one kind."""
    return [e.cause or "" for e in plan.ledger if e.kind == kind]
