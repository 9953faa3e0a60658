"""RAFT runs as a method of flow, on weights that the user gives. Here they are random: its quality is not tested."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.errors import UserError
from omnisource.flow import compute_flow, estimator_of, flow_of_frames, to_bytes
from omnisource.ingest import ingest
from omnisource.media import decode_frames, iter_frames, write_video
from omnisource.recipe import Recipe, load_recipe
from omnisource.tables import read_table
from omnisource.workspace import open_workspace

RECIPE = """
name: raft
sources: {target: {role: target, path: target, test_share: 0.4}}
teachers: {image: {network: {name: a}}, video: {network: {name: b}}}
student: {network: {name: b}, input: {modality: flow}}
"""


@pytest.fixture(scope="module")
def raft() -> Any:
    try:
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"no torchvision that fits this torch: {str(error).splitlines()[0]}")
    return optical_flow


def random_network(raft: Any, name: str = "raft_small", seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return getattr(raft, name)(weights=None).eval()


@pytest.fixture
def recipe(raft: Any, shared: Path, tmp_path: Path) -> Recipe:
    """Three real clips, four frames each, and random weights."""
    for number, clip in enumerate(sorted((shared / "data/tennis/target").rglob("*.mp4"))[:3]):
        frames = decode_frames(clip, range(4), short_side=50)[:, :, :84]  # the encoder likes even sides
        path = tmp_path / "target" / f"class{number % 2}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, ((n / 15, frame) for n, frame in enumerate(frames)), options={"crf": "10"})
    save_file(random_network(raft).state_dict(), tmp_path / "small.safetensors")
    given = "flow: {method: raft, weights: small.safetensors, workers: 1, quality: 0, bound: 5, device: cpu}\n"
    (tmp_path / "r.yaml").write_text(RECIPE + given)
    return load_recipe(tmp_path / "r.yaml")


def test_real_clips_become_flow_videos(recipe: Recipe, raft: Any, tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        record = compute_flow(recipe, workspace)
        assert record.counts["samples"] == 3 and record.counts["dropped"] == 0 and record.counts["frames"] == 9
        sample = read_table(workspace.table("samples")).to_pylist()[0]
        row = next(r for r in read_table(workspace.table("flow")).to_pylist() if r["sample_id"] == sample["sample_id"])
        stored = decode_frames(row["uri"], range(3))

        # The same by hand: the frames, repeated at their edge up to what the network takes, straight through it.
        frames = np.stack([frame for _, frame in iter_frames(sample["uri"])])
        height, width = frames.shape[1:3]
        assert height < 128 and width < 128
        padded = np.pad(frames, ((0, 0), (0, 128 - height), (0, 128 - width), (0, 0)), mode="edge")
        x = torch.from_numpy(padded).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.inference_mode():
            found = random_network(raft)(x[:-1], x[1:])[-1].permute(0, 2, 3, 1).numpy()
        expected = to_bytes(found[:, :height, :width], 5)
        assert stored[..., :2].shape == expected.shape
        assert np.abs(stored[..., :2].astype(int) - expected).max() <= 1  # a rounding apart
        assert len(np.unique(expected)) > 10
        assert (stored[..., 2] == 128).all()
        assert not compute_flow(recipe, workspace).fresh


def test_it_goes_on_where_it_stopped_and_starts_again_for_other_weights(
    recipe: Recipe, raft: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnisource.flow import stage

    kept, calls = stage.Journal.append, 0

    def killing(self: stage.Journal, rows: list[dict[str, object]]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        kept(self, rows)

    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(stage.Journal, "append", killing)
            compute_flow(recipe, workspace)
        first = {path: path.stat().st_mtime_ns for path in workspace.media_dir("flow").glob("[!.]*.mp4")}
        assert compute_flow(recipe, workspace).counts["samples"] == 3
        assert sum(path.stat().st_mtime_ns == time for path, time in first.items()) >= 2
        before = read_table(workspace.table("flow"))["uri"].to_pylist()
        bytes_before = [Path(uri).read_bytes() for uri in before]
        save_file(random_network(raft, seed=1).state_dict(), tmp_path / "small.safetensors")
        assert compute_flow(recipe, workspace).fresh
        assert [Path(uri).read_bytes() for uri in before] != bytes_before


def test_large_and_small_are_told_apart_and_frames_of_any_size_are_taken(raft: Any, tmp_path: Path) -> None:
    torch.save(random_network(raft, "raft_large").state_dict(), tmp_path / "large.pth")
    frames = np.random.default_rng(0).integers(0, 255, (2, 131, 70, 3), np.uint8)
    large = estimator_of("raft", tmp_path / "large.pth", "cpu")
    (field,) = flow_of_frames(frames, large)
    assert field.shape == (131, 70, 2) and field.dtype == np.float32 and np.isfinite(field).all()
    (still,) = flow_of_frames(frames[:1], large)
    assert still.shape == (131, 70, 2) and not still.any()


def test_weights_that_are_none_of_its_are_refused(raft: Any, tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other.safetensors: not weights of .*raft_small: 0 of its \d+ tensors fit"):
        estimator_of("raft", tmp_path / "other.safetensors")
    broken = random_network(raft).state_dict()
    broken["feature_encoder.conv.bias"][0] = torch.nan
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="not finite"):
        estimator_of("raft", tmp_path / "nan.safetensors")
    torch.save({"run": print}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="loading it could run code"):
        estimator_of("raft", tmp_path / "code.pth")
    with pytest.raises(UserError, match="no such file"):
        estimator_of("raft", tmp_path / "absent.pth")


def test_without_weights_or_the_extra_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"flow.weights=FILE; none are downloaded"):
        estimator_of("raft")
    for module in ("torchvision", "torchvision.models", "torchvision.models.optical_flow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"needs torchvision; `pip install 'omnisource\[raft\]'`"):
        estimator_of("raft", tmp_path / "small.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "raft"}, "method raft needs `weights`"),
        ({"method": "dis", "weights": "x.pth"}, "weights are for method raft, not dis"),
        ({"method": "raft", "weights": "x.pth", "short_side": None}, "needs `short_side`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    given = [f"flow.{key}={'null' if value is None else value}" for key, value in settings.items()]
    with pytest.raises(UserError, match=message):
        load_recipe(tmp_path / "r.yaml", given)


def test_the_verb_takes_method_and_weights(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    with open_workspace(tmp_path / "w"):
        pass
    asked = ["flow", str(tmp_path / "r.yaml"), "-w", str(tmp_path / "w"), "--method"]
    done = CliRunner().invoke(app, [*asked, "raft"])
    assert isinstance(done.exception, UserError) and "needs `weights`" in str(done.exception)
    weights = tmp_path / "x: y.pth"
    done = CliRunner().invoke(app, [*asked, "raft", "--weights", str(weights)])
    assert isinstance(done.exception, UserError) and "x: y.pth: cannot be read" in str(done.exception)
    weights.touch()
    done = CliRunner().invoke(app, [*asked, "raft", "--weights", str(weights)])
    assert isinstance(done.exception, UserError) and "needs 'ingest'" in str(done.exception)
