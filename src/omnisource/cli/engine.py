"""The options of verbs that can run on a cluster."""

from typing import Annotated, Literal

import typer

EngineKind = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="Where to work: on this machine, or on a Ray cluster.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of the Ray cluster; default: the one this machine is in.", show_default=False),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Decoding processes a machine; default: one a CPU.", show_default=False),
]
Gpus = Annotated[float, typer.Option("--gpus", min=0, help="GPUs that one network on the cluster takes.")]
