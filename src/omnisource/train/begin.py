"""`train`: begins a training, or continues it where it was left."""

import platform
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from omnisource import __version__
from omnisource.clips import Camera
from omnisource.errors import UserError
from omnisource.infer import torch_threads
from omnisource.media import DEFAULT_LIMITS, Limits
from omnisource.networks import read_meta
from omnisource.recipe import Training
from omnisource.train.distributed import Ranks, joined
from omnisource.train.loop import Trainer, TrainResult
from omnisource.train.memory import freed_memory_kept
from omnisource.train.pool import Pool
from omnisource.train.record import clear, differences, has_state, load_state, read_run, set_aside, write_run
from omnisource.train.start import essential_settings_of

Changed = Literal["anew", "refuse", "continue"]


def train(
    training: Training,
    pool: Pool,
    run_dir: Path,
    seed: int,
    *,
    validation: Pool | None = None,
    camera: Camera | None = None,
    limits: Limits = DEFAULT_LIMITS,
    changed: Changed = "refuse",
) -> TrainResult:
    """Trains a network on a pool. The same call continues an interrupted run, and does nothing for a finished one.

    Args:
        training: settings; file names in it are absolute.
        pool: units of all sources (build_pool).
        run_dir: folder of the run.
        seed: everything random follows from it.
        validation: units to validate on; needed when `training.validate_every` is set.
        camera: how images move, for 3D networks (clips.load_camera).
        limits: what one media file may cost.
        changed: what to do with an unfinished run of other settings or other units: put it aside and begin `anew`,
            `refuse` with what changed, or `continue` with its network under the new ones.

    Raises:
        UserError: settings that do not fit the pool, a run that changed, a loss that is not finite, a full disk.
        KeyboardInterrupt: after SIGINT or SIGTERM, when the checkpoint is written.
    """
    if training.validate_every and validation is None:
        raise UserError("validate_every is set but there is no val split; give the target source `val:`, or remove it")
    _check_camera(training, pool, camera)
    identity = identity_of(training, pool, seed, camera)
    with torch_threads(training.threads), joined(training.device) as ranks:
        if ranks.first:
            _settle(run_dir, identity, changed)
        ranks.wait()
        run = read_run(run_dir)
        if run is not None and run["finished"]:
            if ranks.first:
                clear(run_dir)  # it may have been killed just after its end
            return _result(run, run_dir)
        state = load_state(run_dir) if run is not None else None
        ranks.wait()
        trainer = Trainer(training, pool, run_dir, seed, ranks, validation=validation, camera=camera, limits=limits)
        try:
            return _run(trainer, state, identity, run_dir, ranks)
        finally:
            trainer.close()


def _result(run: Mapping[str, Any], run_dir: Path) -> TrainResult:
    """That of a finished run. UserError: it, or a file that it speaks of, is damaged or gone."""
    checkpoint, log = run_dir / "last.safetensors", run_dir / "log.jsonl"
    for path, good in ((checkpoint, read_meta(checkpoint) is not None), (log, log.is_file())):
        if not good:
            raise UserError(
                f"{path}: {'damaged' if path.exists() else 'gone'}, though this training is finished; put a copy back, "
                "or delete the run's folder to train it anew"
            )
    try:
        return TrainResult(**{**run["result"], "checkpoint": checkpoint})
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run_dir / 'run.json'}: its result is damaged ({error}); delete the run's folder to train it anew"
        ) from None


def _run(
    trainer: Trainer, state: dict[str, Any] | None, identity: Mapping[str, Any], run_dir: Path, ranks: Ranks
) -> TrainResult:
    if state is not None:
        try:
            trainer.restore(state)
        except (RuntimeError, ValueError, KeyError) as error:
            what = str(error).partition("\n")[0]
            raise UserError(
                f"{run_dir}: its checkpoint is of another network or optimiser ({what}); "
                "rename or delete the folder to begin again"
            ) from error
    elif trainer.log is not None:
        trainer.log.cut(0)
    run = {
        "identity": identity,
        "finished": False,
        "steps": trainer.plan.steps,
        "versions": {"omnisource": __version__, "python": platform.python_version(), "torch": str(torch.__version__)},
        "world": ranks.world,
        "device": str(ranks.device),
    }
    if ranks.first:
        write_run(run_dir, run)
    with freed_memory_kept() if ranks.device.type == "cpu" else nullcontext():
        result = trainer.run()
    if ranks.first:
        write_run(run_dir, run | {"finished": True, "result": asdict(result)})
        clear(run_dir)
    ranks.wait()  # nobody looks for the checkpoint before it is there
    return result


def identity_of(training: Training, pool: Pool, seed: int, camera: Camera | None = None) -> dict[str, Any]:
    """Everything that a training's result depends on."""
    settings = essential_settings_of(training)
    settings["camera"].pop("fitted")  # what it holds stands below
    return {
        "training": settings,
        **({"camera": camera.identity} if camera is not None else {}),
        "units": {"sources": pool.counts(), "digest": pool.digest},
        "classes": list(pool.classes),
        "seed": seed,
    }


def _settle(run_dir: Path, identity: Mapping[str, Any], changed: Changed) -> None:
    """Decides about a run that lies in the folder already."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    run = read_run(run_dir)
    if run is None:
        if run_dir.exists():
            set_aside(run_dir)
        return
    different = differences(run["identity"], identity)
    if not different:
        return
    if changed == "continue" and not run["finished"]:
        return
    if changed == "anew" or run["finished"] or not has_state(run_dir):
        set_aside(run_dir)
    else:
        shown = "; ".join(different[:4]) + (f"; and {len(different) - 4} more" if len(different) > 4 else "")
        raise UserError(
            f"{run_dir}: this run began with something else ({shown}); --allow-changed goes on with it, --anew begins "
            "again"
        )


def _check_camera(training: Training, pool: Pool, camera: Camera | None) -> None:
    from omnisource.networks import is_spatial

    if camera is not None or training.camera.mode == "still" or is_spatial(training.network.name):
        return
    if pool.has_images:
        raise UserError(f"camera.mode is {training.camera.mode}, but no camera was fitted; run `omnisource camera fit`")
