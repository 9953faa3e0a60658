"""Makes the miniature world: plans it, films it with a few processes, writes its lists and its truth."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from omnisource.demo.jobs import Job
from omnisource.demo.plan import CLASSES, Found, Segment, TargetRow, WebMix, WebRow, WorldSize, plan_world
from omnisource.errors import UserError
from omnisource.jobs import side_by_side
from omnisource.progress import meter

SIZES: dict[str, WorldSize] = {
    "demo": WorldSize(),
    "large": WorldSize(
        train_clips=26, test_clips=40, train_scenes=8, test_scenes=40, images=2400, clips=1600, untrimmed=96
    ),
}
"""The two sizes that have names. `demo` suits two CPU cores, `large` one GPU."""

_RECORD = "world.json"
_FORMAT = 1  # raise when the same size and seed give another world


@dataclass(frozen=True)
class World:
    """A miniature world on disk. `truth_csv` and `segments_csv` are for reports only: no stage may read them."""

    root: Path
    size: WorldSize
    seed: int
    classes: tuple[str, ...] = CLASSES

    @property
    def classes_txt(self) -> Path:
        return self.root / "classes.txt"

    @property
    def target_csv(self) -> Path:
        """path, label, split (train or test), scene; like all lists with paths relative to the list."""
        return self.root / "target.csv"

    @property
    def images_csv(self) -> Path:
        """path, query"""
        return self.root / "images.csv"

    @property
    def clips_csv(self) -> Path:
        """path, query"""
        return self.root / "clips.csv"

    @property
    def untrimmed_csv(self) -> Path:
        """path, query"""
        return self.root / "untrimmed.csv"

    @property
    def truth_csv(self) -> Path:
        """path, source, query, truth (a class, `off-topic`, or empty where broken), near_duplicate_of,
        exact_duplicate_of, broken (truncated, html, empty or random)"""
        return self.root / "truth.csv"

    @property
    def segments_csv(self) -> Path:
        """path, start_s, end_s, label: what is to be seen when in the untrimmed videos"""
        return self.root / "segments.csv"


def make_world(out: Path, *, size: str | WorldSize = "demo", seed: int = 0, workers: int = 2) -> World:
    """Films a miniature world into `out`, a folder that is empty or does not exist.

    The same size and seed give the same bytes with the same versions of NumPy, OpenCV and FFmpeg, whatever `workers`
    is. A finished world of the same size and seed is left as it is, an unfinished one does not appear under `out`.

    Raises UserError where `out` holds something else, or cannot be written.
    """
    size = _checked(size)
    world = World(out, size, seed)
    record = {"format": _FORMAT, "seed": seed, "size": asdict(size), "made_with": _versions()}
    if _is_made(out, record):
        return world
    partial_root = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial_root, ignore_errors=True)
        partial_root.mkdir(parents=True)
        plan = plan_world(size, seed, WebMix())
        with meter("filming the miniature world", len(plan.filmed) + len(plan.derived)) as bar:
            _do_all(plan.filmed, partial_root, workers, bar.advance)
            _do_all(plan.derived, partial_root, workers, bar.advance)
        _write_lists(World(partial_root, size, seed), plan.target, plan.web, plan.segments)
        (partial_root / _RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if out.exists():
            out.rmdir()
        partial_root.rename(out)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{out}: cannot write the demo world ({why}): mend that or name another folder") from error
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)
    return world


def _checked(size: str | WorldSize) -> WorldSize:
    if isinstance(size, str):
        if size not in SIZES:
            raise UserError(f"size {size!r}: must be one of {', '.join(SIZES)}")
        return SIZES[size]
    for name in ("train_clips", "test_clips", "train_scenes", "test_scenes"):
        if getattr(size, name) < 1:
            raise UserError(f"WorldSize.{name} is {getattr(size, name)}: must be at least 1")
    for name in ("images", "clips", "untrimmed"):
        if getattr(size, name) < 0:
            raise UserError(f"WorldSize.{name} is {getattr(size, name)}: must not be negative")
    if size.width % 2 or size.height % 2 or min(size.width, size.height) < 32:
        raise UserError(f"WorldSize is {size.width}x{size.height} pixels: both must be even and at least 32")
    return size


def _is_made(out: Path, record: dict[str, Any]) -> bool:
    """True where `out` holds just this world; a UserError where it holds anything else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out}: is a file, must be a folder that is empty or new")
    if not any(out.iterdir()):
        return False
    try:
        if json.loads((out / _RECORD).read_text()) == json.loads(json.dumps(record)):
            return True
    except (OSError, ValueError):
        pass
    raise UserError(f"{out}: holds something else than this demo world: name an empty or new folder, or delete it")


def _do_all(jobs: Sequence[Job], root: Path, workers: int, advance: Callable[[], None]) -> None:
    # Long jobs first, so that no process is left alone with one at the end.
    ordered = sorted(jobs, key=lambda job: -sum(take.seconds for take in getattr(job, "takes", ())))
    for _ in side_by_side(partial(_do, root=root), ordered, workers):
        advance()


def _do(job: Job, root: Path) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # with more, some filters round differently
    try:
        job.do(root)
    finally:
        cv2.setNumThreads(threads)


def _write_lists(world: World, target: list[TargetRow], web: list[WebRow], segments: list[Segment]) -> None:
    world.classes_txt.write_text("".join(f"{name}\n" for name in world.classes))
    _write_csv(world.target_csv, TargetRow, target)
    for path in (world.images_csv, world.clips_csv, world.untrimmed_csv):
        _write_csv(path, Found, [Found(row.path, row.query) for row in web if row.source == path.stem])
    _write_csv(world.truth_csv, WebRow, web)
    _write_csv(world.segments_csv, Segment, segments)


def _write_csv(path: Path, kind: type, rows: Sequence[Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(kind))
        writer.writerows(sorted(astuple(row) for row in rows))


def _versions() -> dict[str, str]:
    return {"numpy": np.__version__, "opencv": cv2.__version__, "av": av.__version__}
