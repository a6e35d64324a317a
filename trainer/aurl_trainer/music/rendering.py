"""A score becomes sound: MIDI through a synthesizer and a free sound font to WAV, and WAV to MP3.

Two synthesizers are known: the program fluidsynth where it is installed, and midirenderer, a wheel that pip
brings everywhere. Sound fonts are sought in `AURL_SOUNDFONT`, then Debian's, then the one that the wheel of
pretty_midi carries (TimGM6mb, GPL-2+, 6 MB). Not here: which scores (sampled.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aurl_trainer.errors import MissingError

SOUNDFONT_VARIABLE = "AURL_SOUNDFONT"
"""Environment variable that names a sound font (.sf2) to use before all others."""

DEBIAN_FONTS = (
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/sounds/sf2/TimGM6mb.sf2",
    "/usr/share/sounds/sf2/default-GM.sf2",
)
"""Of the packages fluid-soundfont-gm (MIT) and timgm6mb-soundfont (GPL-2+), best first."""

MISSING = (
    "no WAV, only MIDI: no synthesizer was found; `pip install midirenderer pretty_midi` "
    "or `apt install fluidsynth fluid-soundfont-gm`"
)

TAIL_SECONDS = 2.0
"""Rendered after the last note, so that it can die away."""

PEAK = 0.9
"""Loudest sample of a rendered piece, as a share of full scale."""

SILENCE = 1e-3
"""What never gets louder is dither, not music, and is not amplified; as a share of full scale."""

RENDER_SECONDS = 300


@dataclass(frozen=True)
class Synthesizer:
    """What renders, and with which sound font."""

    kind: Literal["fluidsynth", "midirenderer"]
    font: Path

    def __str__(self) -> str:
        return f"{self.kind} with {self.font.name}"


def find_synthesizer() -> Synthesizer | None:
    """The best synthesizer on this machine, or None if there is none or no sound font.

    Raises MissingError if `AURL_SOUNDFONT` names a file that is not there.
    """
    font = _find_font()
    if font is None:
        return None
    if shutil.which("fluidsynth"):
        return Synthesizer("fluidsynth", font)
    if importlib.util.find_spec("midirenderer"):
        return Synthesizer("midirenderer", font)
    return None


def _find_font() -> Path | None:
    named = os.environ.get(SOUNDFONT_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise MissingError(f"{SOUNDFONT_VARIABLE}={named}: there is no such sound font")
        return Path(named)
    # Only its location is asked for: nothing of pretty_midi is imported.
    wheel = importlib.util.find_spec("pretty_midi")
    carried = [str(Path(wheel.origin).parent / "TimGM6mb.sf2")] if wheel and wheel.origin else []
    return next((Path(f) for f in (*DEBIAN_FONTS, *carried) if Path(f).is_file()), None)


def render(score: Any, path: Path, synthesizer: Synthesizer | None = None) -> Path:
    """Writes the symusic Score as a 16-bit stereo WAV, brought to an even loudness, and gives back `path`.

    Raises MissingError without a synthesizer, or if the one there is fails.
    """
    synthesizer = synthesizer or find_synthesizer()
    if synthesizer is None:
        raise MissingError(MISSING)
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / "score.mid"
        _with_tail(score).dump_midi(midi)
        raw = Path(folder) / "score.wav"
        if synthesizer.kind == "fluidsynth":
            _fluidsynth(synthesizer.font, midi, raw)
        else:
            _midirenderer(synthesizer.font, midi, raw)
        _level(raw, path)
    return path


def _with_tail(score: Any) -> Any:
    """A copy whose last event is silence, `TAIL_SECONDS` after the last note: renderers stop there."""
    from symusic import ControlChange

    copy = score.copy()
    qpm = copy.tempos[-1].qpm if len(copy.tempos) else 120.0
    end = copy.end() + round(TAIL_SECONDS * qpm / 60 * copy.ticks_per_quarter)
    for track in copy.tracks[:1]:
        # Reset of all controllers: heard by nobody at the end.
        track.controls.append(ControlChange(end, 121, 0))
    return copy


def _fluidsynth(font: Path, midi: Path, wav: Path) -> None:
    command = ["fluidsynth", "-n", "-i", "-q", "-r", "44100", "-F", str(wav), str(font), str(midi)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_SECONDS)
    except subprocess.TimeoutExpired:
        raise MissingError(f"fluidsynth did not end within {RENDER_SECONDS} s") from None
    said = (done.stderr or done.stdout).strip().splitlines()
    # With a font that it cannot read it goes on with one of its own choice, or without sound.
    if done.returncode or not wav.is_file() or any("not a SoundFont" in line for line in said):
        raise MissingError(f"fluidsynth failed: {said[-1] if said else f'exit code {done.returncode}'}")


_MIDIRENDERER = (
    "import midirenderer, pathlib, sys; font, midi, wav = map(pathlib.Path, sys.argv[1:]); "
    "wav.write_bytes(midirenderer.render_wave_from(font.read_bytes(), midi.read_bytes()))"
)


def _midirenderer(font: Path, midi: Path, wav: Path) -> None:
    # In a process of its own: it holds the interpreter while it renders, for seconds with a long piece, in
    # which a training rank could not beat and would count as hung.
    command = [sys.executable, "-c", _MIDIRENDERER, str(font), str(midi), str(wav)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_SECONDS)
    except subprocess.TimeoutExpired:
        raise MissingError(f"midirenderer did not end within {RENDER_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MissingError(f"midirenderer with {font}: {said[-1]}")


def _level(raw: Path, path: Path) -> None:
    """Copies a WAV so that its loudest sample is at `PEAK`; silence stays silence."""
    import soundfile

    samples, rate = soundfile.read(raw, dtype="float32", always_2d=True)
    peak = float(np.abs(samples).max(initial=0.0))
    gain = PEAK / peak if peak > SILENCE else 1.0
    soundfile.write(path, samples * gain, rate, subtype="PCM_16", format="WAV")


def compress(wav: Path, path: Path, quality: float = 0.7) -> Path:
    """Writes a WAV as MP3, which every browser plays, in mono: about 7 kB a second; gives back `path`.

    `quality` is libsndfile's compression level, 0 (best) to 1 (smallest).
    """
    import soundfile

    samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    soundfile.write(path, mono, rate, format="MP3", compression_level=quality)
    return path
