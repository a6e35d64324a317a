"""Tokens a second of Aurl's loop over the same model in a bare PyTorch loop, in the same run.

    python bench/loop_overhead.py [--steps 40] [--pairs 5]

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
from aurl_trainer.engine.runtime import Runtime
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.monitor.progress import ProgressServer
from aurl_trainer.monitor.records import RecordWriter


def experiment(steps: int) -> Experiment:
    return Experiment(
        data=DataConfig(
            source=SourceConfig(music21="bach", limit=60),
            tokenizer=TokenizerConfig(velocities=1),
            sequence_length=256,
        ),
        model=ModelConfig(dim=128, layers=4, heads=4),
        engine=EngineConfig(steps=steps, batch=BatchConfig(global_batch=8, shards=4)),
        monitor=MonitorConfig(log_every=10, evaluate_every=0),
    )


def fresh_model(config: Experiment, prepared: PreparedData) -> MusicTransformerVAEGAN:
    torch.manual_seed(config.seed)
    length = config.data.sequence_length
    return MusicTransformerVAEGAN(config.model, prepared.vocab_size, prepared.pad_id, length)


def bare_loop(config: Experiment, prepared: PreparedData, train: LazyMidiDataset) -> float:
    """What a person writes without Aurl: batches, loss, backward, clip, step."""
    model = fresh_model(config, prepared)
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
            logits = model(b.inputs)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), b.targets.flatten(), reduction="sum")
            (loss / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.engine.optimizer.clip_norm or 1.0, foreach=True)
        optimizer.step()
        tokens += count
    return tokens / (time.perf_counter() - began)


def aurl_loop(config: Experiment, prepared: PreparedData, train: LazyMidiDataset, folder: Path) -> float:
    server = ProgressServer(0)
    writers: list[RecordWriter] = []

    def open_records(generation: int) -> RecordWriter:
        writers.append(RecordWriter(folder, len(list(folder.glob("*"))), 0))
        return writers[0]

    trainer = AdvancedTrainer(
        fresh_model(config, prepared),
        ComprehensiveLossFramework(LossConfig()),
        train=train,
        runtime=Runtime(open_records=open_records, progress=server),
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
    arguments = parser.parse_args()
    config = experiment(arguments.steps)
    prepared = prepare(config.data, config.seed, progress=True)
    train = LazyMidiDataset(prepared, "train")
    torch.use_deterministic_algorithms(True)
    bare_loop(experiment(5), prepared, train)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:

        def bare() -> float:
            return bare_loop(config, prepared, train)

        def aurl() -> float:
            return aurl_loop(config, prepared, train, Path(folder))

        for pair in range(arguments.pairs):
            order = (aurl, bare) if pair % 2 else (bare, aurl)
            speeds = {measure: measure() for measure in order}
            ratios.append(speeds[aurl] / speeds[bare])
            print(
                f"pair {pair + 1}: bare {speeds[bare]:,.0f} tokens/s, Aurl {speeds[aurl]:,.0f}, "
                f"ratio {ratios[-1]:.3f}"
            )
    threads = torch.get_num_threads()
    print(f"median ratio {statistics.median(ratios):.3f} over {len(ratios)} pairs, {threads} thread(s)")


if __name__ == "__main__":
    main()
