"""The plan as a table, for people and for comparing runs."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from omnisource.errors import UserError
from omnisource.networks import is_spatial, takes_frames
from omnisource.recipe import Recipe, Training
from omnisource.tables import table_from_rows, write_table
from omnisource.train.decode import Reading
from omnisource.train.join import build_pool
from omnisource.train.plan import Plan
from omnisource.train.stages import fitted_camera
from omnisource.workspace import Workspace

_FIRST = 100  # steps, where nobody says which

PLAN = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("slot", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # image | clip | window | frame
        pa.field("label", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),  # of the piece of the file
        pa.field("end_s", pa.float64()),
        pa.field("frames", pa.list_(pa.int32()), nullable=False),  # indices from the piece's first frame
        pa.field("times_s", pa.list_(pa.float64()), nullable=False),  # of the snippets of an untrimmed video
        pa.field("partner", pa.int32()),  # the slot it is mixed with; null where it is not
        pa.field("weight", pa.float64(), nullable=False),  # of the slot itself in the mixture
        pa.field("key", pa.uint64(), nullable=False),  # of its random draws
    ]
)


def write_plan(
    recipe: Recipe, workspace: Workspace, run: str, seed: int | None, steps: range | None, path: Path
) -> int:
    """Writes the slots of `steps` of a teacher's or student's training to a Parquet file (schema PLAN).

    Without `steps`: those of the first hundred that there are.

    Returns the number of rows. Raises UserError for an unknown run or steps beyond its end.
    """
    training, sources, seed = _training(recipe, run, seed)
    recipe = recipe.seen_by(run) if run in recipe.planned_runs() else recipe
    spatial = is_spatial(training.network.name)
    given = training.input
    pool = build_pool(
        recipe, workspace, sources, takes_frames(training), flow=given.modality == "flow", prepared=given.prepared
    )
    plan = Plan(pool, training, seed)
    if steps is None:
        steps = range(min(plan.steps, _FIRST))
    if steps.stop > plan.steps:
        raise UserError(f"--steps {steps.start}:{steps.stop}: the training '{run}' has {plan.steps} steps")
    camera = fitted_camera(recipe, workspace, training, sources)
    reading = Reading(training, spatial, camera, pool.frames, pool.classes)
    rows: list[dict[str, Any]] = []
    for step in steps:
        slots = plan.step(step)
        for slot, number in enumerate(slots.unit):
            unit = pool.unit(int(number))
            request = reading.request(unit, int(slots.key[slot]))
            rows.append(
                {
                    "step": step,
                    "slot": slot,
                    "source": unit.source,
                    "sample_id": unit.sample_id,
                    "uri": unit.uri,
                    "kind": unit.kind,
                    "label": pool.classes[unit.label],
                    "start_s": unit.start_s,
                    "end_s": unit.end_s,
                    "frames": list(request.indices),
                    "times_s": list(request.times_s),
                    "partner": int(slots.partner[slot]) if slots.partner[slot] != slot else None,
                    "weight": float(slots.weight[slot]),
                    "key": int(slots.key[slot]),
                }
            )
    write_table(path, table_from_rows(rows, PLAN))
    return len(rows)


def _training(recipe: Recipe, run: str, seed: int | None) -> tuple[Training, list[str], int]:
    if run in recipe.teachers:
        return recipe.teachers[run], recipe.target_sources, recipe.seed if seed is None else seed
    runs = recipe.planned_runs()
    if run not in runs:
        raise UserError(f"'{run}' is no run ({', '.join(runs)}) and no teacher ({', '.join(recipe.teachers)})")
    return recipe.student_of(run), list(runs[run].sources), recipe.seeds[0] if seed is None else seed
