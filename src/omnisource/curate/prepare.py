"""`prepare`: stores media once more in the form that training reads fastest; the originals stay where they are."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.errors import no_room
from omnisource.media import Failure, IsolatedPool, Limits, Prepared, Reason, partial_of, prepare_image, prepare_video
from omnisource.progress import track
from omnisource.recipe import Prepare, Recipe
from omnisource.tables import PREPARED, Journal, database, read_table, view_table
from omnisource.workspace import StageRecord, Workspace, fingerprint

_ROWS = 4096  # read at a time


@dataclass(frozen=True)
class _Job:
    """One content to prepare, and how; travels to a worker process."""

    uri: str
    sample_ids: tuple[str, ...]  # all that have this content
    target: Path
    is_image: bool
    size: tuple[int, int]  # of the original
    settings: Prepare
    gop: int
    limits: Limits

    @property
    def short_side(self) -> int:
        """Nothing is enlarged."""
        return min(self.settings.short_side, *self.size)


def prepare(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Writes the training form of every sample that passed `probe`, and the `prepared` table that says where it lies.

    Videos become H.264 with a key frame at every `prepare.gop` frames and the same frame times, images become JPEG;
    neither is enlarged. Files of equal content are stored once. Killed at any moment, the stage goes on with the
    files that have no row yet.
    """
    settings = recipe.prepare
    gop = settings.gop or recipe.student.input.stride
    form = {**settings.model_dump(mode="json"), "gop": gop}
    path = workspace.table("prepared")
    # The name tells the form, so files of another form never pass for these.
    folder = workspace.media_dir("prepared") / fingerprint({k: v for k, v in form.items() if k != "timeout_s"})

    def work(mark: str) -> Mapping[str, Any]:
        stated = recipe.probe.limits
        limits = replace(Limits.of(stated, stated.memory_bytes), timeout_s=settings.timeout_s)
        journal = Journal(workspace.partial("prepare"), PREPARED, ["sample_id"], mark)
        form_of = partial(_Job, settings=settings, gop=gop, limits=limits)
        with (
            IsolatedPool(timeout_s=settings.timeout_s, memory_bytes=stated.memory_bytes) as pool,
            _unprepared(workspace, journal, folder, form_of) as (jobs, count),
        ):
            journal.fill(_results(track(pool.map(_prepare_file, jobs), count, "prepare")))
        journal.compact(path)
        counts = _counts(read_table(path, ["uri", "bytes", "status"]))
        for other in workspace.media_dir("prepared").glob("*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return counts

    return workspace.run_stage("prepare", settings=form, after=["ingest", "probe"], outputs=[path], work=work)


@contextmanager
def _unprepared(
    workspace: Workspace, journal: Journal, folder: Path, job: Callable[..., _Job]
) -> Iterator[tuple[Iterator[_Job], int]]:
    """A job for each content whose samples have no row yet, read as they are asked for, and their number.

    A content that stands for images and for videos is prepared as both.
    """
    with database(workspace.root / "partial") as db:
        view_table(db, "samples", workspace.table("samples"))
        view_table(db, "probe", workspace.table("probe"))
        db.register("done", pa.table({"sample_id": journal.column("sample_id")}))
        left = """SELECT sha256, format = 'image' AS as_image, sample_id, uri, width, height
            FROM probe AS p JOIN samples USING (sample_id)
            WHERE p.status = 'ok' AND sample_id NOT IN (SELECT sample_id FROM done)"""
        ((count,),) = db.execute(f"SELECT count(*) FROM (SELECT DISTINCT sha256, as_image FROM ({left}))").fetchall()
        batches = db.sql(f"{left} ORDER BY sha256, as_image, sample_id").to_arrow_reader(_ROWS)
        rows = (row for batch in batches for row in batch.to_pylist())

        def jobs() -> Iterator[_Job]:
            for (sha256, as_image), group in groupby(rows, itemgetter("sha256", "as_image")):
                first, *others = group
                yield job(
                    uri=first["uri"],
                    sample_ids=(first["sample_id"], *(row["sample_id"] for row in others)),
                    target=folder / sha256[:2] / f"{sha256}.{'jpg' if as_image else 'mp4'}",
                    is_image=as_image,
                    size=(first["width"], first["height"]),
                )

        yield jobs(), count


def _results(results: Iterable[tuple[_Job, Prepared | Failure]]) -> Iterator[list[dict[str, Any]]]:
    for job, result in results:
        if isinstance(result, Failure):
            if result.reason is Reason.NO_SPACE:
                raise no_room(job.target)
            partial_of(job.target).unlink(missing_ok=True)  # of a process that was killed for its time or memory
            facts: dict[str, Any] = {
                "status": "dropped",
                "reason": str(result.reason),
                "message": " ".join(result.message.split()),
            }
        else:
            facts = {"uri": str(job.target), "gop": None if job.is_image else job.gop, "status": "ok", **asdict(result)}
        yield [{"sample_id": sample_id, **facts} for sample_id in job.sample_ids]


def _prepare_file(job: _Job) -> Prepared:
    """Runs in a worker process."""
    if job.is_image:
        quality = job.settings.jpeg_quality
        return prepare_image(job.uri, job.target, short_side=job.short_side, quality=quality, limits=job.limits)
    return prepare_video(
        job.uri, job.target, short_side=job.short_side, gop=job.gop, crf=job.settings.crf, limits=job.limits
    )


def _counts(table: Any) -> dict[str, Any]:
    files = table.filter(pc.field("status") == "ok").group_by("uri").aggregate([("bytes", "max")])
    return {
        "rows": table.num_rows,
        "dropped": pc.sum(pc.equal(table["status"], "dropped")).as_py() or 0,
        "files": files.num_rows,
        "megabytes": round((pc.sum(files["bytes_max"]).as_py() or 0) / 1e6, 1),
    }
