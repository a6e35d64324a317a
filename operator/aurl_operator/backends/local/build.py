"""What a start of the core becomes on this machine: the TorchX role, its places filled in.

Not here: the roles (`launch/appdef.py`), and starting (`nodes.py`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.backends.local.nodes import Assignment, Build
from aurl_operator.backends.local.process.follow import RANK_PREFIX
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.appdef import NODES, STORE, Launch, app_def, literal
from aurl_operator.launch.command import Command
from aurl_operator.launch.experiment import experiment
from aurl_operator.launch.node import Place, command
from aurl_trainer.contract import RunFile

LOOPBACK = "127.0.0.1"


def builder(job: AurlTrainingJob, run_id: str, run_dir: Path) -> Build:
    """Makes the command of each start of `job` in `run_dir`."""
    trained = experiment(job, checkpoints_url(run_dir))
    content = None if trained is None else trained.model_dump(mode="json")
    surroundings = _surroundings(job)

    def build(start: Start, assignment: Assignment) -> Command:
        node = start.name.rpartition("-")[0]
        is_store = start.role is Role.STORE
        launch = Launch(
            run=run_id,
            rendezvous=start.rdzv_id,
            nodes=(start.nodes_min, start.nodes_max),
            store=f"{LOOPBACK}:{assignment.port}" if is_store else start.store,
            address=LOOPBACK,
            python=sys.executable,
            run_dir=str(run_dir),
            log_dir=literal(str(run_dir / RunFile.LOGS / "ranks" / start.name)),
            experiment=content,
        )
        roles = {role.name: role for role in app_def(job, launch).roles}
        place = Place(
            name=node,
            index=start.index,
            attempt=start.attempt,
            trained=start.trained,
            uid=assignment.uid,
            termination_log=str(assignment.termination_log),
            progress_port=None if is_store else assignment.port,
            log_line_prefix=None if is_store else RANK_PREFIX.format(node=node) + " ",
        )
        made = command(roles[STORE if is_store else NODES], place)
        return Command(made.argv, {**surroundings, **made.env})

    return build


def checkpoints_url(run_dir: Path) -> str:
    """Where checkpoints go that the job gives no place."""
    return (run_dir / RunFile.CHECKPOINTS).resolve().as_uri()


def _surroundings(job: AurlTrainingJob) -> Mapping[str, str]:
    """What one machine needs that a cluster does not, where the user has not said otherwise.

    All ranks share the cores, and talk over the loopback interface, whatever the host's name resolves to.
    """
    ranks = job.spec.nodes.max * job.spec.procs_per_node
    wanted = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        wanted["GLOO_SOCKET_IFNAME"] = loopback
    return {name: value for name, value in wanted.items() if name not in os.environ}
