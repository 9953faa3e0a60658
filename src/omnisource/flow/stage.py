"""The `flow` stage: one flow video per target video, computed in parallel, resumable by video.

Beside each flow video lies a small JSON file that says from what it was made. A video whose flow is there already, from
another workspace (`flow.folder`) or from before the samples were ingested again, is not computed again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.errors import UserError, no_room
from omnisource.flow.compute import U8, estimator_of, flow_of_frames, to_bytes
from omnisource.flow.store import write_flow
from omnisource.media import Failure, IsolatedPool, Limits, Reason, iter_frames, partial_of
from omnisource.progress import track
from omnisource.recipe import Flow, Recipe
from omnisource.tables import FLOW, Journal, read_table, write_json
from omnisource.workspace import StageRecord, Workspace, content_of, fingerprint

_BYTES = 2 * 2**30  # what a process may grow by
_RAFT_BYTES = 8 * 2**30  # torch and the driver of a GPU take some of it before anything is computed


@dataclass(frozen=True)
class _Job:
    """One video and every sample that lies in it."""

    uri: str
    output: Path
    sample_ids: tuple[str, ...]
    mark: str  # of the settings
    settings: Flow
    weights: Path | None
    limits: Limits


@dataclass(frozen=True)
class FlowFacts:
    """What was computed for one video."""

    video_frames: int
    flow_frames: int
    flow_bytes: int


def compute_flow(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Computes the optical flow of every target video and writes the `flow` table.

    A video that fails keeps a row with its reason. A killed stage goes on with the videos that are missing.
    """
    settings = recipe.flow
    path = workspace.table("flow")
    weights = recipe.resolve(settings.weights) if settings.weights else None
    chosen = settings.model_dump(mode="json", exclude={"workers", "timeout_s", "device", "weights", "folder"})
    if weights:
        chosen["weights"] = content_of(weights, "flow.weights, which names a file of RAFT")

    def work(mark: str) -> Mapping[str, Any]:
        journal = Journal(workspace.partial("flow"), FLOW, ["sample_id"], mark)
        done = journal.done()
        estimator_of(settings.method, weights, settings.device)  # what is missing is said before any video is opened
        jobs = [
            job for job in _jobs(recipe, workspace, weights, fingerprint(chosen)) if not done.issuperset(job.sample_ids)
        ]
        memory = _RAFT_BYTES if settings.method == "raft" else _BYTES
        with IsolatedPool(settings.workers, settings.timeout_s, memory) as pool:
            results = track(pool.map(compute_video, jobs), len(jobs), "flow")
            journal.fill(_rows(job, result) for job, result in results)
        journal.compact(path)
        table = read_table(path)
        dropped = table.filter(pc.field("status") == "dropped")
        return {
            "samples": table.num_rows,
            "dropped": dropped.num_rows,
            "frames": pc.sum(table["flow_frames"]).as_py() or 0,
            "reasons": {row["values"]: row["counts"] for row in pc.value_counts(dropped["reason"]).to_pylist()},
        }

    return workspace.run_stage("flow", settings=chosen, after=["ingest"], outputs=[path], work=work)


def compute_video(job: _Job) -> FlowFacts:
    """In a worker: reads a video, writes its flow, or finds it. MediaError when the video does not decode."""
    if found := _kept(job):
        return found
    cv2.setNumThreads(1)  # videos are what runs in parallel
    bound, seen = job.settings.bound, list[float]()
    estimator = estimator_of(job.settings.method, job.weights, job.settings.device)

    def frames() -> Iterator[U8]:
        for seconds, frame in iter_frames(job.uri, limits=job.limits):
            seen.append(seconds)
            yield _scaled(frame, job.settings.short_side)

    def fields() -> Iterator[tuple[float, U8]]:
        for index, flow in enumerate(flow_of_frames(frames(), estimator)):
            yield seen[index], to_bytes(flow, bound)

    origin, note = _origin(job), job.output.with_suffix(".json")
    note.unlink(missing_ok=True)  # a run that is killed here must not leave the note of another video
    written = write_flow(job.output, fields(), job.settings.quality)
    facts = FlowFacts(len(seen), written, job.output.stat().st_size)
    write_json(note, origin | asdict(facts))
    return facts


def _origin(job: _Job) -> dict[str, Any]:
    """What a flow video depends on: the settings, and the video as it is now."""
    origin: dict[str, Any] = {"uri": job.uri, "settings": job.mark}
    with suppress(OSError):  # not a local file: then its address has to do
        facts = Path(job.uri).stat()
        origin |= {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    return origin


def _kept(job: _Job) -> FlowFacts | None:
    try:
        note = json.loads(job.output.with_suffix(".json").read_text())
        found = FlowFacts(note["video_frames"], note["flow_frames"], note["flow_bytes"])
        return found if _as_written(job.output, found.flow_bytes) and _origin(job).items() <= note.items() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # none there, or damaged: computed anew


def _as_written(path: Path, size: int | None) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def use_flow(workspace: Workspace, samples: pa.Table) -> pa.Table:
    """The samples table with every `uri` replaced by its flow video's, for networks with `modality: flow`.

    Samples whose flow failed become `dropped`, with the reason `no_flow`.

    Raises:
        UserError: flow was not computed, or lacks samples, or has another length than its video, or is not what was
            written: then its length is no longer known.
    """
    flow = {row["sample_id"]: row for row in read_table(workspace.table("flow")).to_pylist()}
    rows = samples.to_pylist()
    absent = [row["sample_id"] for row in rows if row["sample_id"] not in flow]
    if absent:
        raise UserError(
            f"{workspace.table('flow')}: no flow for {len(absent)} of {len(rows)} samples; run `omnisource flow` again"
        )
    whole = [row for row in flow.values() if row["status"] == "ok"]
    again = f"delete {workspace.table('flow')} and run `omnisource flow` again"
    other = [r for r in whole if r["flow_frames"] != max(r["video_frames"] - 1, 1)]
    if other:
        raise UserError(
            f"{other[0]['uri']}: {other[0]['flow_frames']} flow frames for a video of {other[0]['video_frames']} "
            f"(and {len(other) - 1} more such); {again}"
        )
    if changed := [r["uri"] for r in whole if not _as_written(Path(r["uri"]), r.get("flow_bytes"))]:
        raise UserError(f"{changed[0]}: {len(changed)} of {len(whole)} flow videos are gone or were changed; {again}")
    for row in rows:
        found = flow[row["sample_id"]]
        row["uri"] = found["uri"] or row["uri"]
        if found["status"] != "ok" and row["status"] == "ok":
            row.update(status="dropped", reason="no_flow")
    return pa.Table.from_pylist(rows, schema=samples.schema)


def _jobs(recipe: Recipe, workspace: Workspace, weights: Path | None, mark: str) -> list[_Job]:
    samples = read_table(workspace.table("samples"), ["sample_id", "uri", "role", "format", "status"])
    videos = samples.filter((pc.field("role") == "target") & (pc.field("format") != "image"))
    by_uri: dict[str, list[str]] = {}
    for row in videos.to_pylist():
        by_uri.setdefault(row["uri"], []).append(row["sample_id"])
    limits = Limits(timeout_s=recipe.flow.timeout_s)
    folder = recipe.resolve(recipe.flow.folder) / mark if recipe.flow.folder else workspace.media_dir("flow")
    return [
        _Job(
            uri,
            folder / f"{hashlib.sha256(uri.encode()).hexdigest()[:20]}.mp4",
            tuple(ids),
            mark,
            recipe.flow,
            weights,
            limits,
        )
        for uri, ids in by_uri.items()
    ]


def _rows(job: _Job, result: FlowFacts | Failure) -> list[dict[str, Any]]:
    if isinstance(result, Failure):
        if result.reason is Reason.NO_SPACE:
            raise no_room(job.output)
        partial_of(job.output).unlink(missing_ok=True)  # of a process that was killed for its time or memory
        facts: dict[str, Any] = {"status": "dropped", "reason": str(result.reason), "message": result.message}
    else:
        facts = {
            "uri": str(job.output),
            "video_frames": result.video_frames,
            "flow_frames": result.flow_frames,
            "flow_bytes": result.flow_bytes,
            "status": "ok",
        }
    return [{"sample_id": sample_id, **facts} for sample_id in job.sample_ids]


def _scaled(frame: U8, short_side: int | None) -> U8:
    """The frame scaled down so that its shorter side is `short_side`; both sides even, as the encoder likes them."""
    height, width = frame.shape[:2]
    scale = min(1.0, short_side / min(height, width)) if short_side else 1.0
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    if size == (width, height):
        return frame
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
