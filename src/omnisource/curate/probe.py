"""`probe`: looks into every file; what is broken is dropped with a reason (paper, section 3.1)."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from omnisource.curate.engine import LOCAL, Engine, on_ray
from omnisource.curate.faults import target_faults
from omnisource.media import Failure, IsolatedPool, Limits, MediaFacts, Reason, probe_media
from omnisource.progress import meter, track
from omnisource.recipe import Probe, Recipe
from omnisource.tables import PROBE, Journal, read_batches, read_table, table_from_rows
from omnisource.workspace import StageRecord, Workspace

Row = dict[str, Any]

_SAMPLES = pa.list_(pa.struct([("sample_id", pa.string()), ("format", pa.string())]))  # those that share a file


def probe(recipe: Recipe, workspace: Workspace, engine: Engine = LOCAL) -> StageRecord:
    """Examines every `ok` sample's file in killable processes and writes the `probe` table, one row per sample.

    A file that several samples share is read once. Killed at any moment, the stage goes on with the files that have
    no row yet.

    Args:
        engine: where to work.
    """
    settings = recipe.probe
    path = workspace.table("probe")

    def work(mark: str) -> Mapping[str, Any]:
        journal = Journal(workspace.partial("probe"), PROBE, ["sample_id"], mark)
        files = _unprobed(workspace, journal.done())
        if engine.kind == "local":
            with _pool(settings, engine.workers) as pool:
                results = track(pool.map(_examine(settings), files), len(files), "probe")
                journal.fill(_rows(files[uri], result, settings.min_decodable_share) for uri, result in results)
        else:
            table = pa.table(
                {
                    "uri": pa.array(files, pa.string()),
                    "samples": pa.array(
                        [[{"sample_id": s, "format": f} for s, f in samples] for samples in files.values()], _SAMPLES
                    ),
                }
            )
            with meter("probe", table.num_rows) as bar:
                # As many processes in an actor as it takes CPUs: there is an actor for each share of a machine.
                workers = engine.workers or max(1, round(engine.cpus))
                for rows in on_ray(engine, table, _BlockProber, settings, workers):
                    journal.append_table(rows)
                    bar.advance(rows.num_rows)
        journal.compact(path)
        return _counts(path) | target_faults(workspace, _limits(settings), settings.limits.memory_bytes, engine)

    return workspace.run_stage(
        "probe", settings=settings.model_dump(mode="json"), after=["ingest"], outputs=[path], work=work
    )


def _pool(settings: Probe, workers: int | None) -> IsolatedPool:
    return IsolatedPool(workers, settings.limits.timeout_s, settings.limits.memory_bytes)


def _examine(settings: Probe) -> Callable[[str], MediaFacts]:
    return partial(probe_media, limits=_limits(settings), thorough=settings.thorough)


def _limits(settings: Probe) -> Limits:
    return Limits.of(settings.limits, settings.limits.memory_bytes)


class _BlockProber:
    """Probes blocks of files in an actor of a cluster."""

    def __init__(self, settings: Probe, workers: int) -> None:
        self._settings, self._pool = settings, _pool(settings, workers)

    def __call__(self, block: pa.Table) -> pa.Table:
        files = {
            uri: [(sample["sample_id"], sample["format"]) for sample in samples]
            for uri, samples in zip(block["uri"].to_pylist(), block["samples"].to_pylist(), strict=True)
        }
        share = self._settings.min_decodable_share
        results = self._pool.map(_examine(self._settings), files)
        return table_from_rows((row for uri, result in results for row in _rows(files[uri], result, share)), PROBE)


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


def _rows(samples: list[tuple[str, str]], result: MediaFacts | Failure, min_share: float) -> list[Row]:
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


def _dropped(failure: Failure) -> Row:
    return {"status": "dropped", "reason": str(failure.reason), "message": " ".join(failure.message.split())}


def _counts(path: Path) -> Row:
    reasons, flags = Counter[str](), Counter[str]()
    rows = 0
    for batch in read_batches(path, ["reason", "flags"]):
        rows += len(batch)
        reasons.update(reason for reason in batch["reason"].to_pylist() if reason)
        flags.update(batch["flags"].flatten().to_pylist())
    return {
        "rows": rows,
        "dropped": sum(reasons.values()),
        "reasons": dict(sorted(reasons.items())),
        "flags": dict(sorted(flags.items())),
    }
