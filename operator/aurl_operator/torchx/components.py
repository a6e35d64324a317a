"""TorchX components of Aurl: `torchx run -s aurl aurl.train --config quick_test`.

TorchX shows every function of this module as a component, so imports stand inside.
"""

import torchx.specs as specs


def train(
    config: str = "quick_test",
    name: str = "train",
    j: str = "1x1",
    image: str = "",
    checkpoint: str = "",
    secret: str = "",
    every: int = 0,
    steps: int = 0,
    seed: int = -1,
    cpu: int = 0,
    memMB: int = 0,  # noqa: N803
    gpu: int = 0,
) -> specs.AppDef:
    """Train a music model, on a cluster (-s aurl) or on this machine (-s local_cwd).

    Args:
        config: a preset (quick_test, high_quality) or a YAML file with an experiment
        name: the job's name; a name names one run for ever, so that it is never trained twice
        j: [{min_nnodes}:]{nnodes}x{nproc_per_node}
        image: image of the nodes; default: the operator's
        checkpoint: fsspec URL of the run, as in s3://bucket/run
        secret: secret whose keys become environment variables of the nodes
        every: steps between saves; 0: as the experiment says
        steps: steps in all; 0: as the experiment says
        seed: seed of the run; -1: as the experiment says
        cpu: CPUs of each node; 0: not asked for
        memMB: memory of each node in MB; 0: not asked for
        gpu: GPUs of each node
    """
    from aurl_operator.torchx.plain import say_plainly
    from aurl_operator.torchx.training import app

    say_plainly()
    return app(
        config,
        name=name,
        nodes=j,
        image=image,
        checkpoint={"uri": checkpoint, "secret": secret, "every": every},
        experiment={"engine": {"steps": steps or None}, "seed": None if seed < 0 else seed},
        amounts={"cpu": cpu, "memory": memMB, "nvidia.com/gpu": gpu},
    )
