"""`omnisource test` over seeds and folds, on tables that a test left; training and media are tested elsewhere."""

from pathlib import Path

import pytest

from omnisource.errors import UserError
from omnisource.evaluate import fold_overrides, parse_folds
from omnisource.recipe import load_recipe

RECIPE = """\
name: folds
sources:
  target: {{role: target, path: t, {choice}}}
teachers: {{image: {{network: {{name: tsn_r18}}}}, video: {{network: {{name: slowonly_r18}}}}}}
student: {{network: {{name: slowonly_r18}}}}
"""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("where: {fold: 1}", "sources.target.where.fold=3"),
        ("test: {fold: 0}", "sources.target.test.fold=3"),
    ],
)
def test_a_fold_is_chosen_where_the_recipe_chooses_it(tmp_path: Path, choice: str, expected: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(choice=choice))
    overrides = fold_overrides(load_recipe(path), 3)
    assert overrides == [expected]
    source = load_recipe(path, overrides).sources["target"]
    assert 3 in (source.where.get("fold"), source.test.get("fold"))


def test_recipes_without_folds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(choice="test_share: 0.3"))
    with pytest.raises(UserError, match="no target source chooses by fold"):
        fold_overrides(load_recipe(path), 1)


def test_folds_are_numbers_each_once() -> None:
    assert parse_folds("1, 2,03") == [1, 2, 3]
    with pytest.raises(UserError, match="--folds 1,x: 'x' is not a number"):
        parse_folds("1,x")
    with pytest.raises(UserError, match="names a fold twice"):
        parse_folds("1,2,01")
