"""`test:` the views of the test protocol, and which trainings are compared."""

from typing import Annotated, Any, Literal

from pydantic import Field

from omnisource.recipe.base import Section

Count = Annotated[int, Field(ge=1)]


class Test(Section):
    """Views per video. 3D: `clips` x `crops`; 2D: one view of `clips` segments x `crops` (paper: 10 x 3, 25 x 3)."""

    clips: Count = 10
    crops: Literal[1, 3, 5, 10] = 3
    average: Literal["prob", "score"] = "prob"
    batch: Count = 8  # views in one forward
    split: Literal["test", "val", "train"] = "test"
    bootstrap: Annotated[int, Field(ge=0)] = 1000


class Run(Section):
    """One trained student per seed: from these sources, with these settings of `student` changed."""

    sources: list[str]
    set: dict[str, Any] = {}  # dotted key of the student's training -> value
