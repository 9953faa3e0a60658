"""`omnisource export`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.progress import say


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="What to write: NAME.onnx or NAME.pt2.", show_default=False)],
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.", show_default="the training's")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of a crop.", show_default="the training's")] = None,
) -> None:
    """Export a network to ONNX or torch.export, and check it against the original.

    Example: omnisource export last.safetensors network.onnx
    """
    from omnisource.predict import export as run

    worst = run(checkpoint, out, frames=frames, size=size)
    say(f"{out}: largest difference of a logit {worst:.1e}")
