"""`prepare`: stores media once more in the form that training reads fastest; the originals stay where they are."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from omnisource.errors import UserError
from omnisource.media import Failure, IsolatedPool, Limits, Prepared, prepare_image, prepare_video
from omnisource.progress import track
from omnisource.recipe import Prepare, Recipe
from omnisource.tables import PREPARED, Journal, read_table
from omnisource.workspace import StageRecord, Workspace, fingerprint

_FREE_BYTES = 256 * 1024**2  # a disk with less than this left counts as full


@dataclass(frozen=True)
class _Job:
    """One file to prepare, and how; travels to a worker process."""

    uri: str
    target: Path
    is_image: bool
    short_side: int
    gop: int
    settings: Prepare
    limits: Limits


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
        limits = replace(Limits(**recipe.probe.limits.model_dump()), timeout_s=settings.timeout_s)
        journal = Journal(workspace.partial("prepare"), PREPARED, ["sample_id"], mark)
        samples = _unprepared(workspace, journal.done())
        jobs = [
            _Job(
                uri=rows[0]["uri"],
                target=folder / sha256[:2] / f"{sha256}.{'jpg' if as_image else 'mp4'}",
                is_image=as_image,
                short_side=min(settings.short_side, rows[0]["width"], rows[0]["height"]),
                gop=gop,
                settings=settings,
                limits=limits,
            )
            for (sha256, as_image), rows in samples.items()
        ]
        owners = {job.target: rows for job, rows in zip(jobs, samples.values(), strict=True)}
        with IsolatedPool(timeout_s=settings.timeout_s, memory_bytes=limits.memory_bytes) as pool:
            journal.fill(_results(pool, jobs, owners, workspace.root))
        journal.compact(path)
        counts = _counts(read_table(path, ["uri", "bytes", "status"]))
        for other in workspace.media_dir("prepared").glob("*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return counts

    return workspace.run_stage("prepare", settings=form, after=["ingest", "probe"], outputs=[path], work=work)


def _unprepared(workspace: Workspace, done: set[Any]) -> dict[tuple[str, bool], list[dict[str, Any]]]:
    """(sha256, whether it is to be an image) -> the samples without a row whose file has that content."""
    probe = read_table(workspace.table("probe"), ["sample_id", "sha256", "width", "height", "status"])
    samples = read_table(workspace.table("samples"), ["sample_id", "format", "uri"])
    joined = probe.filter(pc.field("status") == "ok").join(samples, "sample_id", join_type="inner").sort_by("sample_id")
    files: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in joined.to_pylist():
        if row["sample_id"] not in done:
            files.setdefault((row["sha256"], row["format"] == "image"), []).append(row)
    return files


def _results(
    pool: IsolatedPool, jobs: list[_Job], owners: dict[Path, list[dict[str, Any]]], root: Path
) -> Iterator[list[dict[str, Any]]]:
    for job, result in track(pool.map(_prepare_file, jobs), len(jobs), "prepare"):
        if isinstance(result, Failure):
            if shutil.disk_usage(root).free < _FREE_BYTES:
                raise UserError(f"{root}: the disk is full; free some space and run the same command again, it resumes")
            facts: dict[str, Any] = {
                "status": "dropped",
                "reason": str(result.reason),
                "message": " ".join(result.message.split()),
            }
        else:
            facts = {"uri": str(job.target), "gop": None if job.is_image else job.gop, "status": "ok", **asdict(result)}
        yield [{"sample_id": row["sample_id"], **facts} for row in owners[job.target]]


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
