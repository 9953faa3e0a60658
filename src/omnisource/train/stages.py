"""The trainings of a recipe as stages: its teachers, and its students."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from omnisource.clips import Camera, camera_path, load_camera
from omnisource.errors import UserError
from omnisource.media import Limits
from omnisource.networks import is_spatial, takes_frames
from omnisource.recipe import Recipe, Training
from omnisource.train.begin import Changed, train
from omnisource.train.join import build_pool
from omnisource.train.parts import target_parts
from omnisource.workspace import StageRecord, Workspace, fingerprint


def train_teacher(recipe: Recipe, workspace: Workspace, name: str, changed: Changed = "anew") -> StageRecord:
    """Trains a teacher on the target's training split (paper, section 3.2). Run: `teacher-NAME`."""
    return _train_teacher(recipe, workspace, name, recipe.training_of(name), changed)


def train_judge(recipe: Recipe, workspace: Workspace, name: str, part: int, changed: Changed = "anew") -> StageRecord:
    """Trains a teacher once more, without a part of the target, on which it is judged. Run: `teacher-NAME~PART`.

    Raises:
        UserError: there is no such part, or as `target_parts`.
    """
    parts = target_parts(recipe, workspace)
    if part >= len(parts):
        raise UserError(f"{workspace.root}: the target has {len(parts)} parts, there is no part {part}")
    return _train_teacher(recipe, workspace, name, recipe.training_of(name, part), changed, parts[part])


def _train_teacher(
    recipe: Recipe,
    workspace: Workspace,
    name: str,
    run: str,
    changed: Changed,
    without: Collection[str] = (),
) -> StageRecord:
    training, sources = recipe.teachers[name], recipe.target_sources
    after = ["ingest", "probe"]
    return _stage(recipe, workspace, f"train-{run}", run, training, sources, recipe.seed, after, changed, without)


def train_student(recipe: Recipe, workspace: Workspace, run: str, seed: int, changed: Changed = "anew") -> StageRecord:
    """Trains the student of one of the recipe's runs, on the target and on the run's web sources. Run: `RUN-SEED`."""
    recipe = recipe.seen_by(run)
    training, sources = recipe.student_of(run), recipe.planned_runs()[run].sources
    after = ["ingest", "probe"]
    if any(recipe.sources[name].role == "web" for name in sources):
        after += ["dedupe", recipe.select.stage]
    if _needs_camera(recipe, training, sources) and not training.camera.fitted:
        after += ["camera"]
    name = f"{run}-{seed}"
    return _stage(recipe, workspace, f"train-{name}", name, training, sources, seed, after, changed)


def _stage(
    recipe: Recipe,
    workspace: Workspace,
    stage: str,
    run: str,
    training: Training,
    sources: Sequence[str],
    seed: int,
    after: Sequence[str],
    changed: Changed,
    without: Collection[str] = (),
) -> StageRecord:
    """without: ids of samples to leave out."""
    folder = workspace.run_dir(run)
    training = _resolved(recipe, training)
    flow = training.input.modality == "flow"

    def work(_: str) -> Mapping[str, Any]:
        by_frame = takes_frames(training)
        prepared = training.input.prepared
        pool = build_pool(recipe, workspace, sources, by_frame, flow=flow, prepared=prepared, leave_out=without)
        targets = [name for name in sources if recipe.sources[name].role == "target"]
        validation = build_pool(recipe, workspace, targets, by_frame, "val", flow) if training.validate_every else None
        result = train(
            training,
            pool,
            folder,
            seed,
            validation=validation if validation is not None and len(validation) else None,
            camera=fitted_camera(recipe, workspace, training, sources),
            limits=Limits(**recipe.probe.limits.model_dump(exclude={"memory_bytes"})),
            changed=changed,
        )
        return {key: value for key, value in asdict(result).items() if key != "checkpoint"} | {"list": pool.digest}

    return workspace.run_stage(
        stage,
        settings={
            "training": training.model_dump(mode="json", exclude={"workers", "cache_bytes"}),
            "sources": list(sources),
            "seed": seed,
        }
        | ({"without": fingerprint(sorted(without))} if without else {}),
        after=[*after, *(["flow"] if flow else []), *(["prepare"] if training.input.prepared else [])],
        outputs=[folder / "last.safetensors", folder / "log.jsonl"],
        work=work,
    )


def _needs_camera(recipe: Recipe, training: Training, sources: Sequence[str]) -> bool:
    images = any(recipe.sources[name].format == "image" for name in sources)
    return images and training.camera.mode != "still" and not is_spatial(training.network.name)


def fitted_camera(recipe: Recipe, workspace: Workspace, training: Training, sources: Sequence[str]) -> Camera | None:
    """The camera under which a training's images move, or None when none of them does."""
    if not _needs_camera(recipe, training, sources):
        return None
    path = recipe.resolve(training.camera.fitted) if training.camera.fitted else camera_path(workspace)
    return load_camera(path, training.input.stride)


def _resolved(recipe: Recipe, training: Training) -> Training:
    """The training with absolute file names."""
    init = training.network.init
    paths = {
        "imagenet": str(recipe.resolve(init.imagenet))
        if init.imagenet and init.imagenet != "package"
        else init.imagenet,
        "checkpoint": str(recipe.resolve(init.checkpoint)) if init.checkpoint else None,
    }
    network = training.network.model_copy(update={"init": init.model_copy(update=paths)})
    return training.model_copy(update={"network": network})
