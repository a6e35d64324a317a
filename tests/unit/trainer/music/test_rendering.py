"""Sound from notes, through every synthesizer that is installed: the right pitch, length and loudness."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from symusic import Note, Score, Tempo, Track

from aurl_trainer.errors import MissingError
from aurl_trainer.music import rendering
from aurl_trainer.music.rendering import Synthesizer, compress, find_synthesizer, render

Sound = npt.NDArray[np.float32]


def wheel_font() -> Path:
    spec = importlib.util.find_spec("pretty_midi")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "TimGM6mb.sf2"


@pytest.fixture(params=["midirenderer", "fluidsynth"])
def synthesizer(request: pytest.FixtureRequest) -> Synthesizer:
    if request.param == "fluidsynth" and not shutil.which("fluidsynth"):
        pytest.skip("the program fluidsynth is not installed")
    return Synthesizer(request.param, wheel_font())


def score(*notes: tuple[float, float, int], qpm: float = 120.0) -> Score:
    """Notes (start, duration in quarters, pitch)."""
    made = Score(480)
    made.tempos.append(Tempo(0, qpm))
    made.tracks.append(Track("piano", program=0))
    for start, duration, pitch in notes:
        made.tracks[0].notes.append(Note(round(start * 480), round(duration * 480), pitch, 90))
    return made


def sound(path: Path) -> tuple[Sound, int]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return samples, rate


def pitch_of(samples: Sound, rate: int) -> float:
    """Frequency of the strongest partial, Hz."""
    mono = samples.mean(axis=1) * np.hanning(len(samples))
    spectrum = np.abs(np.fft.rfft(mono, 1 << 19))
    return float(np.fft.rfftfreq(1 << 19, 1 / rate)[int(spectrum.argmax())])


def test_a_note_sounds_at_its_pitch_when_it_is_played(synthesizer: Synthesizer, tmp_path: Path) -> None:
    path = render(score((2, 2, 69), (6, 2, 57)), tmp_path / "a.wav", synthesizer)
    samples, rate = sound(path)
    assert pitch_of(samples[int(1.1 * rate) : int(1.9 * rate)], rate) == pytest.approx(440, rel=0.01)
    low = pitch_of(samples[int(3.1 * rate) : int(3.9 * rate)], rate)
    assert low in (pytest.approx(220, rel=0.01), pytest.approx(440, rel=0.01))
    assert np.abs(samples[: int(0.9 * rate)]).max() < 0.01, "something sounds before the first note"


def test_it_is_as_long_as_the_music_and_dies_away(synthesizer: Synthesizer, tmp_path: Path) -> None:
    piece = score(*((beat, 1, 60 + beat % 5) for beat in range(10)), qpm=60)
    samples, rate = sound(render(piece, tmp_path / "a.wav", synthesizer))
    assert 11.5 < len(samples) / rate < 16
    assert np.abs(samples[int(9.2 * rate) : int(9.6 * rate)]).max() > 0.05, "the last note is not there"
    assert np.abs(samples[-rate // 20 :]).max() < 0.02, "the end is cut off"


def test_it_is_a_stereo_wav_of_full_loudness_that_repeats(synthesizer: Synthesizer, tmp_path: Path) -> None:
    piece = score((0, 1, 60), (0, 1, 64), (1, 1, 67))
    first = render(piece, tmp_path / "a.wav", synthesizer)
    info = soundfile.info(first)
    assert (info.format, info.subtype, info.channels) == ("WAV", "PCM_16", 2)
    samples, _ = sound(first)
    assert float(np.abs(samples).max()) == pytest.approx(rendering.PEAK, abs=0.01)
    again = render(piece, tmp_path / "b.wav", synthesizer)
    assert first.read_bytes() == again.read_bytes()


def test_the_score_itself_is_left_alone(synthesizer: Synthesizer, tmp_path: Path) -> None:
    piece = score((0, 1, 60))
    before = piece.dumps_midi()
    render(piece, tmp_path / "a.wav", synthesizer)
    assert piece.dumps_midi() == before


def test_silence_stays_silence(synthesizer: Synthesizer, tmp_path: Path) -> None:
    samples, _ = sound(render(score(), tmp_path / "a.wav", synthesizer))
    assert float(np.abs(samples).max(initial=0)) < 1e-3


def test_compressed_it_is_small_and_the_same_music(tmp_path: Path) -> None:
    piece = score(*((beat, 1, 69) for beat in range(20)))
    wav = render(piece, tmp_path / "a.wav", Synthesizer("midirenderer", wheel_font()))
    mp3 = compress(wav, tmp_path / "a.mp3")
    seconds = soundfile.info(wav).duration
    samples, rate = sound(mp3)
    assert len(samples) / rate == pytest.approx(seconds, abs=0.2)
    assert mp3.stat().st_size / seconds < 12_000
    assert pitch_of(samples, rate) == pytest.approx(440, rel=0.01)


def test_pip_alone_brings_a_synthesizer_and_a_font(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rendering, "DEBIAN_FONTS", ())
    monkeypatch.delenv(rendering.SOUNDFONT_VARIABLE, raising=False)
    found = find_synthesizer()
    assert found == Synthesizer("midirenderer", wheel_font())
    assert str(found) == "midirenderer with TimGM6mb.sf2"


def test_a_font_of_ones_own_goes_first_and_must_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "own.sf2"
    shutil.copy(wheel_font(), own)
    monkeypatch.setenv(rendering.SOUNDFONT_VARIABLE, str(own))
    found = find_synthesizer()
    assert found is not None
    assert found.font == own
    monkeypatch.setenv(rendering.SOUNDFONT_VARIABLE, str(tmp_path / "none.sf2"))
    with pytest.raises(MissingError, match=r"none\.sf2: there is no such sound font"):
        find_synthesizer()


def test_without_any_synthesizer_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rendering, "DEBIAN_FONTS", ())
    monkeypatch.delenv(rendering.SOUNDFONT_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find_synthesizer() is None
    with pytest.raises(MissingError) as caught:
        render(score((0, 1, 60)), tmp_path / "a.wav")
    text = str(caught.value)
    assert "pip install midirenderer pretty_midi" in text
    assert "apt install fluidsynth" in text
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


def test_a_damaged_font_is_named(synthesizer: Synthesizer, tmp_path: Path) -> None:
    font = tmp_path / "bad.sf2"
    font.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(MissingError, match=r"bad\.sf2"):
        render(score((0, 1, 60)), tmp_path / "a.wav", Synthesizer(synthesizer.kind, font))
    assert not (tmp_path / "a.wav").exists()


def test_a_fluidsynth_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "fluidsynth"
    program.write_text("#!/bin/sh\necho loading >&2\necho 'no memory left' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MissingError, match="fluidsynth failed: no memory left"):
        render(score((0, 1, 60)), tmp_path / "a.wav", Synthesizer("fluidsynth", wheel_font()))
