"""One job as a TorchX AppDef: the role of its nodes as `dist.ddp` would build it, and that of its store.

`dist.ddp` starts torchrun in `bash -c`; here the role starts our agent, which takes torchrun's arguments,
and no shell lies between a notice and who must hear it. Not here: what is different on each node
(`node.py`), pods and processes (`backends/`), and any budget: restarts are decided by `core/`, so roles have
no retries.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from torchx.specs import AppDef, Role
from torchx.specs.api import RetryPolicy

from aurl_operator.api.spec import AurlTrainingJob
from aurl_trainer.contract import RANK_MODULES, Env

NODES = "trainer"
"""Name of the nodes' role."""

STORE = "store"
"""Name of the rendezvous store's role."""

RDZV_CONF = {
    "is_host": "false",
    "last_call_timeout": "5",
    "join_timeout": str(10 * 365 * 86400),
    "keep_alive_interval": "2",
    "keep_alive_max_attempt": "3",
}
"""The store is a process of its own; nodes wait for others for as long as the operator lets them; a node that
is silent for 6 s is out of the next world."""


@dataclass(frozen=True)
class Launch:
    """What one start of a job decides for all of its nodes.

    `run` identifies the run; `rendezvous` is the id of the rendezvous, another one with each new store;
    `nodes` is the range (min, max) of this rendezvous; `store` is the store's `host:port`, None for a job
    of one node. `address` is the node's own address and `log_dir` a folder for what ranks print; both may
    hold TorchX macros. `experiment` is the resolved experiment of a `training` job.
    """

    run: str
    rendezvous: str
    nodes: tuple[int, int]
    store: str | None
    address: str
    python: str = "python"
    agent: tuple[str, ...] = ("-m", "aurl_trainer.agent")
    """How Python finds the agent: a module that is installed, or a folder that was mounted."""
    run_dir: str | None = None
    log_dir: str | None = None
    experiment: dict[str, object] | None = None


def app_def(job: AurlTrainingJob, launch: Launch) -> AppDef:
    """The job's roles. The store's is there only if more than one node may train."""
    roles = [_nodes(job, launch)]
    if launch.store is not None:
        roles.append(_store(job, launch, launch.store))
    return AppDef(name=job.metadata.name, roles=roles)


def literal(text: str) -> str:
    """`text` so that TorchX's macros leave it as it is: they take `$` for their own."""
    return text.replace("$", "$$")


def _nodes(job: AurlTrainingJob, launch: Launch) -> Role:
    spec = job.spec
    least, most = launch.nodes
    conf = RDZV_CONF if launch.store is not None else {}
    arguments = {
        "--nnodes": f"{least}:{most}",
        "--nproc-per-node": str(spec.procs_per_node),
        "--rdzv-backend": "c10d",
        "--rdzv-endpoint": launch.store or "localhost:0",
        "--rdzv-id": launch.rendezvous,
        "--rdzv-conf": ",".join(f"{name}={value}" for name, value in conf.items()),
        "--local-addr": launch.address,
        "--log-dir": launch.log_dir,
        "--tee": "3" if launch.log_dir else None,
    }
    program = ["-m", "aurl_trainer", "train"] if spec.command is None else [literal(a) for a in spec.command]
    return Role(
        name=NODES,
        image=spec.image or "",
        entrypoint=launch.python,
        args=[
            *launch.agent,
            "run",
            *(part for name, value in arguments.items() if value for part in (name, value)),
            *program,
        ],
        env=_nodes_env(job, launch),
        min_replicas=least,
        num_replicas=most,
        max_retries=0,
        retry_policy=RetryPolicy.REPLICA,
        port_map={} if launch.store is None else {"c10d": _port(launch.store)},
    )


def _nodes_env(job: AurlTrainingJob, launch: Launch) -> dict[str, str]:
    spec = job.spec
    env = {
        Env.JOB: job.metadata.name,
        Env.RUN_ID: launch.run,
        Env.GRACE_SECONDS: str(spec.termination_grace_period_seconds),
        Env.HANG_LIMITS: json.dumps(spec.recovery.hang.limits.seconds()),
        # With a store shared by agent and ranks, a scale-up ends in DistStoreError after 60 s.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PYTHONUNBUFFERED": "1",
        "LOGLEVEL": "WARNING",
    }
    if launch.store is not None:
        env[Env.STORE] = launch.store
    if launch.run_dir is not None:
        env[Env.RUN_DIR] = literal(launch.run_dir)
    if launch.experiment is not None:
        env[Env.EXPERIMENT] = literal(json.dumps(launch.experiment))
        env[Env.PRELOAD] = RANK_MODULES
    return {str(name): value for name, value in env.items()}


def _store(job: AurlTrainingJob, launch: Launch, endpoint: str) -> Role:
    host, _, port = endpoint.rpartition(":")
    env = {str(Env.JOB): job.metadata.name, str(Env.RUN_ID): launch.run}
    if launch.run_dir is not None:
        env[str(Env.RUN_DIR)] = literal(launch.run_dir)
    return Role(
        name=STORE,
        image=job.spec.image or "",
        entrypoint=launch.python,
        args=[*launch.agent, "store", "--host", host, "--port", port],
        env=env,
        num_replicas=1,
        max_retries=0,
        retry_policy=RetryPolicy.REPLICA,
        port_map={"c10d": int(port)},
    )


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])
