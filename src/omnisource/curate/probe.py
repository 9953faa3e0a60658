"""`probe`: looks into every file; what is broken is dropped with a reason (paper, section 3.1)."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow.compute as pc

from omnisource.media import Failure, IsolatedPool, Limits, MediaFacts, Reason, probe_media
from omnisource.progress import track
from omnisource.recipe import Recipe
from omnisource.tables import PROBE, Journal, read_table
from omnisource.workspace import StageRecord, Workspace


def probe(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Examines every `ok` sample's file in killable processes and writes the `probe` table, one row per sample.

    A file that several samples share is read once. Killed at any moment, the stage goes on with the files that have
    no row yet.
    """
    settings = recipe.probe
    limits = Limits(**settings.limits.model_dump())
    path = workspace.table("probe")

    def work(mark: str) -> Mapping[str, Any]:
        journal = Journal(workspace.partial("probe"), PROBE, ["sample_id"], mark)
        files = _unprobed(workspace, journal.done())
        examine = partial(probe_media, limits=limits, thorough=settings.thorough)
        with IsolatedPool(timeout_s=limits.timeout_s, memory_bytes=limits.memory_bytes) as pool:
            results = track(pool.map(examine, files), len(files), "probe")
            journal.fill(_rows(files[uri], result, settings.min_decodable_share) for uri, result in results)
        return _counts(journal.compact(path))

    return workspace.run_stage(
        "probe", settings=settings.model_dump(mode="json"), after=["ingest"], outputs=[path], work=work
    )


def _unprobed(workspace: Workspace, done: set[Any]) -> dict[str, list[tuple[str, str]]]:
    """uri -> (sample_id, format) of its samples that have no row yet."""
    samples = read_table(workspace.table("samples"), ["sample_id", "format", "uri", "status"])
    samples = samples.filter(pc.field("status") == "ok")
    files: dict[str, list[tuple[str, str]]] = {}
    for sample_id, form, uri in zip(
        *(samples[name].to_pylist() for name in ("sample_id", "format", "uri")), strict=True
    ):
        if sample_id not in done:
            files.setdefault(uri, []).append((sample_id, form))
    return files


def _rows(samples: list[tuple[str, str]], result: MediaFacts | Failure, min_share: float) -> list[dict[str, Any]]:
    """The rows of one file's samples."""
    if isinstance(result, Failure):
        return [{"sample_id": sample_id, **_dropped(result)} for sample_id, _ in samples]
    facts = {
        "kind": result.kind,
        "container": result.container,
        "codec": result.codec,
        "width": result.width,
        "height": result.height,
        "rotation": result.rotation,
        "fps": result.fps,
        "variable_fps": result.variable_fps,
        "num_frames": result.num_frames,
        "duration_s": result.duration_s,
        "decodable_share": result.decodable_share,
        "first_bad_s": result.first_bad_s,
        "flags": result.flags,
        "bytes": result.bytes,
        "sha256": result.sha256,
        "phash": result.phash or None,
    }
    rows = []
    for sample_id, form in samples:
        verdict = _verdict(result, form, min_share)
        rows.append({"sample_id": sample_id, **facts, **(_dropped(verdict) if verdict else {"status": "ok"})})
    return rows


def _verdict(facts: MediaFacts, form: str, min_share: float) -> Failure | None:
    """Why a file that can be read is of no use as an `image`, `clip` or `untrimmed` sample; None when it is."""
    if facts.audio_only:
        return Failure(Reason.NO_VIDEO, "it holds sound only")
    if form == "image" and facts.kind != "image":
        return Failure(Reason.WRONG_KIND, f"a {facts.container} video where an image was expected")
    if form != "image" and facts.kind == "image" and facts.num_frames == 1:
        return Failure(Reason.WRONG_KIND, f"a {facts.container} picture where a video was expected")
    if facts.decodable_share < min_share:
        return Failure(Reason.CORRUPT, f"only {facts.decodable_share:.0%} of it decodes, {min_share:.0%} are asked for")
    return None


def _dropped(failure: Failure) -> dict[str, Any]:
    return {"status": "dropped", "reason": str(failure.reason), "message": " ".join(failure.message.split())}


def _counts(table: Any) -> dict[str, Any]:
    reasons = Counter(reason for reason in table["reason"].to_pylist() if reason)
    flags = Counter(flag for found in table["flags"].to_pylist() for flag in found or ())
    return {
        "rows": table.num_rows,
        "dropped": sum(reasons.values()),
        "reasons": dict(sorted(reasons.items())),
        "flags": dict(sorted(flags.items())),
    }
