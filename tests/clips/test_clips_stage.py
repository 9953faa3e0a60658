"""`omnisource camera fit` and `camera sheet` on real films in a workspace."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_clips_fit import STEPS, write
from test_clips_motion import film, world
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.clips import camera_path, fit_camera_stage, load_camera, target_footage
from omnisource.clips.motion import from_movement
from omnisource.errors import UserError
from omnisource.recipe import Recipe, load_recipe
from omnisource.tables import PROBE, SAMPLES, table_from_rows, write_table
from omnisource.workspace import Workspace, open_workspace

PAN = np.tile([0.04, 0.0], 4)
RECIPE = """
name: pans
sources: {target: {role: target, path: target}, web: {role: web, format: image, path: images}}
teachers: {image: {network: {name: tsn_r18}}, video: {network: {name: slowonly_r18}}}
student:
  network: {name: slowonly_r18}
  input: {frames: 4, stride: 2}
  camera: {pairs: 40}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A recipe, eight films of a panning camera (one of them for testing), two images, and their tables."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    rows, facts = [], []
    for number in range(8):
        path = tmp_path / f"{number}.mp4"
        write(path, film(world(number), [np.linalg.matrix_power(from_movement(PAN), k) for k in range(STEPS)]))
        split = "test" if number == 7 else "train"
        rows.append({"source": "target", "role": "target", "format": "clip", "label": "pan", "split": split})
        facts.append({"fps": 10.0, "num_frames": STEPS, "width": 176, "height": 112, "kind": "video"})
        rows[-1]["uri"] = str(path)
    rows[0] |= {"start_s": 0.2, "end_s": 0.8}
    for number in range(2):
        Image.fromarray(world(20 + number)).save(tmp_path / f"{number}.jpg")
        rows.append({"source": "web", "role": "web", "format": "image", "query_label": "pan"})
        rows[-1]["uri"] = str(tmp_path / f"{number}.jpg")
        facts.append({"width": 800, "height": 600, "kind": "image"})
    for number, (row, fact) in enumerate(zip(rows, facts, strict=True)):
        row |= {"sample_id": f"s{number}", "status": "ok"}
        fact |= {"sample_id": f"s{number}", "status": "ok"}
    with open_workspace(tmp_path / "work") as workspace:
        write_table(workspace.table("samples"), table_from_rows(rows, SAMPLES))
        write_table(workspace.table("probe"), table_from_rows(facts, PROBE))
        workspace.run_stage("probe", settings={}, after=[], outputs=[workspace.table("probe")], work=lambda _: {})
    return tmp_path


def stage(place: Path, *overrides: str) -> tuple[Recipe, Workspace]:
    return load_recipe(place / "recipe.yaml", overrides), Workspace(place / "work")


def test_the_stage_finds_the_pan_once_and_then_rests(place: Path) -> None:
    recipe, workspace = stage(place)
    record = fit_camera_stage(recipe, workspace)
    camera = load_camera(camera_path(workspace))
    assert record.fresh and camera.stride == 2 and camera.overall.pairs >= 38
    assert np.abs(camera.overall.mean - 2 * PAN).max() < 0.003
    assert np.abs(camera.overall.covariance).max() < 0.003**2
    assert not fit_camera_stage(recipe, workspace).fresh
    assert fit_camera_stage(*stage(place, "student.input.stride=3")).fresh


def test_only_the_targets_training_films_count(place: Path) -> None:
    footage = target_footage(stage(place)[1])
    assert len(footage) == 7 and all(not piece.path.endswith("7.mp4") for piece in footage)
    assert (footage[0].start_s, footage[0].end_s, footage[0].num_frames) == (0.2, 0.8, 6)
    assert footage[1].num_frames == STEPS and footage[1].short_side == 112


def test_a_fitted_camera_can_be_named(place: Path) -> None:
    recipe, workspace = stage(place)
    fit_camera_stage(recipe, workspace)
    kept = place / "kept.json"
    kept.write_bytes(camera_path(workspace).read_bytes())
    fit_camera_stage(*stage(place, "student.camera.fitted=kept.json"))
    assert json.loads(camera_path(workspace).read_text())["measured"]["copied_from"] == str(kept)
    assert np.array_equal(load_camera(camera_path(workspace)).overall.mean, load_camera(kept).overall.mean)
    assert not fit_camera_stage(*stage(place, "student.camera.fitted=kept.json")).fresh
    content = json.loads(kept.read_text())
    content["classes"]["pan"] = content["overall"] | {"mean": [0.5] * 8}
    kept.write_text(json.dumps(content))  # another camera under the same name
    assert fit_camera_stage(*stage(place, "student.camera.fitted=kept.json")).fresh
    with pytest.raises(UserError, match=r"stride of 2 frames, these clips have 5"):
        fit_camera_stage(*stage(place, "student.camera.fitted=kept.json", "student.input.stride=5"))
    with pytest.raises(UserError, match=r"stride of 2 frames, these clips have 2 frames at 10 a second"):
        fit_camera_stage(*stage(place, "student.camera.fitted=kept.json", "student.input.fps=10"))
    fit_camera_stage(*stage(place, "student.input.fps=10"))
    assert load_camera(camera_path(workspace)).fps == 10
    with pytest.raises(UserError, match="no such camera"):
        fit_camera_stage(*stage(place, "student.camera.fitted=lost.json"))


def test_the_verbs(place: Path) -> None:
    shell, where = CliRunner(), ["-w", str(place / "work")]
    fitted = shell.invoke(app, ["camera", "fit", str(place / "recipe.yaml"), *where])
    assert fitted.exit_code == 0 and "camera" in fitted.output and "pairs 40" in fitted.output
    out = place / "sheet.png"
    drawn = shell.invoke(app, ["camera", "sheet", str(place / "recipe.yaml"), "--out", str(out), *where])
    assert drawn.exit_code == 0
    page = np.asarray(Image.open(out))
    assert page.shape == (4 + 5 * 14 + 11 * 116, 4 + 4 * 116, 3)  # 3 real clips, 2 images in each of 4 modes
    rows = [page[y : y + 112] for y in (4 + 14 + i * 116 + (i >= 3) * 14 for i in range(5))]
    still = [rows[3][:, 4 + t * 116 : 116 + t * 116] for t in range(4)]
    assert all(np.abs(frame.astype(int) - still[0]).max() <= 2 for frame in still)
    moving = page[-116:-4]
    assert np.abs(moving[:, 4:116].astype(int) - moving[:, 352:464]).mean() > 5
