"""Tokens a second of Aurl's loop over the same model in a bare PyTorch loop, in the same run.

    python -m bench.loop_overhead [--steps 40] [--pairs 5] [--device cuda] [--dim 128] [--midi FOLDER]

Both train the same weights on the same samples with the same optimizer and threads; pairs alternate so that
a slow minute of the machine hits both. Aurl's loop logs, records every step and serves progress; the bare
loop does none of it. Prints each pair's ratio and their median: 1.0 is no overhead.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from aurl_trainer.config.data import DataConfig, SourceConfig, TokenizerConfig
from aurl_trainer.config.engine import BatchConfig, EngineConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.config.monitor import MonitorConfig
from aurl_trainer.data.batches import BatchPlan, micro_batches
from aurl_trainer.data.dataset import LazyMidiDataset
from aurl_trainer.data.prepared import PreparedData, prepare
from aurl_trainer.engine.optimizer import build_optimizer, learning_rate, set_learning_rate
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import make_deterministic
from aurl_trainer.engine.runtime import Runtime
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.monitor.progress import ProgressServer
from aurl_trainer.monitor.records import RecordWriter


def experiment(options: argparse.Namespace, steps: int) -> Experiment:
    chorales = SourceConfig(music21="bach", limit=60)
    return Experiment(
        data=DataConfig(
            source=SourceConfig(midi=options.midi) if options.midi else chorales,
            tokenizer=TokenizerConfig(velocities=1),
            sequence_length=256,
        ),
        model=ModelConfig(dim=options.dim, layers=options.layers, heads=options.dim // 32),
        engine=EngineConfig(
            steps=steps,
            batch=BatchConfig(global_batch=options.batch, shards=4),
            precision=options.precision,
        ),
        monitor=MonitorConfig(log_every=10, evaluate_every=0),
    )


def fresh_model(config: Experiment, prepared: PreparedData) -> MusicTransformerVAEGAN:
    torch.manual_seed(config.seed)
    length = config.data.sequence_length
    return MusicTransformerVAEGAN(config.model, prepared.vocab_size, prepared.pad_id, length)


def bare_loop(config: Experiment, prepared: PreparedData, train: LazyMidiDataset, world: World) -> float:
    """What a person writes without Aurl: batches, loss, backward, clip, step."""
    model = fresh_model(config, prepared).to(world.device)
    precision = Precision(config.engine.precision, world.device)
    optimizer = build_optimizer(model, config.engine.optimizer)
    batch = config.engine.batch
    plan = BatchPlan(len(train), batch.global_batch, batch.shards, config.seed)
    began, tokens = time.perf_counter(), 0
    for step in range(config.engine.steps):
        set_learning_rate(optimizer, learning_rate(config.engine.optimizer, step, config.engine.steps))
        optimizer.zero_grad()
        batches = list(micro_batches(train, plan, step))
        count = sum(int((b.targets != -100).sum()) for b in batches)
        for b in batches:
            with precision.forward():
                logits = model(b.inputs.to(world.device)).flatten(0, 1)
                targets = b.targets.to(world.device).flatten()
                loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
            (loss / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.engine.optimizer.clip_norm or 1.0, foreach=True)
        optimizer.step()
        tokens += count
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - began)


def aurl_loop(
    config: Experiment, prepared: PreparedData, train: LazyMidiDataset, world: World, folder: Path
) -> float:
    server = ProgressServer(0)
    writers: list[RecordWriter] = []

    def open_records(generation: int) -> RecordWriter:
        writers.append(RecordWriter(folder, len(list(folder.glob("*"))), 0))
        return writers[0]

    trainer = AdvancedTrainer(
        fresh_model(config, prepared),
        ComprehensiveLossFramework(LossConfig()),
        train=train,
        runtime=Runtime(world=world, open_records=open_records, progress=server),
    ).configure(config)
    batch = config.engine.batch
    plan = BatchPlan(len(train), batch.global_batch, batch.shards, config.seed)
    tokens = sum(int(train.targets[plan.sample_ids(s)].sum()) for s in range(config.engine.steps))
    began = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - began
    server.close()
    writers[0].close()
    return tokens / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dim", type=int, default=128, help="of the model, a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help="samples of a global batch, 4 shards")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--midi", metavar="FOLDER", help="music to train on (default: music21's chorales)")
    options = parser.parse_args()
    config = experiment(options, options.steps)
    world = World.alone(options.device)
    if world.device.type != options.device:
        parser.error("no CUDA device is here")
    prepared = prepare(config.data, config.seed, progress=True)
    train = LazyMidiDataset(prepared, "train")
    make_deterministic(True)
    bare_loop(experiment(options, 5), prepared, train, world)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:

        def bare() -> float:
            return bare_loop(config, prepared, train, world)

        def aurl() -> float:
            return aurl_loop(config, prepared, train, world, Path(folder))

        for pair in range(options.pairs):
            order = (aurl, bare) if pair % 2 else (bare, aurl)
            speeds = {measure: measure() for measure in order}
            ratios.append(speeds[aurl] / speeds[bare])
            print(
                f"pair {pair + 1}: bare {speeds[bare]:,.0f} tokens/s, Aurl {speeds[aurl]:,.0f}, "
                f"ratio {ratios[-1]:.3f}"
            )
    where = f"{torch.get_num_threads()} thread(s)"
    if world.device.type == "cuda":
        where = torch.cuda.get_device_name(world.device)
    print(f"median ratio {statistics.median(ratios):.3f} over {len(ratios)} pairs, {where}")


if __name__ == "__main__":
    main()
