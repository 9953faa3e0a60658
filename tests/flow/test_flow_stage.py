"""The flow stage: every video once, failures kept with a reason, and a killed run goes on."""

from pathlib import Path

import av
import numpy as np
import pyarrow.compute as pc
import pytest

from omnisource import evaluate
from omnisource.curate import probe
from omnisource.errors import UserError
from omnisource.flow import compute_flow, use_flow
from omnisource.ingest import ingest
from omnisource.media import Failure, IsolatedPool, Reason, decode_frames
from omnisource.networks import load_checkpoint
from omnisource.recipe import Recipe, Training
from omnisource.recipe import Test as Views
from omnisource.tables import read_table, write_table
from omnisource.train import train_student
from omnisource.workspace import Workspace, open_workspace


def film(path: Path, dx: int, frames: int = 6) -> None:
    """A bright square on grey texture that moves by `dx` pixels a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ground = np.random.default_rng(1).integers(90, 110, (48, 64, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(frames):
            picture = ground.copy()
            left = 24 + dx * n
            picture[14:34, left : left + 16] = 240
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for label, dx in (("left", -2), ("right", 2)):
        for n in range(3):
            film(tmp_path / "target" / label / f"{label}{n}.mp4", dx, frames=5 + n)
    (tmp_path / "target" / "left" / "broken.mp4").write_bytes(b"\0" * 500)
    return Recipe.model_validate(
        {
            "name": "flow",
            "data": tmp_path,
            "sources": {"target": {"role": "target", "path": "target", "test_share": 0.3}},
            "teachers": {"image": {"network": {"name": "a"}}, "video": {"network": {"name": "b"}}},
            "student": {"network": {"name": "b"}, "input": {"modality": "flow"}},
            "flow": {"method": "dis", "workers": 1, "quality": 0},
        }
    )


def test_flow_of_a_folder(recipe: Recipe, tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        record = compute_flow(recipe, workspace)
        assert record.counts["samples"] == 7
        assert record.counts["reasons"] == {"not_media": 1}
        assert record.counts["frames"] == 2 * (4 + 5 + 6)
        samples = read_table(workspace.table("samples"))
        flowing = use_flow(workspace, samples)
        motions = {}
        for before, after in zip(samples.to_pylist(), flowing.to_pylist(), strict=True):
            assert after["sample_id"] == before["sample_id"] and after["label"] == before["label"]
            if Path(before["uri"]).name == "broken.mp4":
                assert (after["status"], after["reason"]) == ("dropped", "no_flow")
                continue
            fields = decode_frames(after["uri"], range(4))
            motions.setdefault(before["label"], []).append(float(fields[:, 18:30, 20:44, 0].mean()) - 128)
        assert max(motions["left"]) < -2 and min(motions["right"]) > 2
        assert not compute_flow(recipe, workspace).fresh


def test_a_full_disk_is_no_fault_of_a_video(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        with monkeypatch.context() as full:
            full.setattr(IsolatedPool, "map", lambda _, do, jobs: ((j, Failure(Reason.NO_SPACE, "")) for j in jobs))
            with pytest.raises(UserError, match="is full; free some space"):
                compute_flow(recipe, workspace)
        assert compute_flow(recipe, workspace).counts["dropped"] == 1


def test_a_killed_run_goes_on_where_it_stopped(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnisource.flow import stage

    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        rows_of = stage._rows
        calls = 0

        def killing(job: stage._Job, result: stage.FlowFacts | Failure) -> list[dict[str, object]]:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise KeyboardInterrupt
            return rows_of(job, result)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(stage, "_rows", killing)
            compute_flow(recipe, workspace)
        finished = [path for path in workspace.media_dir("flow").glob("[!.]*.mp4")]
        times = {path: path.stat().st_mtime_ns for path in finished}
        record = compute_flow(recipe, workspace)
        assert record.counts["samples"] == 7
        assert sum(path.stat().st_mtime_ns == time for path, time in times.items()) >= 2


def test_flow_is_computed_once_for_every_workspace_that_asks_for_the_same(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.model_copy(update={"flow": recipe.flow.model_copy(update={"folder": "flow"})})

    def computed(name: str, asked: Recipe) -> dict[Path, int]:
        with open_workspace(tmp_path / name) as workspace:
            ingest(asked, workspace)
            record = compute_flow(asked, workspace)
            assert record.fresh and record.counts["frames"] == 2 * (4 + 5 + 6)
            use_flow(workspace, read_table(workspace.table("samples")))
            uris = [Path(uri) for uri in read_table(workspace.table("flow"))["uri"].to_pylist() if uri]
            assert len(uris) == 6
            return {uri: uri.stat().st_mtime_ns for uri in uris}

    first = computed("one", recipe)
    assert all(uri.is_relative_to(tmp_path / "flow") for uri in first)
    assert computed("two", recipe) == first
    other = recipe.model_copy(update={"flow": recipe.flow.model_copy(update={"bound": 5.0})})
    assert not set(computed("three", other)) & set(first)

    film(tmp_path / "target" / "left" / "left0.mp4", 2, frames=5)  # another film under the same name
    damaged, cut_off, *kept = (uri for uri in first if uri not in _of(tmp_path / "one", "left0.mp4"))
    damaged.with_suffix(".json").write_text("[1")
    cut_off.write_bytes(cut_off.read_bytes()[:100])
    again = computed("four", recipe)
    assert {uri for uri in first if again[uri] == first[uri]} == set(kept) and len(kept) == 3


def _of(root: Path, name: str) -> set[Path]:
    """The flow videos of the files called `name`."""
    with open_workspace(root) as workspace:
        samples = read_table(workspace.table("samples")).to_pylist()
        ids = {row["sample_id"] for row in samples if Path(row["uri"]).name == name}
        return {Path(r["uri"]) for r in read_table(workspace.table("flow")).to_pylist() if r["sample_id"] in ids}


def test_a_network_of_flow_learns_which_way_things_move(recipe: Recipe, tmp_path: Path) -> None:
    """Training and testing read the flow videos: motion is all that tells these two classes apart."""
    training = {
        "network": {"name": "slowonly_r18", "options": {"base_width": 8}, "dropout": 0.0},
        # No flips: a mirrored motion to the left is one to the right.
        "input": {
            "modality": "flow",
            "frames": 2,
            "stride": 2,
            "short_side": 48,
            "size": 48,
            "flip": 0,
            "min_area": 0.8,
        },
        "epochs": 50,
        "batch": {"target": 4},
        "optimiser": {"lr": 0.05, "schedule": "constant"},
        "workers": 1,
        "threads": 1,
    }
    student = Training.model_validate(training)
    recipe = recipe.model_copy(update={"student": student, "test": Views(clips=2, crops=1, bootstrap=10)})
    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        with pytest.raises(UserError, match="needs 'flow'"):
            train_student(recipe, workspace, "target-only", 0)
        compute_flow(recipe, workspace)
        train_student(recipe, workspace, "target-only", 0)
        record = evaluate.test_run(recipe, workspace, "target-only", 0)
        assert record.counts["top1"] == 1.0 and record.counts["samples"] == 2
        checkpoint = workspace.run_dir("target-only-0") / "last.safetensors"
        network, meta = load_checkpoint(checkpoint)
        assert network.in_channels == len(meta.mean) == len(meta.std) == 2
        # Other flow, another network: a finished run on the flow of before is not taken for it.
        trained = checkpoint.stat().st_mtime_ns
        short = student.model_copy(update={"epochs": 1})
        for bound in (20.0, 2.0):
            flow = recipe.flow.model_copy(update={"bound": bound})
            changed = recipe.model_copy(update={"flow": flow, "student": short})
            compute_flow(changed, workspace)
            train_student(changed, workspace, "target-only", 0)
            assert checkpoint.stat().st_mtime_ns != trained
            trained = checkpoint.stat().st_mtime_ns


def _changed(workspace: Workspace, column: str, value: object) -> None:
    path = workspace.table("flow")
    table = read_table(path)
    values = table[column].to_pylist()
    ok = table["status"].to_pylist().index("ok")
    values[ok] = value
    write_table(path, table.set_column(table.schema.get_field_index(column), table.schema.field(column), [values]))


def test_flow_that_does_not_belong_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w") as workspace:
        ingest(recipe, workspace)
        samples = read_table(workspace.table("samples"))
        with pytest.raises(UserError, match=r"flow.parquet: no such table"):
            use_flow(workspace, samples)
        compute_flow(recipe, workspace)
        _changed(workspace, "flow_frames", 2)
        with pytest.raises(UserError, match=r"2 flow frames for a video of \d"):
            use_flow(workspace, samples)
        workspace.table("flow").unlink()
        compute_flow(recipe, workspace)
        shorter, gone, *_ = (Path(uri) for uri in read_table(workspace.table("flow"))["uri"].to_pylist() if uri)
        shorter.write_bytes(shorter.read_bytes()[:-9])
        gone.unlink()
        with pytest.raises(UserError, match=r"2 of 6 flow videos are gone or were changed; delete .*flow.parquet"):
            use_flow(workspace, samples)
        workspace.table("flow").unlink()  # as the message says
        compute_flow(recipe, workspace)
        use_flow(workspace, samples)
        write_table(
            workspace.table("flow"), read_table(workspace.table("flow"), filters=pc.field("status") == "dropped")
        )
        with pytest.raises(UserError, match="no flow for 6 of 7 samples; run `omnisource flow`"):
            use_flow(workspace, samples)
