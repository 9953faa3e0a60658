"""Teachers: networks trained here, and files from elsewhere (paper, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omnisource.curate.pieces import Look
from omnisource.errors import UserError
from omnisource.networks import ForeignNetwork, Meta, Network, load_checkpoint
from omnisource.recipe import Recipe
from omnisource.workspace import Workspace, content_of


@dataclass(frozen=True)
class Teacher:
    """A trained network and how it looks at samples."""

    name: str
    network: Network
    meta: Meta
    look: Look
    order: tuple[int, ...]
    """For each class of the workspace its place in the network's logits."""
    short_side: int
    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int | None = None
    """Of one forward pass on a CPU; None: PyTorch's, shared out."""


def load_teacher(
    recipe: Recipe, workspace: Workspace, name: str, classes: Sequence[str], without: int | None = None
) -> Teacher:
    """Loads a teacher and matches its classes with the workspace's.

    Args:
        without: of the teachers that are trained here, the one that left out this part of the target.

    Raises:
        UserError: it is not trained yet, does not know a class, or its file does not fit.
    """
    if name in recipe.foreign_teachers:
        return foreign_teacher(recipe, name, classes)
    training = recipe.teachers[name]
    path = workspace.run_dir(recipe.training_of(name, without)) / "last.safetensors"
    if not path.exists():
        raise UserError(f"{path}: teacher '{name}' is not trained yet; run `omnisource train`")
    network, meta = load_checkpoint(path)
    missing = sorted(set(classes) - set(meta.classes))
    if missing:
        raise UserError(f"{path}: teacher '{name}' does not know the class '{missing[0]}'; train it again")
    look = Look(network.spatial, meta.frames, meta.stride, meta.fps)
    order = tuple(meta.classes.index(label) for label in classes)
    how = (training.input.short_side, training.device, training.precision, training.threads)
    return Teacher(name, network, meta, look, order, *how)


def foreign_teacher(recipe: Recipe, name: str, classes: Sequence[str]) -> Teacher:
    """Opens a teacher from elsewhere and tries it once.

    Raises:
        UserError: its file is missing, is not of its kind or gives other outputs, or the classes do not match.
    """
    given = recipe.foreign_teachers[name]
    key = f"foreign_teachers.{name}"
    if recipe.score.features:
        raise UserError(f"{key}: a file from elsewhere gives no features; set score.features=false")
    outputs = recipe.read_names(given.classes, f"{key}.classes") if isinstance(given.classes, str) else given.classes
    network = ForeignNetwork(
        recipe.resolve(given.file),
        classes,
        outputs,
        given.map,
        layout=given.layout,
        gives=given.output,
        frames=given.frames,
        size=given.size,
    )
    meta = Meta(mean=given.mean, std=given.std, frames=given.frames, stride=given.stride, size=given.size)
    look = Look(network.spatial, given.frames, given.stride)
    return Teacher(name, network, meta, look, tuple(range(len(classes))), given.short_side, given.device, "fp32")


def look_settings(recipe: Recipe, name: str) -> dict[str, Any]:
    """What a teacher's scores depend on beside its training: for a file from elsewhere its content and all settings."""
    if name in recipe.teachers:
        training = recipe.teachers[name]
        return {"short_side": training.input.short_side, "precision": training.precision}
    given = recipe.foreign_teachers[name]
    content = content_of(recipe.resolve(given.file), f"foreign_teachers.{name}.file")
    outputs = recipe.read_names(given.classes, "classes") if isinstance(given.classes, str) else given.classes
    return given.model_dump(mode="json", exclude={"file", "device"}) | {"classes": outputs, "sha256": content}
