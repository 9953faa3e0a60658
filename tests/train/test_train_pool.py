"""The pool: which units a run has, and which it refuses to do without."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from train_small import CLASSES, Small, settings

from omnisource.errors import UserError
from omnisource.networks import takes_frames
from omnisource.recipe import Training
from omnisource.tables import DUPLICATES, read_table, table_from_rows, write_table
from omnisource.train import Pool, build_pool
from omnisource.train.pool import FACTS, Facts, Rows, digest_units


def pool_of(small: Small, *sources: str, by_frame: bool = False, split: str = "train") -> Pool:
    return build_pool(small.recipe, small.workspace, sources or list(small.recipe.sources), by_frame, split)


def units(pool: Pool, source: str) -> list[tuple[str, str, float, float | None]]:
    found = [pool.unit(number) for number in range(len(pool))]
    return [(unit.sample_id, unit.kind, unit.start_s, unit.end_s) for unit in found if unit.source == source]


def test_a_3d_network_gets_windows_and_a_2d_network_frames(small_tables: Small) -> None:
    deep, flat = pool_of(small_tables), pool_of(small_tables, by_frame=True)
    assert deep.counts() == {"clips": 16, "images": 12, "shorts": 9, "films": 9}
    assert deep.has_images and not pool_of(small_tables, "clips").has_images
    assert flat.counts() == {"clips": 16, "images": 12, "shorts": 9, "films": 9}
    assert units(deep, "films")[:3] == [
        ("films-000", "window", 0.0, 2.0),
        ("films-000", "window", 4.0, 6.0),
        ("films-000", "window", 6.0, 8.0),
    ]
    assert [found[1:3] for found in units(flat, "films")[:3]] == [("frame", 0.5), ("frame", 3.5), ("frame", 6.5)]
    window = deep.unit(int((deep.source == 3).nonzero()[0][0]))
    assert (window.num_frames, window.fps, window.side, window.sound) == (20, 10.0, 48, True)
    assert flat.frames is not None
    times, sides, labels = flat.frames.of(flat.unit(len(flat) - 1).place)
    assert times.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    assert sides.tolist() == [1, 0, -1, 1, 0, -1, 1, 0] and set(labels.tolist()) == {2}


def test_a_2d_network_may_ask_for_windows() -> None:
    plain = settings("tsn_r18")
    assert takes_frames(Training.model_validate(plain))
    assert not takes_frames(Training.model_validate(plain | {"snippets": {"kind": "window"}}))
    assert not takes_frames(Training.model_validate(settings("slowonly_r18")))


def test_only_the_split_that_is_asked_for(small_tables: Small) -> None:
    assert {name for name, *_ in units(pool_of(small_tables, "clips", split="val"), "clips")} == {
        f"clips-{number:03d}" for number in range(16, 20)
    }
    pool = pool_of(small_tables)
    images = pool.label[pool.source == pool.sources.index("images")]
    assert dict(zip(pool.classes, np.bincount(images).tolist(), strict=True)) == {"left": 3, "right": 3, "still": 6}


def test_dropped_and_duplicate_samples_stay_out(small: Small) -> None:
    whole = pool_of(small)
    row = {"sample_id": "images-002", "status": "dropped", "reason": "near_test"}
    write_table(small.workspace.table("duplicates"), table_from_rows([row], DUPLICATES))
    probe = read_table(small.workspace.table("probe"))
    status = pc.if_else(pc.equal(probe["sample_id"], "clips-003"), "dropped", probe["status"])
    write_table(
        small.workspace.table("probe"), probe.set_column(probe.schema.get_field_index("status"), "status", status)
    )
    pool = pool_of(small)
    assert pool.counts() == {"clips": 15, "images": 11, "shorts": 9, "films": 9}
    assert pool.digest != whole.digest


def test_the_digest_names_the_list_and_not_its_place(small: Small) -> None:
    before = pool_of(small)
    path = small.workspace.table("samples")
    table = read_table(path)
    moved = pc.binary_join_element_wise(pa.scalar("/elsewhere"), table["uri"], "")
    write_table(path, table.set_column(table.schema.get_field_index("uri"), "uri", moved))
    after = pool_of(small)
    assert after.digest == before.digest and after.unit(0).uri == f"/elsewhere{before.unit(0).uri}"


def test_the_digest_changes_with_all_that_training_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {name: np.zeros(3, kind) for name, kind in FACTS.items()} | {"soft": np.array([-1, 0, 1], np.int32)}
    columns = {name: np.zeros(3, np.int32) for name in ("sample", "source", "label")}
    columns["sample"] = np.array([0, 1, 3], np.int32)
    soft = [[0.5, 0.5], [0.25, 0.75]]

    def digest(names: list[list[str]], probs: list[list[float]] = soft, **changed: int) -> str:
        pieces = [pa.record_batch({"sample_id": piece}) for piece in names]
        given = {name: values.copy() for name, values in (columns | facts).items()}
        for name, value in changed.items():
            given[name][2] = value
        rows = Rows([pa.record_batch({"probs": pa.array(probs, pa.list_(pa.float32()))})])
        known = Facts(**{name: given[name] for name in FACTS})
        return digest_units(Rows(pieces), given["sample"], given["source"], given["label"], known, rows)

    plain = digest([["ab", "c", "not used", "d"]])
    assert plain == "19a5442446b49d1d", "by it runs that were ever begun are known again"
    assert plain == digest([["ab", "c"], ["another", "d"]]) == digest([["ab"], ["c", "", "d"]])
    assert plain == digest([["ab", "c", "", "d"]], place=5, file=5, kind=1, side=48, sound=1)
    others = [
        *(digest([[*names, "", "d"]]) for names in (("ac", "c"), ("a", "bc"), ("c", "ab"))),
        *(digest([["ab", "c", "", "d"]], **{name: 1}) for name in ("source", "label", "start_s", "end_s", "fps")),
        digest([["ab", "c", "", "d"]], num_frames=1),
        digest([["ab", "c", "", "d"]], sample=1),
        digest([["ab", "c", "", "d"]], soft=0),
        digest([["ab", "c", "", "d"]], probs=[[0.5, 0.5], [0.75, 0.25]]),
    ]
    assert len({plain, *others}) == 1 + len(others)
    monkeypatch.setattr("omnisource.train.pool._ROWS", 2)
    assert digest([["ab", "c", "", "d"]]) == plain


def test_what_cannot_be_trained_on_is_refused(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = small.workspace
    with pytest.raises(UserError, match="'photos' is no source of the recipe; sources are: clips, images"):
        pool_of(small, "clips", "photos")
    decisions = read_table(workspace.table("decisions-default"))
    none = pc.and_(decisions["keep"], pc.not_equal(decisions["source"], "images"))
    keep = decisions.schema.get_field_index("keep")
    write_table(workspace.table("decisions-default"), decisions.set_column(keep, "keep", none))
    assert pool_of(small).counts()["images"] == 0
    assert "source 'images' has no kept rows in the selection 'default'" in capsys.readouterr().err
    label = decisions.schema.get_field_index("label")
    unknown = pa.array(["jump"] * decisions.num_rows)
    write_table(workspace.table("decisions-default"), decisions.set_column(label, "label", unknown))
    with pytest.raises(UserError, match="the label 'jump' is not in the class list"):
        pool_of(small)
    samples = read_table(workspace.table("samples"))
    kept = samples.filter(pc.not_equal(samples["label"], CLASSES[0]))
    write_table(workspace.table("samples"), kept)
    with pytest.raises(UserError, match="class 'left' has no sample in any source of the run"):
        pool_of(small, "clips")
    status = samples.schema.get_field_index("status")
    dropped = samples.set_column(status, "status", pa.array(["dropped"] * len(samples)))
    write_table(workspace.table("samples"), dropped)
    with pytest.raises(UserError, match="source 'clips' has no usable training sample"):
        pool_of(small)
    write_table(workspace.table("samples"), pa.concat_tables([samples, samples.slice(0, 1)]))
    with pytest.raises(UserError, match="lists a sample twice"):
        pool_of(small)
    workspace.table("duplicates").unlink()
    with pytest.raises(UserError, match="run `omnisource dedupe` first"):
        pool_of(small)
