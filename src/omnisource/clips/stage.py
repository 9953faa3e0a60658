"""`camera`: the moving camera is fitted to the target's training videos."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnisource.clips.camera import load_camera, save_camera
from omnisource.clips.fit import Footage, fit_camera
from omnisource.clips.temporal import piece_frames
from omnisource.media import Limits
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, Workspace


def camera_path(workspace: Workspace) -> Path:
    """Where the stage writes the fitted camera."""
    return workspace.root / "camera.json"


def fit_camera_stage(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Fits the student's camera (`student.camera`) on the target's training clips, or copies the one it names.

    The frames of a pair are the student's stride apart, so that generated clips move like the clips beside them.

    Raises:
        UserError: too few pairs gave a homography, or `camera.fitted` is not a camera.
    """
    wanted = recipe.student.camera
    stride, fps = recipe.student.input.stride, recipe.student.input.fps
    given = recipe.resolve(wanted.fitted) if wanted.fitted else None
    named = load_camera(given, stride, fps) if given else None
    path = camera_path(workspace)
    settings = {
        "pairs": wanted.pairs,
        "stride": stride,
        "fps": fps,
        "seed": recipe.seed,
        "fitted": named.identity if named else None,
    }

    def work(_: str) -> Mapping[str, Any]:
        measured: Mapping[str, Any] = {"copied_from": str(given)}
        if named is not None:
            camera = named
        else:
            footage = target_footage(workspace)
            bounds = Limits.of(recipe.probe.limits)
            camera, measured = fit_camera(footage, wanted.pairs, stride, recipe.seed, fps=fps, limits=bounds)
        save_camera(path, camera, measured)
        return {"pairs": camera.overall.pairs, "classes": len(camera.classes), "measured": measured}

    return workspace.run_stage("camera", settings=settings, after=["probe"], outputs=[path], work=work)


def target_footage(workspace: Workspace) -> list[Footage]:
    """The target's training clips that probe found to be good, by sample id."""
    facts = {
        row["sample_id"]: row
        for row in read_table(
            workspace.table("probe"), ["sample_id", "status", "fps", "num_frames", "width", "height"]
        ).to_pylist()
        if row["status"] == "ok"
    }
    names = ["sample_id", "uri", "role", "split", "format", "status", "label", "start_s", "end_s"]
    found = []
    for row in sorted(read_table(workspace.table("samples"), names).to_pylist(), key=lambda row: row["sample_id"]):
        fact = facts.get(row["sample_id"])
        if fact is None or (row["role"], row["split"], row["status"]) != ("target", "train", "ok"):
            continue
        if row["format"] == "image" or not fact["num_frames"]:
            continue
        frames = piece_frames(row["start_s"], row["end_s"], fact["fps"], fact["num_frames"])
        sides = [side for side in (fact["width"], fact["height"]) if side]
        side, start_s = min(sides, default=None), row["start_s"] or 0.0
        found.append(Footage(row["uri"], row["label"], frames, start_s, row["end_s"], side, fact["fps"]))
    return found
