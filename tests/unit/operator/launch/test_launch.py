"""From a job to roles and commands."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from aurl_operator.api.load import parse_job
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.launch.appdef import NODES, STORE, Launch, app_def
from aurl_operator.launch.experiment import as_it_runs, experiment, identity
from aurl_operator.launch.node import Place, command
from aurl_trainer.config.document import Document
from aurl_trainer.contract import DEFAULT_HANG_LIMITS, Env
from aurl_trainer.errors import ConfigError


def job(**spec: object) -> AurlTrainingJob:
    value = {
        "apiVersion": "aurl.dev/v1alpha1",
        "kind": "AurlTrainingJob",
        "metadata": {"name": "tiny"},
        "spec": {"command": ["train.py"], **spec},
    }
    if "training" in spec:
        del value["spec"]["command"]
    return parse_job(Document(value, "job.yaml"))


def launch(**changes: object) -> Launch:
    fields = {
        "run": "r1",
        "rendezvous": "r1-1",
        "nodes": (1, 3),
        "store": "127.0.0.1:7000",
        "address": "10.0.0.7",
    }
    return Launch(**{**fields, **changes})


def place(**changes: object) -> Place:
    fields = {
        "name": "worker-2",
        "index": 2,
        "attempt": 1,
        "uid": "u",
        "termination_log": "/dev/termination-log",
    }
    return Place(**{**fields, **changes})


def options(arguments: list[str]) -> dict[str, str]:
    return {n: v for n, v in itertools.pairwise(arguments) if n.startswith("--")}


def test_torchx_brings_no_torch() -> None:
    code = "import sys, aurl_operator.launch.appdef, aurl_operator.launch.node; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", "the operator's image has no torch"


def test_several_nodes_meet_in_a_store_of_their_own() -> None:
    app = app_def(job(nodes={"min": 1, "max": 3}, procsPerNode=2), launch())
    assert app.name == "tiny" and [r.name for r in app.roles] == [NODES, STORE]
    nodes, store = app.roles
    assert (nodes.min_replicas, nodes.num_replicas, nodes.max_retries) == (1, 3, 0)
    assert nodes.args[:3] == ["-m", "aurl_trainer.agent", "run"] and nodes.args[-1] == "train.py"
    given = options(nodes.args)
    assert given["--nnodes"] == "1:3" and given["--nproc-per-node"] == "2"
    assert given["--rdzv-endpoint"] == "127.0.0.1:7000" and given["--rdzv-id"] == "r1-1"
    assert "is_host=false" in given["--rdzv-conf"] and "last_call_timeout=5" in given["--rdzv-conf"]
    assert given["--local-addr"] == "10.0.0.7"
    assert nodes.env[Env.STORE] == "127.0.0.1:7000"
    assert nodes.env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert options(store.args) == {"--host": "127.0.0.1", "--port": "7000"}


def test_one_node_has_no_store() -> None:
    app = app_def(job(), launch(nodes=(1, 1), store=None))
    (nodes,) = app.roles
    assert Env.STORE not in nodes.env
    given = options(nodes.args)
    assert given["--nnodes"] == "1:1" and "--rdzv-conf" not in given


def test_training_starts_our_loop_with_the_experiment() -> None:
    trained = job(training={"preset": "quick_test"})
    content = experiment(trained).model_dump(mode="json")
    (nodes,) = app_def(trained, launch(store=None, experiment=content, run_dir="/runs/a")).roles
    assert nodes.args[-3:] == ["-m", "aurl_trainer", "train"]
    env = command(nodes, place()).env
    assert json.loads(env[Env.EXPERIMENT]) == content
    assert env[Env.RUN_DIR] == "/runs/a"


def test_each_node_knows_who_it_is() -> None:
    (nodes,) = app_def(job(terminationGracePeriodSeconds=7), launch(store=None)).roles
    made = command(nodes, place(progress_port=8123, log_line_prefix="[worker-2 rank ${rank}]: "))
    assert made.argv[0] == "python"
    assert made.env[Env.NODE] == "worker-2" and made.env[Env.NODE_INDEX] == "2"
    assert made.env[Env.ATTEMPT] == "1" and made.env[Env.NODE_UID] == "u"
    assert made.env[Env.PROGRESS_PORT] == "8123" and made.env[Env.GRACE_SECONDS] == "7"
    assert made.env[Env.TERMINATION_LOG] == "/dev/termination-log"
    assert made.env["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] == "[worker-2 rank ${rank}]: "
    limits = json.loads(made.env[Env.HANG_LIMITS])
    assert limits == {phase.value: seconds for phase, seconds in DEFAULT_HANG_LIMITS.items()}


def test_what_a_user_wrote_is_not_taken_for_a_macro() -> None:
    words = ["train.py", "--cost", "$$5", "${app_id}", "${replica_id}", "$HOME"]
    (nodes,) = app_def(job(command=words), launch(store=None)).roles
    assert list(command(nodes, place()).argv[-6:]) == words


def test_torchx_macros_are_filled_in() -> None:
    (nodes,) = app_def(job(), launch(store=None, address="host-${replica_id}")).roles
    assert options(list(command(nodes, place()).argv))["--local-addr"] == "host-2"


def test_the_jobs_checkpoint_goes_before_the_experiments() -> None:
    training = {"preset": "quick_test", "overrides": {"checkpoint": {"every": 7, "uri": "memory://a"}}}
    plain = experiment(job(training=training), "file:///runs/a/checkpoints").checkpoint
    assert (plain.uri, plain.every) == ("memory://a", 7)
    asked = {"uri": "s3://b/c", "every": 9, "keep": {"best": 4}}
    merged = experiment(job(training=training, checkpoint=asked), "file:///x").checkpoint
    assert (merged.uri, merged.every, merged.keep.best, merged.keep.latest) == ("s3://b/c", 9, 4, 3)
    rules = {"by": {"groove": -1}, "everySteps": 500, "everyMinutes": 60, "graceSeconds": 0}
    keep = experiment(job(training=training, checkpoint={"keep": rules})).checkpoint.keep
    assert (keep.by, keep.every_steps, keep.every_minutes, keep.grace_seconds) == ({"groove": -1}, 500, 60, 0)
    nowhere = experiment(job(training={"preset": "quick_test"}), "file:///runs/a/checkpoints").checkpoint
    assert nowhere.uri == "file:///runs/a/checkpoints", "a local run has its own place"


def test_a_command_has_no_experiment() -> None:
    assert experiment(job()) is None
    assert as_it_runs(job(), None)["spec"]["command"] == ["train.py"]


def test_what_all_starts_of_a_run_share() -> None:
    first = job(training={"preset": "quick_test"}, nodes=1)
    wider = job(
        training={"preset": "quick_test", "overrides": {"monitor": {"log_every": 3}}},
        nodes={"min": 1, "max": 4},
        recovery={"crashes": {"limit": 9}},
        checkpoint={"every": 3},
    )
    assert identity(first) == identity(wider), "nodes, recovery and intervals may change"
    other = job(training={"preset": "quick_test", "overrides": {"seed": 2}})
    assert identity(first) != identity(other)
    assert identity(job(command=["a.py"])) != identity(job(command=["b.py"]))


def test_the_job_as_it_runs_is_a_job_again(tmp_path: Path) -> None:
    first = job(training={"preset": "quick_test"}, nodes=2)
    plain = as_it_runs(first, "file:///runs/a/checkpoints")
    assert "preset" not in plain["spec"]["training"], "the preset is written out"
    again = parse_job(Document(plain, "runs/a/job.yaml"))
    assert identity(again) == identity(first)
    assert experiment(again).checkpoint.uri == "file:///runs/a/checkpoints"


def test_an_experiment_that_is_not_valid_is_a_config_error() -> None:
    broken = job(training={"preset": "quick_test"}).model_copy(deep=True)
    broken.spec.training["overrides"] = {"seed": "x"}
    with pytest.raises(ConfigError, match=r"^spec\.training: seed: "):
        experiment(broken)


@pytest.mark.parametrize(
    ("asked", "uri", "expected"),
    [
        ("s3://other/run@best", "s3://b/mine", "s3://other/run@best"),
        ("bach@v3", "s3://b/mine", "s3://b/bach@v3"),
        ("bach@v3", None, "bach@v3"),
        (None, "s3://b/mine", "s3://b/first"),
    ],
)
def test_what_a_job_begins_with_goes_to_its_experiment(
    asked: str | None, uri: str | None, expected: str
) -> None:
    training = {"preset": "quick_test", "overrides": {"init_from": "first"}}
    given = {} if asked is None else {"initFrom": asked}
    place = {} if uri is None else {"uri": uri}
    found = experiment(job(training=training, checkpoint=place, **given), "file:///runs/a/checkpoints")
    assert found is not None and found.init_from == expected
