"""One rank of a training run, put together from the experiment: which parts stand where.

Everything that a rank imports is imported here: an agent's fork server needs no more than this module.
Not here: the loop (engine/trainer.py), how a rank ends (engine/survival/), the command (train.py).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer step would import it

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.initial import Initialised, load_initial
from aurl_trainer.checkpoint.waiting import Waiting
from aurl_trainer.checkpoint.weights import Vocabulary
from aurl_trainer.commands.prepare import shared_music
from aurl_trainer.config.experiment import Experiment, given, load_config
from aurl_trainer.config.reference import Reference
from aurl_trainer.contract import Env, Phase, RunFile
from aurl_trainer.data.content import content_of
from aurl_trainer.data.dataset import LazyMidiDataset
from aurl_trainer.data.prepared import PreparedData, prepare
from aurl_trainer.engine.exact.platform import platforms, summary
from aurl_trainer.engine.intervals import of_rank_0
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.randomness import make_deterministic, seed_all
from aurl_trainer.engine.resume.music import Here, agreed
from aurl_trainer.engine.resume.past import Past, read_past, surroundings
from aurl_trainer.engine.runtime import Music, Runtime
from aurl_trainer.engine.survival.earlier import trained_before
from aurl_trainer.engine.survival.exits import leave_saved
from aurl_trainer.engine.survival.heartbeat import Heartbeat
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.engine.trainer import AdvancedTrainer, Outcome
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.monitor.progress import ProgressServer
from aurl_trainer.monitor.records import RecordWriter
from aurl_trainer.monitor.setup import describe
from aurl_trainer.monitor.uploads import uploading
from aurl_trainer.music.baselines import measure
from aurl_trainer.music.metrics import measure_all
from aurl_trainer.music.sampled import draw_pieces, write_pieces
from aurl_trainer.store.choose import checkpoints_of
from aurl_trainer.store.kept import KeptPacks
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.presence import BEAT_SECONDS


def train(config: str | None, beats: Heartbeat) -> None:
    """Train to the end, as the rank that the environment says. Raises what survival/exits.py knows."""
    experiment = given() if config is None else load_config(config)
    notice = Notice(float(os.environ.get(Env.GRACE_SECONDS, "inf"))).listen()
    run_dir = Path(os.environ.get(Env.RUN_DIR, "."))
    make_deterministic(experiment.engine.deterministic)
    if experiment.engine.threads is not None:
        torch.set_num_threads(experiment.engine.threads)

    def loads() -> None:
        beats.phase(Phase.LOAD, 0)

    def waits() -> None:
        beats.phase(Phase.SYNC, 0)

    loads()
    prepared = prepare(experiment.data, experiment.seed, shared=shared_music(experiment), alive=loads)
    training, validation = LazyMidiDataset(prepared, "train"), LazyMidiDataset(prepared, "validation")
    # Who has its music waits for those that still prepare theirs, for as long as these get on.
    waits()
    world = World.join(experiment.engine.device)
    loads()
    group = world.host_group()
    content = content_of(training, validation)
    here = Here(content, prepared.key, str(prepared.folder), os.environ.get(Env.NODE, ""))
    ranks = Ranks(world.rank, world.size, group)
    agreed(here, ranks)
    experiment = of_rank_0(experiment, ranks)
    seed_all(experiment.seed, "weights")
    model = MusicTransformerVAEGAN(
        experiment.model, prepared.vocab_size, prepared.pad_id, experiment.data.sequence_length
    )
    peers = experiment.checkpoint.peers
    run = os.environ.get(Env.RUN_ID, run_dir.resolve().name)
    checkpointer = Checkpointer(
        experiment.checkpoint.uri or str(run_dir / RunFile.CHECKPOINTS),
        run=run,
        fingerprint=experiment.identity(),
        settings=experiment.checkpoint,
        rank=world.rank,
        world=world.size,
        group=group,
        kept=KeptPacks(run_dir / RunFile.KEPT, int(peers.most_gib * 2**30)) if peers.enabled else None,
        serves=world.local_rank == 0,
        beats=float(os.environ.get(Env.PRESENCE, BEAT_SECONDS)),
        waiting=Waiting(trained_before(), loads, _say, waits),
    )
    checkpointer.probe()
    port = os.environ.get(Env.PROGRESS_PORT)
    host = os.environ.get(Env.PROGRESS_HOST, "127.0.0.1")
    uploads = uploading(experiment.checkpoint.uri, run_dir, run) if world.local_rank == 0 else None
    served = int(port) if port and world.local_rank == 0 else None
    server = ProgressServer(served, host, alive=lambda: beats.alive_at)

    def sample(judged: torch.nn.Module, step: int) -> Music:
        assert isinstance(judged, MusicTransformerVAEGAN)
        pieces = draw_pieces(judged, prepared, experiment.samples, experiment.seed, step)

        def write() -> list[str]:
            alive = functools.partial(beats.phase, Phase.EVALUATE, step)
            files = write_pieces(pieces, run_dir / RunFile.SAMPLES, step, alive=alive)
            return [str(f.relative_to(run_dir)) for f in files]

        return Music(measure_all(pieces), write)

    records: list[RecordWriter] = []
    told = describe(model, prepared, training, validation, world.device, summary(platforms(world)))

    def open_records(generation: int) -> RecordWriter:
        node = os.environ.get(Env.NODE, "")
        records.append(RecordWriter(run_dir / RunFile.RECORDS, generation, world.rank, node))
        if world.rank == 0:
            records[0].write("setup", **told)
        return records[0]

    def past(generation: int) -> Past:
        kept = Location(experiment.checkpoint.uri) if uploads and experiment.checkpoint.uri else None
        return read_past(run_dir / RunFile.RECORDS, kept, generation)

    runtime = Runtime(
        world=world,
        beats=beats,
        open_records=open_records,
        progress=server,
        notice=notice,
        past=past,
        surroundings=surroundings(told["versions"]),
        sample=sample,
        say=_say,
    )
    trainer = AdvancedTrainer(
        model,
        ComprehensiveLossFramework(experiment.loss),
        train=training,
        validation=validation,
        runtime=runtime,
        checkpointer=checkpointer,
        initial=_initial(experiment, model, prepared, loads, waits),
        about={
            "vocab_size": prepared.vocab_size,
            "pad_id": prepared.pad_id,
            "max_length": experiment.data.sequence_length,
            "tokenizer": prepared.tokenizer_hash,
        },
        prepared=content,
    )
    with uploads or contextlib.nullcontext():
        outcome = _fit(trainer, experiment, records, world, training, validation, prepared, beats)
    leave_saved(outcome.durable, outcome.durable_name)
    # Only here: after any other end the run may go on, and nobody else shall begin in between.
    checkpointer.close()
    server.close()
    world.leave()
    sys.stdout.flush()


def _say(text: str) -> None:
    print(text, flush=True)


def _initial(
    experiment: Experiment,
    model: MusicTransformerVAEGAN,
    prepared: PreparedData,
    alive: Callable[[], None],
    waits: Callable[[], None],
) -> Callable[[], Initialised] | None:
    """What loads the weights that `init_from` names into a run that has saved nothing yet.

    It calls `alive` while they come, and `waits` when all there is left is what the other ranks do.
    """
    if experiment.init_from is None:
        return None
    wanted = Reference.parse(experiment.init_from)

    def load() -> Initialised:
        try:
            return load_initial(
                checkpoints_of(wanted.run),
                wanted.which,
                model,
                vocabulary=Vocabulary(prepared.vocabulary_hash, prepared.tokenizer_hash),
                token_tensors=["embedding.weight"],
                alive=alive,
            )
        finally:
            waits()

    return load


def _fit(
    trainer: AdvancedTrainer,
    experiment: Experiment,
    records: list[RecordWriter],
    world: World,
    training: LazyMidiDataset,
    validation: LazyMidiDataset,
    prepared: PreparedData,
    beats: Heartbeat,
) -> Outcome:
    """Train to the end, then measure what the result is worth."""
    outcome = trainer.configure(experiment).fit()
    if world.rank == 0 and outcome.evaluation is not None:
        nll = outcome.evaluation.nll
        alive = functools.partial(beats.phase, Phase.END, outcome.step)
        other = measure(training, validation, prepared.vocab_size, alive=alive)
        records[0].write("baselines", val_loss=nll, unigram=other.unigram, markov2=other.markov2)
        print(
            f"validation {nll:.4f} nats a token; unigram {other.unigram:.4f} ({other.unigram - nll:+.4f}), "
            f"order-2 Markov {other.markov2:.4f} ({other.markov2 - nll:+.4f})",
            flush=True,
        )
    records[0].write("end", step=outcome.step, reason="finished")
    # Rank 0 may measure for long: nobody else is late meanwhile.
    beats.phase(Phase.SYNC, outcome.step)
    world.barrier()
    beats.phase(Phase.END, outcome.step)
    return outcome
