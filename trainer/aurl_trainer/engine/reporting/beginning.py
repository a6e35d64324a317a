"""What is told when a world begins: where it goes on from, and what was passed over for that.

Not here: what is told from then on (reporter.py), the comparison of the first steps (engine/resume/).
"""

from __future__ import annotations

from dataclasses import asdict

from aurl_trainer.checkpoint.checkpointer import Restored
from aurl_trainer.contract import Cause
from aurl_trainer.engine.reporting.incidents import Incidents, Note
from aurl_trainer.engine.resume.weights import Weights
from aurl_trainer.engine.resume.witness import Resume, Witness
from aurl_trainer.engine.runtime import Records, Runtime
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.state.run_state import RunState


def tell_beginning(
    runtime: Runtime,
    state: RunState,
    records: Records,
    incidents: Incidents,
    note: Note,
    *,
    at: Position,
    exact: bool,
) -> Witness | None:
    """Says and records what this world begins with; rank 0 gets a witness of the steps after a resume."""
    world, say = runtime.world, runtime.say if runtime.world.rank == 0 else _nobody
    records.write(
        "start",
        generation=state.generation,
        rank=world.rank,
        world=world.size,
        resumed_from=state.resumed_from,
        checkpoint=state.name,
        total_steps=state.experiment.engine.steps,
        loaded=None if state.restored is None else asdict(state.restored.loaded),
        initial=None if state.begun is None else state.begun.record(),
    )
    where = f"from step {at.step} ({state.name})" if state.name else "from the start"
    say(f"generation {state.generation}: {world.size} rank(s), {where}")
    for line in state.notes:
        say(line)
    for damage in state.restored.damaged if state.restored is not None else ():
        say(f"warning: {damage.message}")
        note(
            f"damaged/{damage.name}",
            Cause.CHECKPOINT_DAMAGED,
            damage.message,
            step=damage.step,
            checkpoint=damage.name,
        )
    if world.rank != 0 or state.restored is None:
        return None
    return _resume(state.restored, runtime, state, records, incidents, exact)


def _resume(
    restored: Restored, runtime: Runtime, state: RunState, records: Records, incidents: Incidents, exact: bool
) -> Witness:
    """Writes down what this generation goes on from, and has the first steps compared with the past."""
    weights, near = state.weights() or Weights(None), restored.sources
    records.write(
        "resume",
        step=restored.step,
        checkpoint=restored.name,
        manifest=restored.digest,
        weights=weights.digest,
        weights_match=None if weights.digest is None else weights.problem is None,
        seconds=restored.seconds,
        disk_bytes=near.disk,
        peer_bytes=near.peers,
        store_bytes=near.store or None,
        saved_seconds=near.saved,
    )
    if near.disk or near.peers:
        runtime.say(
            f"checkpoint: {near.peers / 1e6:,.1f} MB came from peers, {near.disk / 1e6:,.1f} MB from own "
            f"disks, {near.store / 1e6:,.1f} MB from the store; saved about {near.saved:.1f} s"
        )
    resume = Resume(
        generation=state.generation,
        step=restored.step,
        checkpoint=restored.name,
        weights=weights,
        world=runtime.world.size,
        surroundings=runtime.surroundings,
        exact=exact,
        deterministic=state.experiment.engine.deterministic,
    )
    return Witness(resume, runtime.past, records, incidents, runtime.say)


def _nobody(text: str) -> None:
    """The ranks but 0 say nothing."""
