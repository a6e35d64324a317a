"""Apps of TorchX as jobs: what they say is kept, what a job cannot say is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torchx.components.dist import ddp
from torchx.schedulers import get_scheduler_factories
from torchx.specs import AppDef, Role
from torchx.specs.finder import get_components

from aurl_operator.api.load import parse_object
from aurl_operator.backends.kubernetes.pod_log import Wanted
from aurl_operator.backends.kubernetes.reading import _is
from aurl_operator.errors import UsageError
from aurl_operator.torchx.components import train
from aurl_operator.torchx.scheduler import _described, create_scheduler
from aurl_operator.torchx.translate import job_object


def spec(app: AppDef, **options: Any) -> dict[str, Any]:
    job = job_object(app, options)
    parse_object(job)
    found: dict[str, Any] = job["spec"]
    return found


def test_ddp_is_a_command_job() -> None:
    app = ddp(
        *("--lr", "0.1", "--text", "a b $HOME"),
        script="train.py",
        j="2:4x8",
        image="me/img:1",
        cpu=8,
        gpu=8,
        memMB=64000,
        env={"A": "b"},
    )
    found = spec(app)
    assert found["command"] == ["train.py", "--lr", "0.1", "--text", "a b $HOME"]
    assert found["nodes"] == {"min": 2, "max": 4}
    assert found["procsPerNode"] == 8
    assert found["image"] == "me/img:1"
    assert found["resources"]["requests"] == {"cpu": "8", "memory": "64000Mi"}
    assert found["resources"]["limits"] == {"memory": "64000Mi", "nvidia.com/gpu": "8"}
    assert found["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "b"}]


def test_defaults_that_nobody_chose_are_not_asked_for() -> None:
    found = spec(ddp(m="my.module", j="1x1"))
    assert found["command"] == ["-m", "my.module"]
    assert not {"resources", "image", "template"} & set(found)


def test_train_is_a_training_job() -> None:
    found = spec(
        train("quick_test", name="bach", j="1:2x1", checkpoint="s3://b/r", secret="s3", steps=20, seed=0)
    )
    assert found["training"] == {"preset": "quick_test", "overrides": {"engine": {"steps": 20}, "seed": 0}}
    assert found["nodes"] == {"min": 1, "max": 2}
    assert found["checkpoint"] == {"uri": "s3://b/r", "secret": "s3"}


def test_train_is_a_program_for_other_schedulers() -> None:
    role = train("quick_test").roles[0]
    assert [role.entrypoint, *role.args][:4] == ["python", "-m", "aurl_trainer.agent", "run"]
    experiment = json.loads(role.env["AURL_EXPERIMENT"].replace("$$", "$"))
    assert experiment["engine"]["steps"] > 0


def test_options_of_the_scheduler_are_laid_over() -> None:
    found = spec(train(), image="x:1", secret="s", checkpoint="s3://b", priority_class="high", pods="All")
    assert found["image"] == "x:1"
    assert found["checkpoint"] == {"secret": "s", "uri": "s3://b"}
    assert found["scheduling"] == {"priorityClass": "high"}
    assert found["cleanup"] == {"pods": "All"}


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (AppDef("a", [Role("one", "x"), Role("two", "x")]), "one, two"),
        (AppDef("a", [Role("one", "x", entrypoint="sleep", args=["1"])]), "does not start torchrun"),
        (ddp(script="t.py", j="1x1", max_retries=3), "max_retries=3"),
        (ddp(script="t.py", j="2x1", rdzv_backend="static"), "rdzv_backend=static"),
        (ddp(script="t.py", j="1x1", mounts=["type=bind", "src=/a", "dst=/b"]), "mounts"),
        (AppDef("a", [Role("one", "x", entrypoint="torchrun", args=["--nnodes", "1"])]), "no script"),
        (AppDef("a", [Role("one", "x", entrypoint="torchrun", args=["--what", "1", "t.py"])]), "--what"),
    ],
)
def test_what_a_job_cannot_say_is_refused_by_name(app: AppDef, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        job_object(app, {})


def test_a_wrong_experiment_is_named() -> None:
    with pytest.raises(Exception, match="no-such-preset"):
        train("no-such-preset")


def test_the_built_in_schedulers_and_components_are_still_there() -> None:
    assert {"aurl", "local_cwd", "kubernetes", "slurm"} <= set(get_scheduler_factories())
    components = get_components()
    assert {"aurl.train", "dist.ddp", "utils.echo"} <= set(components)
    assert not components["aurl.train"].validation_errors


def test_a_dry_run_shows_the_job() -> None:
    shown = str(create_scheduler("s").submit_dryrun(train(name="bach"), {"namespace": "music"}))
    assert "kind: AurlTrainingJob" in shown
    assert "namespace: music" in shown


@pytest.mark.parametrize("option", ["--nnodes=auto", "--nproc_per_node=gpu"])
def test_a_number_that_torchrun_would_find_out_is_refused_by_name(option: str) -> None:
    role = Role(name="x", image="me/img:1", entrypoint="torchrun", args=[option, "train.py"])
    with pytest.raises(UsageError, match=option.removeprefix("--")):
        spec(AppDef(name="x", roles=[role]))


def test_a_pod_that_lost_its_labels_is_described() -> None:
    process = json.dumps({"role": "node", "index": 1, "attempt": 0, "round": 1})
    pod = {
        "metadata": {"name": "bach-worker-1-0", "labels": {}, "annotations": {"aurl.dev/process": process}},
        "spec": {"nodeName": "node-2"},
        "status": {"phase": "Running"},
    }
    job = {"metadata": {"name": "bach"}, "spec": {}, "status": {"phase": "Running"}}
    (role,) = _described("music:bach", job, [pod]).roles_statuses
    assert [(replica.id, replica.hostname) for replica in role.replicas] == [(1, "node-2")]
    assert _is(pod, Wanted(index=1)) and not _is(pod, Wanted(index=0)) and not _is(pod, Wanted(role="store"))
