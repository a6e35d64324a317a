"""A trained model's pieces: sampled tokens become scores, and these files: MIDI, WAV and MP3.

Not here: how tokens are drawn (model/sampling.py), how notes become sound (rendering.py), what a piece
measures (metrics.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurl_trainer.config.monitor import SamplesConfig
from aurl_trainer.errors import MissingError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.model.sampling import generate
from aurl_trainer.music.rendering import MISSING, Synthesizer, compress, find_synthesizer, render

if TYPE_CHECKING:
    from aurl_trainer.data.prepared import PreparedData

log = logging.getLogger(__name__)

QUARTERS_PER_MINUTE = 96.0
"""Tempo of pieces whose tokens say none: a calm walking pace."""


def sample_pieces(
    model: MusicTransformerVAEGAN,
    prepared: PreparedData,
    config: SamplesConfig,
    seed: int,
    folder: Path,
    step: int,
    *,
    prompts: Sequence[Sequence[int]] | None = None,
    label: str = "",
    alive: Callable[[], None] = lambda: None,
) -> list[Path]:
    """`draw_pieces`, then `write_pieces`; gives back the files."""
    scores = draw_pieces(model, prepared, config, seed, step, prompts=prompts)
    alive()
    return write_pieces(scores, folder, step, label=label, alive=alive)


def draw_pieces(
    model: MusicTransformerVAEGAN,
    prepared: PreparedData,
    config: SamplesConfig,
    seed: int,
    step: int,
    *,
    prompts: Sequence[Sequence[int]] | None = None,
) -> list[Any]:
    """`config.count` pieces, symusic Scores; one in which the model wrote no note is without notes.

    One process calls this, on its own. It draws from generators keyed by (seed, step, n) and leaves torch's
    and the model's mode alone, so training goes on as if it had not been. `prompts` are token ids, one list
    per piece or one for all, in place of the begin-of-piece token.
    """
    if not config.count:
        return []
    starts = [list(p) for p in prompts or [[prepared.bos_id]]]
    rows = generate(
        model,
        starts * config.count if len(starts) == 1 else starts,
        config.tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=seed * 1_000_003 + step,
        eos_id=prepared.eos_id,
        forbidden=[prepared.bos_id],
    )
    tokenizer = prepared.tokenizer()
    return [as_piano_piece(tokenizer.decode(row), tempo_known=tokenizer.config.tempos) for row in rows]


def write_pieces(
    scores: Sequence[Any],
    folder: Path,
    step: int,
    *,
    label: str = "",
    alive: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Writes each piece to `folder` as step-<step>-<label><n>.mid, .wav, .mp3, and gives back the files.

    What cannot be written (no synthesizer, a full disk) is a warning and left out, so that sampling never
    ends a run. `alive` is called after each piece.
    """
    if not scores:
        return []
    synthesizer = _synthesizer()
    files: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, score in enumerate(scores, 1):
            midi = folder / f"step-{step:06d}-{label}{number}.mid"
            midi.write_bytes(score.dumps_midi())
            files.append(midi)
            if not score.note_num():
                log.warning("%s has no notes: the model wrote none", midi.name)
            elif synthesizer is not None:
                files += _sound(score, midi, synthesizer)
            alive()
    except OSError as error:
        log.warning("samples of step %d: %s", step, error)
    return files


def as_piano_piece(score: Any, tempo_known: bool) -> Any:
    """The symusic Score with all that a MIDI file needs, in place: tempo, metre, an instrument.

    Tracks keep the instrument that their tokens named; without such tokens that is the grand piano.
    """
    from symusic import Tempo, TimeSignature

    if not tempo_known or not len(score.tempos):
        score.tempos = [Tempo(0, QUARTERS_PER_MINUTE)]
    if not any(s.time == 0 for s in score.time_signatures):
        score.time_signatures.insert(0, TimeSignature(0, 4, 4))
    for track in score.tracks:
        track.name = track.name or "Piano"
    return score


def _synthesizer() -> Synthesizer | None:
    try:
        found = find_synthesizer()
    except MissingError as error:
        log.warning("%s; only MIDI is written", error)
        return None
    if found is None:
        log.warning(MISSING)
    return found


def _sound(score: Any, midi: Path, synthesizer: Synthesizer) -> list[Path]:
    try:
        wav = render(score, midi.with_suffix(".wav"), synthesizer)
        return [wav, compress(wav, midi.with_suffix(".mp3"))]
    except (MissingError, OSError, RuntimeError) as error:
        log.warning("%s: no sound: %s", midi.name, error)
        return []
