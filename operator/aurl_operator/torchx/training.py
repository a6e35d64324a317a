"""The AppDef of `aurl.train`: for schedulers of TorchX a program to start, for Aurl's own a whole spec.

Not here: the component's arguments as TorchX sees them (components.py).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torchx.components.dist import parse_nnodes
from torchx.specs import AppDef, Resource, Role, macros

from aurl_operator.api import names
from aurl_operator.api.load import parse_job
from aurl_operator.errors import UsageError
from aurl_operator.launch.experiment import experiment as resolved
from aurl_operator.torchx.translate import SPEC
from aurl_trainer.config.document import Document
from aurl_trainer.contract import RANK_MODULES, Env


def app(
    config: str,
    *,
    name: str,
    nodes: str,
    image: str,
    checkpoint: Mapping[str, Any],
    experiment: Mapping[str, Any],
    amounts: Mapping[str, int],
) -> AppDef:
    """The app that trains `config`. Raises ConfigError, UsageError."""
    try:
        least, most, procs, _ = parse_nnodes(nodes)
    except ValueError as error:
        raise UsageError(f"-j {nodes}: {error}") from None
    spec: dict[str, Any] = {
        "nodes": {"min": least, "max": most},
        "procsPerNode": procs,
        "training": _training(config, _given(experiment)),
        "checkpoint": _given(checkpoint),
    }
    if image:
        spec["image"] = image
    if any(amounts.values()):
        spec["resources"] = _resources(amounts)
    job = parse_job(
        Document(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": name},
                "spec": spec,
            },
            "aurl.train",
            {},
        )
    )
    found = resolved(job)
    assert found is not None
    role = Role(
        name=names.TRAINER_CONTAINER,
        image=image,
        entrypoint="bash" if most > 1 else "python",
        args=_program(name, least, most, procs),
        env={
            str(Env.JOB): name,
            str(Env.EXPERIMENT): json.dumps(found.model_dump(mode="json")).replace("$", "$$"),
            str(Env.PRELOAD): RANK_MODULES,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        },
        min_replicas=least,
        num_replicas=most,
        port_map={"c10d": _PORT} if most > 1 else {},
        resource=Resource(
            cpu=amounts["cpu"] or -1, gpu=amounts["nvidia.com/gpu"], memMB=amounts["memory"] or -1
        ),
        metadata={SPEC: spec},
    )
    return AppDef(name=name, roles=[role])


_PORT = 29500


def _program(name: str, least: int, most: int, procs: int) -> list[str]:
    """For schedulers that know nothing of Aurl: the agent, its rendezvous on rank 0's node as in dist.ddp."""
    before = [
        "-m",
        "aurl_trainer.agent",
        "run",
        "--nnodes",
        f"{least}:{most}",
        "--nproc-per-node",
        str(procs),
    ]
    before += ["--rdzv-backend", "c10d", "--rdzv-id", name, "--rdzv-endpoint"]
    after = ["-m", "aurl_trainer", "train"]
    if most == 1:
        return [*before, "localhost:0", *after]
    endpoint = f"$${{{macros.rank0_env}:=localhost}}:{_PORT}"
    return ["-c", f"exec python {shlex.join(before)} {endpoint} {shlex.join(after)}"]


def _training(config: str, changes: dict[str, Any]) -> dict[str, Any]:
    path = Path(config)
    if path.suffix in (".yaml", ".yml"):
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"--config {config}: {error}") from None
        if not isinstance(raw, dict):
            raise UsageError(f"--config {config}: expected a mapping")
        if not changes:
            return raw
        if "preset" not in raw:
            raise UsageError(f"--config {config}: steps and seed go with a preset; write them into the file")
        raw["overrides"] = {**raw.get("overrides", {}), **changes}
        return raw
    return {"preset": config, "overrides": changes} if changes else {"preset": config}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left at its default."""
    found = {key: _given(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in found.items() if value or (key == "seed" and value is not None)}


def _resources(amounts: Mapping[str, int]) -> dict[str, Any]:
    words = {key: f"{n}Mi" if key == "memory" else str(n) for key, n in amounts.items() if n}
    requests = {key: word for key, word in words.items() if "/" not in key}
    limits = {key: word for key, word in words.items() if key != "cpu"}
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
