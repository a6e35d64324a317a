"""From torchrun's arguments and the environment to a node that is connected and ready to live.

Not here: what happens then (node.py), signals and how the process ends (__main__.py).
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch._C._distributed_c10d import TCPStore
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.rendezvous.api import RendezvousParameters
from torch.distributed.launcher.api import LaunchConfig
from torch.distributed.run import config_from_args, get_args_parser

from aurl_trainer.agent.board import BEAT_TIMEOUT, address, bar, connect, listen
from aurl_trainer.agent.node import Node
from aurl_trainer.agent.processes import bound
from aurl_trainer.agent.pulse import Pulse
from aurl_trainer.agent.rendezvous import RENDEZVOUS_DEFAULTS, Rendezvous
from aurl_trainer.agent.settings import Settings
from aurl_trainer.contract import Env


@dataclass(frozen=True)
class Launch:
    """What torchrun's arguments and the environment say together. The store lives as long as `server`."""

    settings: Settings
    config: LaunchConfig
    entrypoint: str
    arguments: tuple[str, ...]
    store: str
    server: TCPStore | None


def read_launch(arguments: Sequence[str], scratch: str) -> Launch:
    """Read arguments and environment. Ends the process, as argparse does, if they are wrong."""
    parser = get_args_parser()
    parser.prog = "agent run"
    args = parser.parse_args(arguments)
    if args.run_path:
        parser.error("--run-path is not supported: ranks are processes of their own")
    store, server = os.environ.get(Env.STORE), None
    if store is None and args.nnodes.split(":")[-1] == "1":
        server = listen("127.0.0.1", 0)
        store = f"127.0.0.1:{server.port}"
    store = store or args.rdzv_endpoint
    if not store:
        parser.error(f"several nodes need the address of a store: set {Env.STORE} or --rdzv-endpoint")
    args.rdzv_backend, args.rdzv_endpoint = "c10d", store
    if args.rdzv_id == "none":
        args.rdzv_id = os.environ.get(Env.RUN_ID) or uuid.uuid4().hex
    if args.redirects == "0" and args.tee == "0":
        args.tee = "3"  # the tail of stderr is all that a foreign script leaves
    args.log_dir = args.log_dir or scratch
    os.environ.setdefault("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "[rank ${rank}] ")
    # torch: with one store for agents and ranks, a scale-up or a replacement ends in DistStoreError.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if args.nproc_per_node.isdigit():
        os.environ.setdefault("TORCH_ELASTIC_WORKER_IDENTICAL", "1")
    try:
        settings = Settings.from_environment()
        address(store)
        config, command, rest = config_from_args(args)
    except (AssertionError, ValueError) as error:
        parser.error(str(error))
    os.environ[Env.STORE] = store
    entry, *shim = bound([cast(str, command), *rest])
    return Launch(settings, config, entry, tuple(shim), store, server)


def make_node(launch: Launch, notice: threading.Event) -> tuple[Pulse, Node]:
    """Reach the store, for as long as that may take, and make the node."""
    config, settings = launch.config, launch.settings
    # torch would handle signals in the main thread, where we do, and warns that it cannot in this one.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)
    conf = RENDEZVOUS_DEFAULTS | config.rdzv_configs
    parameters = RendezvousParameters(
        "c10d", launch.store, config.run_id, config.min_nodes, config.max_nodes, config.local_addr, **conf
    )
    store = connect(launch.store, float(conf["read_timeout"]), float(conf["connect_timeout"]))
    bar(store, [uid for uid in os.environ.get(Env.BARRED, "").split(",") if uid])
    handler = Rendezvous.create(store, parameters, notice.is_set)
    pulse = Pulse(
        connect(launch.store, BEAT_TIMEOUT, 30.0), config.run_id, settings.node, settings.peer_timeout
    )
    pulse.start()
    spec = WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=launch.entrypoint,
        args=launch.arguments,
        rdzv_handler=handler,
        max_restarts=config.max_restarts,
        monitor_interval=config.monitor_interval,
        local_addr=config.local_addr,
        event_log_handler=config.event_log_handler,
        numa_options=config.numa_options,
        duplicate_stdout_filters=config.duplicate_stdout_filters,
        duplicate_stderr_filters=config.duplicate_stderr_filters,
        virtual_local_rank=config.virtual_local_rank,
    )
    node = Node(
        spec,
        handler,
        settings,
        pulse,
        notice,
        logs_specs=config.logs_specs,
        start_method=config.start_method,
        log_line_prefix_template=config.log_line_prefix_template,
    )
    return pulse, node
