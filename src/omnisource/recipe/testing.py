"""`test:` the views of the test protocol, and which trainings are compared."""

from typing import Annotated, Any, Literal

from pydantic import Field

from omnisource.recipe.base import BatchSize, Frames, Processes, Section, Side


class Test(Section):
    """Views per video. 3D: `clips` x `crops`; 2D: one view of `clips` segments x `crops` (paper: 10 x 3, 25 x 3)."""

    clips: Frames = 10
    crops: Literal[1, 3, 5, 10] = 3
    size: Side | None = None  # side of a crop; null: the short side for three crops, else that of the training's crop
    average: Literal["prob", "score"] = "prob"  # over a video's views: of probabilities, or of logits
    batch: BatchSize = 8  # views in one forward
    split: Literal["test", "val", "train"] = "test"  # of the target
    bootstrap: Annotated[int, Field(ge=0, le=1_000_000)] = 1000  # resamples, for intervals
    processes: Processes | None = None  # that share a test; null: one for each GPU, or one


class Run(Section):
    """One trained student per seed: from these sources, with these settings of `student` changed."""

    sources: list[str]
    # Ours: an earlier run whose students (of all seeds, averaged) score and select the web data anew for this one.
    teacher: str | None = None
    set: dict[str, Any] = {}  # dotted key of the student's training -> value


class Truth(Section):
    """What web samples really show. Only the report reads it, to state precision and recall of each filter."""

    # CSVs with `path` (relative ones start at the CSV's folder) and the truth in `column`; also, if there:
    # near_duplicate_of, exact_duplicate_of, broken (any text means yes).
    files: list[str] = []
    column: str = "truth"  # with the class; anything that is none counts as off topic
    segments: str | None = None  # CSV of untrimmed videos: path (or video), start_s, end_s, label
    min_overlap: Annotated[float, Field(gt=0, le=1)] = 0.3  # share of a window that its class must fill to be right
