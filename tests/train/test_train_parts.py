"""Parts of the target that are left out once each, and the teachers that are judged on them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train_small import Small

from omnisource.errors import UserError
from omnisource.recipe import Recipe
from omnisource.tables import SAMPLES, read_table, table_from_rows, write_table
from omnisource.train import build_pool, target_parts, train_judge
from omnisource.train.parts import PARTS
from omnisource.workspace import Workspace

RECIPE = Recipe.model_validate(
    {
        "name": "parts",
        "sources": {"clips": {"role": "target", "path": "x"}},
        "teachers": {"image": {"network": {"name": "tsn_r18"}}, "video": {"network": {"name": "tsn_r18"}}},
        "student": {"network": {"name": "tsn_r18"}},
    }
)
ROW = {"source": "clips", "role": "target", "format": "clip", "uri": "x", "split": "train", "status": "ok"}


def workspace_of(root: Path, samples: list[tuple[str, str | None, str]]) -> Workspace:
    """samples: (id, group, label)."""
    rows = [ROW | {"sample_id": name, "group": group, "label": label} for name, group, label in samples]
    workspace = Workspace(root)
    write_table(workspace.table("samples"), table_from_rows(rows, SAMPLES))
    return workspace


@settings(max_examples=10)
@given(st.lists(st.tuples(st.sampled_from("abcdefghi"), st.sampled_from(["wave", "jump"])), min_size=9, max_size=40))
def test_groups_stay_whole_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, str]]
) -> None:
    samples = [(f"s{number:02d}", group, label) for number, (group, label) in enumerate(drawn)]
    samples += [("s-alone", None, "wave"), ("s-other", None, "jump")]
    root = tmp_path_factory.mktemp("parts")
    parts = target_parts(RECIPE, workspace_of(root, samples))
    group_of = {name: group or name for name, group, _ in samples}
    assert len(parts) == min(PARTS, len(set(group_of.values()))) and all(parts)
    assert sorted(name for part in parts for name in part) == sorted(group_of)
    where = {(group_of[name], number) for number, part in enumerate(parts) for name in part}
    assert len(where) == len(set(group_of.values())), "no group is in two parts"
    assert target_parts(RECIPE, workspace_of(root, samples[::-1])) == parts, "the order of the rows leaves no trace"


def test_classes_are_even(tmp_path: Path) -> None:
    samples: list[tuple[str, str | None, str]] = [(f"{n:02d}", None, ("wave", "jump", "fly")[n % 3]) for n in range(48)]
    for part in target_parts(RECIPE, workspace_of(tmp_path, samples)):
        counts = Counter(("wave", "jump", "fly")[int(name) % 3] for name in part)
        assert set(counts) == {"wave", "jump", "fly"} and max(counts.values()) - min(counts.values()) <= 1


def test_a_target_of_one_group_can_not_be_parted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split: cross .* are of 1; set `columns\.group`"):
        target_parts(RECIPE, workspace_of(tmp_path, [("a", "g", "wave"), ("b", "g", "jump")]))


def test_a_judge_is_the_teacher_without_its_part(small: Small) -> None:
    parts = target_parts(small.recipe, small.workspace)
    assert [len(part) for part in parts] == [4, 3, 3, 3, 3]
    values = small.recipe.model_dump(mode="json")
    values["teachers"]["image"]["batch"]["target"] = 16  # all that its teacher has, more than the judge has
    recipe = Recipe.model_validate(values)
    record = train_judge(recipe, small.workspace, "image", 1)
    assert record.counts["batch"] == {"target": 13}
    assert record.stage == "train-teacher-image~1" and record.counts["units"] == {"clips": 13}
    assert (small.workspace.run_dir("teacher-image~1") / "last.safetensors").exists()
    assert not train_judge(recipe, small.workspace, "image", 1).fresh
    pool = build_pool(small.recipe, small.workspace, ["clips"], by_frame=True, leave_out=parts[1])
    seen = {pool.unit(number).sample_id for number in range(len(pool))}
    trained = {
        r["sample_id"] for r in read_table(small.workspace.table("samples")).to_pylist() if r["split"] == "train"
    }
    assert seen == trained - parts[1] and record.counts["list"] == pool.digest
    with pytest.raises(UserError, match="has 5 parts, there is no part 5"):
        train_judge(small.recipe, small.workspace, "image", 5)
