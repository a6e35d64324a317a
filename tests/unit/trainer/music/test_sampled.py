"""Sampled pieces as files, and prompts from files; the music is prepared and the model is real, untrained."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from symusic import Score

from aurl_trainer.config.monitor import SamplesConfig
from aurl_trainer.data.prepared import PreparedData
from aurl_trainer.errors import DataError, MissingError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.music import rendering
from aurl_trainer.music.prompts import read_prompt
from aurl_trainer.music.sampled import QUARTERS_PER_MINUTE, sample_pieces
from tests.unit.trainer.music.conftest import tune

SHORT = SamplesConfig(count=2, tokens=90, top_p=None)


def test_pieces_are_midi_files_that_stand_alone_with_sound_beside_them(
    model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path
) -> None:
    alive: list[int] = []
    files = sample_pieces(
        model, prepared, SHORT, seed=1, folder=tmp_path / "samples", step=20, alive=lambda: alive.append(1)
    )
    assert [f.name for f in files] == [
        f"step-000020-{n}{kind}" for n in (1, 2) for kind in (".mid", ".wav", ".mp3")
    ]
    assert sorted(files) == sorted((tmp_path / "samples").iterdir()), "files that were not told"
    assert len(alive) == 3
    for midi in files[::3]:
        piece = Score(midi)
        assert piece.note_num() > 3
        assert [round(t.qpm) for t in piece.tempos] == [QUARTERS_PER_MINUTE]
        first = piece.time_signatures[0]
        assert (first.time, first.numerator, first.denominator) == (0, 4, 4)
        assert {t.program for t in piece.tracks} == {0}


def test_the_files_hold_what_the_seed_and_step_decide(
    model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(name: str, seed: int, step: int) -> list[bytes]:
        monkeypatch.setenv(rendering.SOUNDFONT_VARIABLE, "/there/is/none.sf2")  # MIDI only, for speed
        files = sample_pieces(model, prepared, SHORT, seed, tmp_path / name, step)
        return [f.read_bytes() for f in files if f.suffix == ".mid"]

    first = pieces("a", 1, 10)
    assert pieces("b", 1, 10) == first
    assert first[0] != first[1]
    assert not set(pieces("c", 2, 10)) & set(first)
    assert not set(pieces("d", 1, 11)) & set(first)


def test_training_goes_on_as_if_nothing_had_been_sampled(
    model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path
) -> None:
    model.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    sample_pieces(model, prepared, SHORT, 1, tmp_path, 1)
    assert torch.equal(torch.rand(3), expected), "sampling drew from the generator of training"
    assert model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model(torch.ones(1, 4, dtype=torch.int64)).sum().backward()


def test_none_asked_for_is_none_made(
    model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path
) -> None:
    assert sample_pieces(model, prepared, SamplesConfig(count=0), 1, tmp_path / "none", 1) == []
    assert not (tmp_path / "none").exists()


def test_without_a_synthesizer_there_is_midi_and_one_line(
    model: MusicTransformerVAEGAN,
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(rendering.SOUNDFONT_VARIABLE, str(tmp_path / "none.sf2"))
    with caplog.at_level(logging.WARNING):
        files = sample_pieces(model, prepared, SHORT, 1, tmp_path, 1)
    assert [f.suffix for f in files] == [".mid", ".mid"]
    (record,) = caplog.records
    assert "none.sf2" in record.message
    assert "only MIDI" in record.message


def test_a_synthesizer_that_breaks_costs_the_sound_only(
    model: MusicTransformerVAEGAN,
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    font = tmp_path / "bad.sf2"
    font.write_bytes(bytes(50))
    monkeypatch.setenv(rendering.SOUNDFONT_VARIABLE, str(font))
    with caplog.at_level(logging.WARNING):
        files = sample_pieces(model, prepared, SHORT, 1, tmp_path / "samples", 1)
    assert [f.suffix for f in files] == [".mid", ".mid"]
    assert all("no sound" in record.message for record in caplog.records)


def test_a_place_that_cannot_be_written_is_a_warning_not_an_end(
    model: MusicTransformerVAEGAN,
    prepared: PreparedData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert sample_pieces(model, prepared, SHORT, 1, tmp_path / "file", 7) == []
    assert "samples of step 7" in caplog.text


def test_a_prompt_is_the_files_music_and_the_piece_begins_with_it(
    model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path
) -> None:
    path = tmp_path / "prompt.mid"
    tune(50, bars=3).dump_midi(path)
    prompt = read_prompt(path, prepared)
    assert prompt == [prepared.bos_id, *prepared.tokenizer().encode(Score(path))]
    two = read_prompt(path, prepared, bars=2)
    assert two == prompt[: len(two)]
    assert len(two) < len(prompt)
    assert read_prompt(path, prepared, bars=99) == prompt
    files = sample_pieces(model, prepared, SHORT, 1, tmp_path, 1, prompts=[prompt], label="after-")
    midi = [f for f in files if f.suffix == ".mid"]
    assert [f.name for f in midi] == ["step-000001-after-1.mid", "step-000001-after-2.mid"]
    given = prepared.tokenizer().decode(prompt)

    def opening(piece: Score) -> list[tuple[float, int]]:
        quarter = piece.ticks_per_quarter
        return sorted(
            (n.time / quarter, n.pitch) for t in piece.tracks for n in t.notes if n.time < 12 * quarter
        )

    for made in midi:
        assert set(opening(given)) <= set(opening(Score(made)))
        assert Score(made).note_num() > given.note_num()


@pytest.mark.parametrize(
    "body", [b"", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\4\0\xff\x2f\0", b"no midi at all"]
)
def test_a_prompt_that_holds_no_music_is_refused(prepared: PreparedData, tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "broken.mid"
    path.write_bytes(body)
    with pytest.raises(DataError, match=r"prompt .*broken\.mid: "):
        read_prompt(path, prepared)


def test_a_prompt_that_is_not_there_is_missing(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.mid: No such file"):
        read_prompt(tmp_path / "none.mid", prepared)
