"""Whatever sequence of events comes: a machine that invents histories and checks the laws of every run."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurl_operator.api.status import JobPhase
from aurl_operator.backends.simulated.history import Event, Kind, happen, settled
from aurl_operator.backends.simulated.operator import Operator
from aurl_operator.backends.simulated.world import Pace, World
from aurl_operator.core.observed import CLUSTER, LOCAL, Role
from tests.unit.operator.core.scene import make_job
from tests.unit.operator.simulated import laws

LOSSES: tuple[Kind, ...] = ("kill", "evict", "delete", "vanish", "preempt")
FAULTS: tuple[Kind, ...] = ("crash", "oom", "hang")
NOTICES: tuple[Kind, ...] = ("damage", "save-fails", "differs")
STORE_GOES: tuple[Kind, ...] = ("notice-store", "drain-store")
INDEX = st.integers(0, 3)
PAUSE = st.sampled_from([0.0, 0.0, 0.5, 3.0, 9.0, 20.0, 20.0, 40.0])
"""Seconds that pass, looked at all the while, before the next event."""
RANGES = st.sampled_from([1, 2, 3, {"min": 1, "max": 2}, {"min": 1, "max": 3}, {"min": 2, "max": 3}])


class AnyHistory(RuleBasedStateMachine):
    """One job in a simulated world to which anything happens."""

    operator: Operator

    @initialize(
        nodes=RANGES,
        local=st.booleans(),
        crashes=st.integers(0, 3),
        refill=st.sampled_from(["Progress", "Never"]),
        capacity=st.sampled_from([1, 3, 8, 8]),
        up=st.booleans(),
    )
    def begin(self, nodes: Any, local: bool, crashes: int, refill: str, capacity: int, up: bool) -> None:
        job = make_job(
            nodes=nodes,
            startTimeoutSeconds=300,
            terminationGracePeriodSeconds=20,
            recovery={"crashes": {"limit": crashes, "refill": refill}},
        )
        world = World(pace=Pace(steps=400), capacity=capacity)
        self.operator = Operator(world, job, LOCAL if local else CLUSTER)
        self.seen: set[str] = set()
        self.lost: set[str] = set()
        self.faults = 0
        self.finals = 0
        self.looks = 0
        self.look(times=2)
        if up:
            self.passes(25.0)

    def look(self, times: int = 1) -> None:
        self.seen.update(p.uid for p in self.operator.observe().processes)
        self.operator.look(times)
        laws.always(self.operator)

    def passes(self, seconds: float) -> None:
        until = self.operator.world.now + seconds
        while self.operator.world.now < until:
            self.operator.world.advance(min(until, self.operator.world.now + 1.0))
            self.looks += 1
            self.look(times=1 + (self.looks % 3 == 0))

    def make(self, kind: Kind, index: int = 0, value: float = 0.0) -> None:
        before = set(self.operator.world.ended)
        nodes = self.operator.world.of(Role.NODE)
        if nodes:
            index = nodes[index % len(nodes)].start.index
        happen(self.operator, Event(0.0, kind, index, value))
        ended = set(self.operator.world.ended) - before
        if kind in (*LOSSES, "kill-store"):
            self.lost |= ended
        elif kind in FAULTS:
            self.faults += len(ended)
        elif kind == "final":
            self.finals += len(ended)

    @rule(kind=st.sampled_from(LOSSES), index=INDEX, pause=PAUSE)
    def loses(self, kind: Kind, index: int, pause: float) -> None:
        self.passes(pause)
        self.make(kind, index)

    @rule(kind=st.sampled_from(FAULTS), index=INDEX, pause=PAUSE)
    def fails(self, kind: Kind, index: int, pause: float) -> None:
        self.passes(pause)
        self.make(kind, index)

    @rule(
        kinds=st.lists(st.tuples(st.sampled_from((*LOSSES, *FAULTS)), INDEX), min_size=2, max_size=4),
        pause=PAUSE,
    )
    def loses_several_at_once(self, kinds: list[tuple[Kind, int]], pause: float) -> None:
        self.passes(pause)
        for kind, index in kinds:
            self.make(kind, index)

    @rule(kind=st.sampled_from(NOTICES))
    def notices(self, kind: Kind) -> None:
        self.make(kind)

    @rule(index=INDEX, seconds=st.floats(1.0, 60.0))
    def announces(self, index: int, seconds: float) -> None:
        self.make("notice", index, seconds)

    @rule(pause=PAUSE)
    def loses_the_store(self, pause: float) -> None:
        self.passes(pause)
        self.make("kill-store")

    @rule(kind=st.sampled_from(STORE_GOES), seconds=st.floats(1.0, 60.0), pause=PAUSE)
    def tells_the_store_to_go(self, kind: Kind, seconds: float, pause: float) -> None:
        self.passes(pause)
        self.make(kind, value=seconds)

    @rule(really=st.integers(0, 3))
    def freezes(self, really: int) -> None:
        if really == 0:
            self.make("freeze")

    @precondition(lambda self: self.finals == 0)
    @rule(index=INDEX, really=st.integers(0, 9))
    def fails_for_good(self, index: int, really: int) -> None:
        if really == 0:
            self.make("final", index)

    @rule(room=st.integers(0, 5))
    def has_room(self, room: int) -> None:
        self.make("capacity", value=room)

    @rule(kind=st.sampled_from(["refuse", "accept", "suspend", "resume", "resume", "accept"]))
    def is_told(self, kind: Kind) -> None:
        self.make(kind)

    @rule(nodes=RANGES)
    def is_resized(self, nodes: Any) -> None:
        old = self.operator.job
        spec = {**old.to_object()["spec"], "nodes": nodes}
        self.operator.job = make_job(**spec)

    @rule(left=st.integers(0, 8))
    def loses_its_operator(self, left: int) -> None:
        self.make("operator-dies", value=left)

    @rule(seconds=st.one_of(st.floats(0.01, 8.0), st.floats(8.0, 60.0)), looks=st.integers(1, 8))
    def goes_on(self, seconds: float, looks: int) -> None:
        """Time passes, looked at a few times: between them, whatever happened went unseen."""
        for _ in range(looks):
            self.operator.world.advance(self.operator.world.now + seconds / looks)
            self.look()

    @rule(seconds=st.floats(60.0, 700.0), often=st.integers(0, 5))
    def is_left_alone(self, seconds: float, often: int) -> None:
        """Nobody looks for long: once in a while only, or a story would be over too soon."""
        if often == 0:
            self.operator.world.advance(self.operator.world.now + seconds)
            self.look()

    @rule(times=st.integers(1, 3))
    def is_looked_at(self, times: int) -> None:
        self.look(times)

    @invariant()
    def a_loss_of_a_machine_is_never_the_jobs_fault(self) -> None:
        if not hasattr(self, "operator"):
            return
        for entry in self.operator.ledger:
            if entry.kind == "node" and entry.cause in laws.FAULTS:
                assert entry.uids[0] not in self.lost, (
                    f"{entry.nodes} was lost and is booked as {entry.cause}"
                )
        charged = self.operator.memory.restarts
        assert charged.get("crash", 0) + charged.get("out-of-memory", 0) <= self.faults

    def teardown(self) -> None:
        """When the world is kind again, the job ends; and the books are right."""
        if not hasattr(self, "operator"):
            return
        operator = self.operator
        for kind in ("accept", "resume"):
            self.make(kind)
        self.make("capacity", value=8)
        until = operator.world.now + 50_000
        while not settled(operator):
            self.look()
            plan = operator.plan
            assert plan is not None
            assert operator.world.now < until, f"does not end: {plan.status.phase}: {plan.status.message}"
            wake = 5.0 if plan.wake_after is None else min(5.0, plan.wake_after)
            operator.world.advance(operator.world.now + max(0.1, wake))
        self.look()
        laws.at_the_end(operator, self.seen)
        outcome = operator.memory.outcome
        assert outcome is not None
        if outcome.phase is JobPhase.FAILED:
            reasons = {"FinalError": self.finals, "BudgetExhausted": 1, "StartTimeout": 1}
            assert reasons.get(outcome.reason), f"failed for no reason: {outcome}"


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,  # the same histories each time: a failure here is news about the change under test
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
