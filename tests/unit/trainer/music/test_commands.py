"""`aurl sample` and `aurl evaluate` on a run's directory with real checkpoints."""

from __future__ import annotations

import json
import math
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from click.testing import Result
from safetensors.torch import load_file
from symusic import Score
from typer.testing import CliRunner

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.initial import load_initial
from aurl_trainer.checkpoint.loading import open_manifest
from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.commands.checkpoints.derived.averaging import average
from aurl_trainer.commands.checkpoints.derived.exporting import export
from aurl_trainer.commands.evaluate import evaluate
from aurl_trainer.commands.sample import sample
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.reference import Latest
from aurl_trainer.data.batches import IGNORED, collate
from aurl_trainer.data.content import content_of
from aurl_trainer.data.dataset import LazyMidiDataset
from aurl_trainer.data.prepared import PreparedData
from aurl_trainer.errors import AurlTrainerError, CheckpointError, DataError, MissingError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.music import rendering
from aurl_trainer.store.format.plain import decode
from tests.unit.trainer.music.conftest import tune


@pytest.fixture
def run(
    tmp_path: Path, experiment: Experiment, model: MusicTransformerVAEGAN, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Checkpoints of steps 10 (the better one), 20 and 30 in a run's directory; MIDI only, for speed."""
    monkeypatch.setenv(rendering.SOUNDFONT_VARIABLE, "/there/is/none.sf2")
    saved_run(str(tmp_path / "run" / "checkpoints"), experiment, model)
    return tmp_path / "run"


def saved_run(uri: str, experiment: Experiment, model: MusicTransformerVAEGAN, **more: Any) -> None:
    checkpointer = Checkpointer(
        uri,
        run="test",
        fingerprint=experiment.identity(),
        settings=experiment.checkpoint,
        rank=0,
        world=1,
    )
    state = {"model": ModelPart(model)}
    checkpointer.open(state)
    extra = {"experiment": experiment.model_dump(mode="json"), **more}
    for step, nll in ((10, 2.0), (20, 3.0), (30, 4.0)):
        with torch.no_grad():
            model.embedding.weight.mul_(2)
        checkpointer.save(step, state, extra, {"val_nll": nll})


def invoke(command: Callable[..., None], *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def answer(command: Callable[..., None], *arguments: object) -> dict[str, Any]:
    result = invoke(command, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert isinstance(found, dict)
    return found


def error(command: Callable[..., None], *arguments: object) -> AurlTrainerError:
    caught = invoke(command, *arguments).exception
    assert isinstance(caught, AurlTrainerError), f"expected an error for people, found {caught!r}"
    return caught


def test_sample_writes_as_many_pieces_as_asked_into_the_run(run: Path) -> None:
    result = invoke(sample, run, "--n", 3, "--tokens", 40, "--seed", 7)
    assert result.exit_code == 0, result.output
    names = sorted(f.name for f in (run / "samples").iterdir())
    assert names == [f"step-000030-seed-7-{n}.mid" for n in (1, 2, 3)]
    assert all(name in result.output for name in names)
    assert all(Score(f).note_num() >= 0 for f in (run / "samples").iterdir())


def test_sample_repeats_itself_and_takes_the_checkpoint_it_is_told(run: Path, tmp_path: Path) -> None:
    def pieces(*arguments: object, which: str = "") -> tuple[int, list[bytes]]:
        found = answer(
            sample, f"{run}{which}", "--n", 2, "--tokens", 40, "--out", tmp_path / "out", *arguments
        )
        return found["step"], [Path(f).read_bytes() for f in found["files"]]

    step, newest = pieces()
    assert step == 30
    assert pieces(which="@latest") == (30, newest)
    assert pieces("--seed", 9)[1] != newest
    assert pieces(which="@step:20")[0] == 20
    step, best = pieces(which="@best")
    assert step == 10
    assert best != newest
    assert pieces("--temperature", 0.05)[1] != newest


def test_sample_goes_on_from_a_prompt(run: Path, tmp_path: Path) -> None:
    tune(9, bars=4).dump_midi(tmp_path / "p.mid")
    given = answer(sample, run, "--n", 1, "--tokens", 30, "--prompt", tmp_path / "p.mid", "--prompt-bars", 2)
    piece = Score(given["files"][0])
    assert piece.note_num() >= 14, "two bars of the prompt alone have 14 notes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["@no tag"], "latest, best"),
        (["", "--prompt-bars", "2"], "--prompt"),
        (["", "--n", "0"], "n"),
    ],
)
def test_sample_tells_wrong_arguments(run: Path, arguments: list[str], words: str) -> None:
    result = invoke(sample, f"{run}{arguments[0]}", *arguments[1:])
    assert result.exit_code == 2
    assert words in result.output
    assert not (run / "samples").exists()


def test_what_is_not_there_is_said_in_a_line(run: Path, tmp_path: Path) -> None:
    for command in (sample, evaluate):
        assert isinstance(error(command, tmp_path / "nowhere"), MissingError)
        missing = error(command, f"{run}@step:15")
        assert isinstance(missing, CheckpointError)
        assert "no checkpoint of step 15" in str(missing)
    assert isinstance(error(sample, run, "--prompt", tmp_path / "none.mid"), MissingError)
    (tmp_path / "bad.mid").write_bytes(b"nonsense")
    assert isinstance(error(sample, run, "--prompt", tmp_path / "bad.mid"), DataError)
    assert not (run / "samples").exists()


def test_evaluate_is_the_mean_over_all_held_out_tokens(
    run: Path, model: MusicTransformerVAEGAN, prepared: PreparedData
) -> None:
    held_out = LazyMidiDataset(prepared, "validation")
    nll, tokens = 0.0, 0
    model.eval()
    for index in range(len(held_out)):
        inputs, targets = collate(held_out, torch.tensor([index]).numpy())
        with torch.no_grad():
            logp = model(inputs)[0].log_softmax(-1)
        for position in torch.nonzero(targets[0] != IGNORED).flatten().tolist():
            nll -= float(logp[position, targets[0, position]])
            tokens += 1
    found = answer(evaluate, run)
    assert (found["step"], found["tokens"]) == (30, tokens)
    assert found["nats_per_token"]["model"] == pytest.approx(nll / tokens, rel=1e-4)
    assert found["nats_per_token"]["markov2"] < found["nats_per_token"]["unigram"]
    few = answer(evaluate, f"{run}@step:10", "--samples", 1)
    assert few["tokens"] == int(held_out.targets[0])
    assert few["step"] == 10


def test_music_that_is_another_now_is_told_and_another_tokenizer_is_refused(
    experiment: Experiment, model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path
) -> None:
    """The shapes fit all the same, and what the model writes would be read as other notes."""
    here = content_of(LazyMidiDataset(prepared), LazyMidiDataset(prepared, "validation"))
    moved = here | {"digest": "f" * 64, "train": here["train"] | {"pieces": 1234}}
    for name, content in (("same", here), ("moved", moved), ("strange", here | {"vocabulary": "f" * 64})):
        saved_run(str(tmp_path / name / "checkpoints"), experiment, model, prepared=content)
    assert answer(evaluate, tmp_path / "same")["same_music"] is True
    told = invoke(evaluate, tmp_path / "moved", "--json")
    assert json.loads(told.stdout)["same_music"] is False
    assert "warning: other music than the checkpoint was trained on: train: 1,234 pieces, " in told.stderr
    assert answer(sample, tmp_path / "moved", "--n", 1, "--tokens", 20)["step"] == 30, (
        "its tokens are the same"
    )
    for command in (sample, evaluate):
        assert "knows another tokenizer" in str(error(command, tmp_path / "strange"))


def test_what_is_no_number_is_null_in_json_and_is_not_recorded(
    experiment: Experiment, model: MusicTransformerVAEGAN, tmp_path: Path
) -> None:
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    saved_run(str(tmp_path / "nan" / "checkpoints"), experiment, model)
    assert answer(evaluate, tmp_path / "nan")["nats_per_token"]["model"] is None
    told = answer(average, tmp_path / "nan", "--last", 2)
    assert told["val_nll"] is None and told["recorded"] is False
    assert open_manifest(told["uri"]).metrics == {}


def test_evaluate_prints_a_table(run: Path) -> None:
    result = invoke(evaluate, run)
    assert result.exit_code == 0, result.output
    for words in ("this model", "unigram", "order-2 Markov", "nats/token"):
        assert words in result.output


def test_an_average_is_measured_beside_its_parents_and_used_like_any_other(
    run: Path, model: MusicTransformerVAEGAN, tmp_path: Path
) -> None:
    steps = [f"{run}@step:{step}" for step in (10, 30)]
    told = answer(average, *steps)
    place = tmp_path / "run-average-30"
    assert told["uri"] == str(place) and told["not_measured"] is None
    nlls = [answer(evaluate, which)["nats_per_token"]["model"] for which in (*steps, place)]
    assert [*(p["val_nll"] for p in told["parents"]), told["val_nll"]] == pytest.approx(nlls, rel=1e-6)
    assert len(set(nlls)) == 3, "all three are alike, so nothing is shown"
    assert answer(evaluate, f"{place}@best")["step"] == 30
    assert answer(sample, place, "--n", 1, "--tokens", 20, "--out", tmp_path / "out")["step"] == 30
    file = tmp_path / "mean.safetensors"
    assert answer(export, place, "--to", file)["step"] == 30
    begun = load_initial(str(place), Latest(), model)
    assert not (begun.missing or begun.extra or begun.unlike), begun.lines()
    assert torch.equal(model.embedding.weight, load_file(file)["embedding.weight"])


def test_an_average_is_not_measured_on_other_music_than_its_runs(
    experiment: Experiment, model: MusicTransformerVAEGAN, prepared: PreparedData, tmp_path: Path
) -> None:
    here = content_of(LazyMidiDataset(prepared), LazyMidiDataset(prepared, "validation"))
    other = here | {"digest": "f" * 64, "train": here["train"] | {"pieces": 1234}}
    for name, content in (("same", here), ("other", other)):
        saved_run(str(tmp_path / name / "checkpoints"), experiment, model, prepared=content)
    assert answer(average, tmp_path / "same", "--last", 2)["not_measured"] is None
    told = answer(average, tmp_path / "other", "--last", 2)
    assert told["val_nll"] is None
    assert told["not_measured"].startswith("the music that is here now is not theirs: train: 1,234 pieces, ")


def test_an_average_at_a_place_with_a_password_is_measured_and_lies_beside_its_run(
    experiment: Experiment, model: MusicTransformerVAEGAN
) -> None:
    above = f"memory://me:s3cr3t@host/{secrets.token_hex(4)}"
    saved_run(f"{above}/bach/checkpoints", experiment, model)
    told = answer(average, f"{above}/bach/checkpoints", "--last", 2)
    assert told["not_measured"] is None and told["val_nll"] is not None
    assert open_manifest(f"{above}/bach-average-30").step == 30
    again = invoke(
        average, f"{above}/bach/checkpoints@v1", f"{above}/bach-average-30", "--to", f"{above}/soup"
    )
    twice = invoke(average, f"{above}/bach/checkpoints@v1", f"{above}/bach/checkpoints@step:10")
    assert again.exit_code == 0 and twice.exit_code == 2
    assert all("//***@host/" in said for said in (told["uri"], again.output, twice.output))
    assert all("s3cr3t" not in said for said in (json.dumps(told), again.output, twice.output))
    assert "s3cr3t" not in open_manifest(f"{above}/bach-average-30").to_bytes().decode()


def test_an_average_measured_on_another_number_of_samples_than_its_run_is_not_recorded_so(
    run: Path, experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    steps = [f"{run}@step:{step}" for step in (10, 30)]
    there = len(LazyMidiDataset(prepared, "validation"))
    assert there > 1 and experiment.monitor.evaluate_samples is None, "the run validates on all"
    for samples, recorded in ((1, False), (there, True), (there + 5, True), (None, True)):
        place = tmp_path / f"mean-{samples}"
        told = answer(average, *steps, "--to", place, *(("--samples", samples) if samples else ()))
        assert (told["samples"], told["recorded"]) == (min(samples or there, there), recorded)
        manifest = open_manifest(str(place))
        expected = {"val_nll": told["val_nll"]} if recorded else {}
        assert manifest.metrics == expected, f"--samples {samples}"
        parents = [p["val_nll"] for p in told["parents"]]
        found = [p["val_nll"] for p in decode(manifest.extra)["average_of"]]
        assert found == (parents if recorded else [None, None]), f"--samples {samples}"
        assert None not in parents, "it is shown all the same"
    said = invoke(average, *steps, "--to", tmp_path / "again", "--samples", 1).output
    assert "their mean  " in said and "measured on 1 of the held-out samples, and not recorded" in said


def test_an_average_is_measured_as_its_run_validates(
    run: Path, experiment: Experiment, model: MusicTransformerVAEGAN, tmp_path: Path
) -> None:
    few = experiment.model_copy(
        update={"monitor": experiment.monitor.model_copy(update={"evaluate_samples": 1})}
    )
    folder = tmp_path / "few"
    checkpointer = Checkpointer(
        str(folder), run="few", fingerprint={}, settings=few.checkpoint, rank=0, world=1
    )
    state = {"model": ModelPart(model)}
    checkpointer.open(state)
    for step in (1, 2):
        checkpointer.save(step, state, {"experiment": few.model_dump(mode="json")}, {})
    told = answer(average, folder, "--last", 2)
    assert (told["samples"], told["recorded"]) == (1, True)


def test_help_teaches_by_example_and_loads_no_torch() -> None:
    for command in (sample, evaluate):
        result = invoke(command, "--help")
        assert "Examples:" in result.output
        assert "runs/bach" in result.output
    code = (
        "import sys, aurl_trainer.commands.sample, aurl_trainer.commands.evaluate;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'symusic', 'miditok', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"importing the commands loads torch or music libraries: {done.stderr}"
