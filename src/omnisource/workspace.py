"""Where things lie, and which stages are finished.

WORKSPACE/tables/NAME.parquet   the tables
WORKSPACE/stages/NAME.json      one record a finished stage
WORKSPACE/partial/NAME/         the journal of a stage that is under way
WORKSPACE/runs/NAME/            trainings
WORKSPACE/media/                collected and prepared media
WORKSPACE/report/               the report
WORKSPACE/ablation/             what `ablate` measured, and workspaces of the splits that it trains on
"""

import fcntl
import hashlib
import json
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnisource import __version__
from omnisource.errors import UserError
from omnisource.recipe import Recipe
from omnisource.scratch import sweep
from omnisource.tables import write_json


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage did, from what, and what it wrote."""

    stage: str
    stamp: str  # new each time the stage does its work
    fingerprint: str  # of its settings and of the stamps of the stages before it
    outputs: dict[str, int]  # path relative to the workspace -> bytes
    counts: dict[str, Any]  # what the stage wants to be known by: rows, kept, measured thresholds ...
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished_at: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    fresh: bool = False  # True in the process that did the work; False when the record was found


@dataclass(frozen=True)
class Basis:
    """What the result of a stage depends on: its settings, and the stages whose outputs it reads."""

    stage: str
    settings: dict[str, Any]
    after: list[str]


_DAMAGED = "{path}: unreadable stage record ({error}); delete it to redo the stage"
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("stage", "stamp", "fingerprint", "finished_at"), str),
    **dict.fromkeys(("outputs", "counts", "settings", "versions"), dict),
    "seconds": (int, float),
}


def fingerprint(value: object) -> str:
    """A short hash of any JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def content_of(path: Path, key: str) -> str:
    """The SHA-256 of a file: what a result came from is known by content, for another file may take the name.

    Raises:
        UserError: it can't be read; `key` is where the recipe names it.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend {key}") from None


class Workspace:
    """A folder that holds everything a recipe makes. Use `open_workspace`, which also locks it."""

    def __init__(self, root: Path, *, follows: bool = False) -> None:
        self.root = root
        # True in the processes of a `torchrun` that work along with the one that keeps the records.
        self.follows = follows

    def table(self, name: str) -> Path:
        """Path of the table `name`."""
        return self.root / "tables" / f"{name}.parquet"

    def run_dir(self, name: str) -> Path:
        """Folder of the training `name`."""
        return self.root / "runs" / name

    def partial(self, stage: str) -> Path:
        """Folder in which an unfinished stage keeps what it has."""
        return self.root / "partial" / stage

    def media_dir(self, name: str) -> Path:
        """Folder of media that OmniSource itself wrote (collected, prepared)."""
        return self.root / "media" / name

    def classes(self) -> list[str]:
        """The class names, in the order that class indices follow.

        Raises:
            UserError: nothing has been ingested yet.
        """
        record = self.record("ingest")
        if record is None:
            raise UserError(f"{self.root}: nothing ingested yet; run `omnisource ingest`")
        classes = record.counts.get("classes")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise self.damaged("ingest", "no list of classes")
        return classes

    @property
    def ablation_dir(self) -> Path:
        """The folder of `ablate`."""
        return self.root / "ablation"

    @property
    def report_path(self) -> Path:
        """The report's HTML file."""
        return self.root / "report" / "index.html"

    def record(self, stage: str) -> StageRecord | None:
        """The record of a finished stage, or None."""
        path = self._record_path(stage)
        try:
            found = StageRecord(**json.loads(path.read_text(encoding="utf-8")))
            for name, kind in _KINDS.items():
                if not isinstance(getattr(found, name), kind):
                    raise TypeError(f"{name} is a {type(getattr(found, name)).__name__}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise self.damaged(stage, error) from error
        return found

    def damaged(self, stage: str, error: object) -> UserError:
        """The error of a stage's record in which something is wrong."""
        return UserError(_DAMAGED.format(path=self._record_path(stage), error=str(error)[:200]))

    def records(self) -> list[StageRecord]:
        """All finished stages, in the order in which they finished."""
        names = [path.stem for path in (self.root / "stages").glob("*.json")]
        found = [record for name in names if (record := self.record(name))]
        return sorted(found, key=lambda record: record.finished_at)

    def mark(self, stage: str, settings: Mapping[str, Any], after: Sequence[str]) -> str:
        """The fingerprint that the record of a stage with these settings has while it is current.

        Raises:
            UserError: a stage before it has not run.
        """
        return fingerprint({"settings": settings, "after": {name: self._stamp(stage, name) for name in after}})

    def is_current(self, basis: Basis) -> bool:
        """Whether a stage that rests on this would be left as it is: same settings, same inputs, outputs as written."""
        record = self.record(basis.stage)
        if record is None or not self._intact(record):
            return False
        return record.fingerprint == self.mark(basis.stage, basis.settings, basis.after)

    def run_stage(
        self,
        stage: str,
        *,
        settings: Mapping[str, Any],
        after: Sequence[str],
        outputs: Sequence[Path],
        work: Callable[[str], Mapping[str, Any]],
    ) -> StageRecord:
        """Does a stage's work unless it is current: same settings, same inputs, outputs as they were written.

        Args:
            stage: name; may hold dashes, e.g. `train-student-0`.
            settings: everything from the recipe that the result depends on.
            after: stages whose outputs are read; when one of them is redone, this one is stale.
            outputs: files that `work` writes.
            work: called with the fingerprint (for journals); returns counts for the record.
        """
        mark = self.mark(stage, settings, after)
        record = self.record(stage)
        written = {str(path.relative_to(self.root)) for path in outputs}
        if record and record.fingerprint == mark and written <= record.outputs.keys() and self._intact(record):
            self._clear(stage)  # what a process left that was killed just after it wrote the record
            return record
        if not self.follows:
            self._record_path(stage).unlink(missing_ok=True)
        started = time.monotonic()
        try:
            counts = work(mark)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(stage)  # for whoever says what was interrupted
            raise
        record = StageRecord(
            stage=stage,
            stamp=uuid.uuid4().hex[:12],
            fingerprint=mark,
            outputs={str(path.relative_to(self.root)): path.stat().st_size for path in outputs},
            counts=dict(counts),
            settings=dict(settings),
            seconds=round(time.monotonic() - started, 3),
            finished_at=datetime.now(UTC).isoformat(),
            versions=versions(),
        )
        if not self.follows:
            write_json(self._record_path(stage), asdict(record))
            self._clear(stage)  # not before: killed between the two, or for want of space, it would all be done again
        return replace(record, fresh=True)

    def _clear(self, stage: str) -> None:
        """Removes the journal of a stage that is finished."""
        if not self.follows:
            shutil.rmtree(self.partial(stage), ignore_errors=True)

    def _record_path(self, stage: str) -> Path:
        return self.root / "stages" / f"{stage}.json"

    def _stamp(self, stage: str, before: str) -> str:
        record = self.record(before)
        if record is None:
            verb = "camera fit" if before == "camera" else before.partition("-")[0]  # `train-all-0` is of `train`
            raise UserError(
                f"{self.root}: stage '{stage}' needs '{before}', which has not run; run `omnisource {verb}`"
            )
        return record.stamp

    def _intact(self, record: StageRecord) -> bool:
        files = {self.root / name: size for name, size in record.outputs.items()}
        return all(path.exists() and path.stat().st_size == size for path, size in files.items())


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    import torch

    return {"omnisource": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}


def default_workspace(recipe: Recipe) -> Path:
    """Where a recipe works when nobody says otherwise."""
    return Path("workspaces") / recipe.name


def find_workspace(root: str | Path) -> Workspace:
    """A workspace that is there, not locked: to look into, also beside the process that works in it.

    Raises:
        UserError: there is none.
    """
    root = Path(root).expanduser().resolve()
    if not (root / "stages").is_dir():
        raise UserError(
            f"{root}: no workspace here; `omnisource run`, `ingest` or `collect` begins one, --workspace names another"
        )
    return Workspace(root)


@contextmanager
def open_workspace(root: str | Path, *, begin: bool = True) -> Iterator[Workspace]:
    """Locks a workspace for this process until the block ends.

    A folder that was created here goes again if the block fails before anything was written into it.

    Args:
        root: its folder.
        begin: make it if it is not there.

    Raises:
        UserError: not there and not to be made, not a folder, not writable, or in use by another process.
    """
    if not begin:
        find_workspace(root)
    created: list[Path] = []
    try:
        root = Path(root).expanduser().resolve()
        created = [folder for folder in (root, *root.parents) if not folder.exists()]
        for name in ("tables", "stages", "runs"):
            (root / name).mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in its name, no such user
        raise UserError(
            f"{root}: cannot be a workspace ({getattr(error, 'strerror', None) or error}); choose another --workspace"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{root}: another omnisource process works in this workspace; wait for it") from None
        _sweep(root)
        try:
            yield Workspace(root)
        except BaseException:
            if created:
                _remove_empty(root, created)
            raise


def _remove_empty(root: Path, created: Sequence[Path]) -> None:
    """Removes the folders `created` for a workspace in which nothing lies but the lock."""
    folders = ("tables", "stages", "runs")
    if {child.name for child in root.iterdir()} <= {*folders, ".lock"}:
        with suppress(OSError):  # not empty: then it stays
            for name in folders:
                (root / name).rmdir()
            (root / ".lock").unlink()
            for folder in created:
                folder.rmdir()


def _sweep(root: Path) -> None:
    """Removes what a killed process left: half-written files, and what did not fit into its memory."""
    for folder in (root / "tables", root / "partial"):
        sweep(folder)
    for folder in (root, *(root / name for name in ("tables", "stages", "report")), *(root / "runs").glob("*")):
        for path in (*folder.glob(".*.tmp"), *folder.glob(".*.part")):
            path.unlink(missing_ok=True)
