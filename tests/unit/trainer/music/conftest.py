"""A little real music, prepared for real, and an untrained model over its tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from symusic import Note, Score, Tempo, TimeSignature, Track

from aurl_trainer.config.experiment import Experiment
from aurl_trainer.data.prepared import PreparedData, prepare
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN


def tune(seed: int, bars: int = 8) -> Score:
    """A melody in quarters over whole-bar chords, in four-four time."""
    rng = np.random.default_rng(seed)
    score = Score(480)
    score.tempos.append(Tempo(0, 120.0))
    score.time_signatures.append(TimeSignature(0, 4, 4))
    track = Track("tune", program=0)
    for bar in range(bars):
        root = int(rng.choice([48, 50, 53, 55]))
        for third in (0, 4, 7):
            track.notes.append(Note(bar * 1920, 1920, root + third, 80))
        for beat in range(4):
            pitch = 60 + int(rng.choice([0, 2, 4, 5, 7, 9, 11]))
            track.notes.append(Note(bar * 1920 + beat * 480, 480, pitch, 80))
    score.tracks.append(track)
    return score


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("music")
    (folder / "midi").mkdir()
    for number in range(6):
        tune(number).dump_midi(folder / "midi" / f"tune-{number}.mid")
    return Experiment.model_validate(
        {
            "data": {
                "source": {"midi": str(folder / "midi")},
                "tokenizer": {"type": "REMI", "velocities": 1},
                "split": {"validation": 0.3},
                "sequence_length": 64,
                "cache": str(folder / "cache"),
                "workers": 1,
            },
            "model": {"dim": 32, "layers": 2, "heads": 4},
            "engine": {"device": "cpu", "batch": {"global_batch": 4, "shards": 2}},
            "samples": {"count": 2, "tokens": 60},
        }
    )


@pytest.fixture(scope="session")
def prepared(experiment: Experiment) -> PreparedData:
    return prepare(experiment.data, experiment.seed)


@pytest.fixture
def model(experiment: Experiment, prepared: PreparedData) -> MusicTransformerVAEGAN:
    torch.manual_seed(1)
    return MusicTransformerVAEGAN(
        experiment.model, prepared.vocab_size, prepared.pad_id, experiment.data.sequence_length
    )
