"""Scores to tokens and back: nothing is lost but what the grid cannot say."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from symusic.core import NoteTick, ScoreTick, TimeSignatureTick, TrackTick

from aurl_trainer.config.data import TokenizerConfig
from aurl_trainer.data.tokenizer import PieceTokenizer, arrange
from aurl_trainer.errors import DataError
from tests.unit.trainer.data.conftest import piece

TYPES = ["REMI", "TSD", "Structured", "MIDILike"]


def sounding(score: ScoreTick) -> list[tuple[float, float, int]]:
    """Onset and duration in quarter notes, and pitch, of every note, sorted."""
    ticks = score.ticks_per_quarter
    return sorted((n.time / ticks, n.duration / ticks, n.pitch) for t in score.tracks for n in t.notes)


def one_track(*notes: tuple[float, float, int], sign: tuple[int, int] = (4, 4)) -> ScoreTick:
    score = ScoreTick(480)
    score.time_signatures.append(TimeSignatureTick(0, *sign))
    track = TrackTick("", 0, False)
    for time, duration, pitch in notes:
        track.notes.append(NoteTick(round(time * 480), round(duration * 480), pitch, 80))
    score.tracks.append(track)
    return score


def configured(kind: str, **fields: object) -> TokenizerConfig:
    return TokenizerConfig.model_validate({"type": kind, **fields})


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("bpe", [False, True])
def test_a_round_trip_keeps_every_note(kind: str, bpe: bool) -> None:
    tokenizer = PieceTokenizer(configured(kind))
    if bpe:
        tokenizer.train([tokenizer.tokenize(piece(seed)) for seed in range(20, 26)], 700)
        assert tokenizer.vocab_size == 700
    for seed in range(3):
        original = piece(seed)
        assert sounding(tokenizer.decode(tokenizer.encode(original))) == sounding(original)


@pytest.mark.parametrize("kind", TYPES)
def test_velocities_and_programs_survive(kind: str) -> None:
    tokenizer = PieceTokenizer(configured(kind, programs=True, velocities=127))
    score = piece(1)
    score.tracks[0].program = 40
    decoded = tokenizer.decode(tokenizer.encode(score))
    assert {t.program for t in decoded.tracks} == {0, 40}
    assert sounding(decoded) == sounding(score)
    wanted = sorted((n.time, n.pitch, n.velocity) for t in score.tracks for n in t.notes)
    ratio = score.ticks_per_quarter // decoded.ticks_per_quarter
    found = sorted((n.time * ratio, n.pitch, n.velocity) for t in decoded.tracks for n in t.notes)
    assert found == wanted


@pytest.mark.parametrize("kind", TYPES)
def test_notes_off_the_grid_move_to_its_nearest_point(kind: str) -> None:
    tokenizer = PieceTokenizer(configured(kind, resolution=4))
    decoded = tokenizer.decode(tokenizer.encode(one_track((0.02, 1.03, 60), (1.98, 0.53, 62))))
    assert sounding(decoded) == [(0.0, 1.0, 60), (2.0, 0.5, 62)]


@pytest.mark.parametrize("kind", TYPES)
def test_every_pitch_of_midi_survives(kind: str) -> None:
    tokenizer = PieceTokenizer(configured(kind))
    every = one_track(*((pitch / 4, 0.25, pitch) for pitch in range(128)))
    assert sounding(tokenizer.decode(tokenizer.encode(every))) == sounding(every)


@pytest.mark.parametrize(
    ("sign", "bars"),
    [((4, 4), 16), ((3, 4), 12), ((2, 2), 16), ((3, 2), 24), ((6, 8), 12), ((12, 8), 24), ((5, 4), 20)],
)
def test_bars_have_their_length_and_the_grid_its_fineness(sign: tuple[int, int], bars: int) -> None:
    """`bars`: their length in semiquavers."""
    tokenizer = PieceTokenizer(configured("REMI", resolution=4))
    original = one_track(*((i / 4, 0.25, 60 + i % 12) for i in range(48)), sign=sign)
    tokens = tokenizer.tokenize(original)
    assert len(tokens.bars) == -(-48 // bars)
    assert sounding(tokenizer.decode(tokens.ids.tolist())) == sounding(original)


@pytest.mark.parametrize("kind", ["REMI", "TSD", "MIDILike"])
def test_a_long_silence_survives(kind: str) -> None:
    tokenizer = PieceTokenizer(configured(kind))
    original = one_track((0, 1, 60), (200, 1, 62))
    assert tokenizer.tokenize(original).shortened == 0
    assert sounding(tokenizer.decode(tokenizer.encode(original))) == sounding(original)


def test_what_is_shortened_is_counted() -> None:
    long_note = one_track((0, 40, 60), (4, 1, 62))
    assert PieceTokenizer(configured("REMI")).tokenize(long_note).shortened == 1
    assert PieceTokenizer(configured("MIDILike")).tokenize(long_note).shortened == 0
    silence = one_track((0, 1, 60), (200, 1, 62))
    assert PieceTokenizer(configured("Structured")).tokenize(silence).shortened == 1


@pytest.mark.parametrize("kind", TYPES)
def test_voices_in_unison_are_one_note_the_longest(kind: str) -> None:
    score = one_track((0, 1, 60), (1, 1, 62))
    second = TrackTick("", 0, False)
    second.notes.append(NoteTick(0, 960, 60, 90))
    score.tracks.append(second)
    tokenizer = PieceTokenizer(configured(kind))
    assert sounding(tokenizer.decode(tokenizer.encode(score))) == [(0, 2, 60), (1, 1, 62)]


def test_a_key_struck_again_ends_its_note_where_tokens_cannot_tell_two_apart() -> None:
    tokenizer = PieceTokenizer(configured("MIDILike"))
    decoded = tokenizer.decode(tokenizer.encode(one_track((0, 4, 60), (1, 1, 60), (1, 3, 64))))
    assert sounding(decoded) == [(0, 1, 60), (1, 1, 60), (1, 3, 64)]


def test_drums_are_no_pitches() -> None:
    score = one_track((0, 1, 60))
    drums = TrackTick("", 0, True)
    drums.notes.append(NoteTick(0, 480, 36, 90))
    score.tracks.append(drums)
    assert sounding(arrange(score, programs=False)) == [(0, 1, 60)]
    with_programs = PieceTokenizer(configured("REMI", programs=True))
    decoded = with_programs.decode(with_programs.encode(score))
    assert {(t.is_drum, n.pitch) for t in decoded.tracks for n in t.notes} == {(False, 60), (True, 36)}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("programs", [False, True])
def test_transposing_tokens_is_transposing_music(kind: str, programs: bool) -> None:
    tokenizer = PieceTokenizer(configured(kind, programs=programs))
    for seed, semitones in itertools.product(range(2), (-7, 0, 5)):
        original = piece(seed)
        original.tracks[1].program = 40
        higher = original.copy()
        for track in higher.tracks:
            track.shift_pitch(semitones, inplace=True)
        ids = tokenizer.tokenize(original).ids
        assert tokenizer.transposition(semitones)[ids].tolist() == tokenizer.tokenize(higher).ids.tolist()


def test_transposing_out_of_midi_is_marked_and_drums_stay() -> None:
    tokenizer = PieceTokenizer(configured("REMI", programs=True))
    top = tokenizer.tokenize(one_track((0, 1, 127))).ids
    assert (tokenizer.transposition(1)[top] == -1).sum() == 1
    drums = piece(3, drums=True)
    ids = tokenizer.tokenize(drums).ids
    assert tokenizer.transposition(3)[ids].tolist() == ids.tolist()


def test_bpe_gives_the_same_tokens_each_time_and_reads_back(tmp_path: Path) -> None:
    config = configured("REMI")
    first, second = PieceTokenizer(config), PieceTokenizer(config)
    pieces = [first.tokenize(piece(seed)) for seed in range(8)]
    first.train(pieces, 900)
    second.train(pieces, 900)
    first.save(tmp_path / "tokenizer.json")
    loaded = PieceTokenizer(config, tmp_path / "tokenizer.json")
    unseen = piece(99)
    ids = first.encode(unseen)
    assert len(ids) < len(first.tokenize(unseen).ids), "BPE must make a piece shorter"
    assert second.encode(unseen) == ids
    assert loaded.encode(unseen) == ids
    assert sounding(loaded.decode(ids)) == sounding(unseen)
    assert (loaded.pad_id, loaded.bos_id, loaded.eos_id) == (first.pad_id, first.bos_id, first.eos_id)


def test_bpe_writes_nothing_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = PieceTokenizer(configured("REMI"))
    tokenizer.train([tokenizer.tokenize(piece(1))], 700)
    assert capfd.readouterr().out == ""


def test_a_bpe_smaller_than_the_base_is_refused() -> None:
    tokenizer = PieceTokenizer(configured("REMI"))
    with pytest.raises(DataError, match=r"bpe_vocab_size is 128, but REMI has \d+ tokens before BPE"):
        tokenizer.train([tokenizer.tokenize(piece(1))], 128)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("bpe", [False, True])
def test_whatever_a_model_writes_is_decoded(kind: str, bpe: bool) -> None:
    tokenizer = PieceTokenizer(configured(kind, tempos=kind != "Structured"))
    if bpe:
        tokenizer.train([tokenizer.tokenize(piece(1))], 900)
    chance = np.random.default_rng(7)
    for length in (0, 1, 2, 50, 400):
        tokenizer.decode(chance.integers(0, tokenizer.vocab_size, length).tolist())
    tokenizer.decode([tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id])
    with pytest.raises(ValueError, match="token ids must be from 0"):
        tokenizer.decode([tokenizer.vocab_size])


@pytest.mark.parametrize("kind", TYPES)
def test_a_score_without_notes_has_no_tokens(kind: str) -> None:
    tokenizer = PieceTokenizer(configured(kind))
    assert tokenizer.encode(one_track()) == []
    assert tokenizer.encode(ScoreTick(480)) == []


def test_an_option_that_a_tokenization_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="Structured has no tempo tokens"):
        configured("Structured", tempos=True)
