"""The documentation is true: the recipe reference is the code's, every recipe that is shipped loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from omnisource.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def test_the_recipe_reference_is_up_to_date() -> None:
    command = [sys.executable, ROOT / "docs/make_recipe_reference.py", "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "run: python docs/make_recipe_reference.py"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    for run in recipe.planned_runs():
        recipe.student_of(run)
