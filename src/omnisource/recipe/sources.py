"""`sources:` what comes in, as what, and which part of it trains or tests."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from omnisource.recipe.base import Count, Section

Scalar = bool | int | float | str
# What a table may say of a sample.
COLUMNS = (
    "path",
    "label",
    "split",
    "fold",
    "group",
    "start_s",
    "end_s",
    "url",
    "page_url",
    "query",
    "author",
    "licence",
)


class Range(Section):
    """A condition on a number: `above <= value < below`."""

    above: float | None = None
    below: float | None = None


Condition = Range | Scalar | list[Scalar]
Where = dict[str, Condition]


class Source(Section):
    """One target dataset or one kind of web data."""

    role: Literal["target", "web"]  # target: labelled, to train and test on; web: what a query found
    format: Literal["image", "clip", "untrimmed"] = "clip"  # untrimmed: long videos
    path: str = ""  # folder of <class>/<file>, or a list file; relative to the recipe's `data`
    # auto looks; files: a flat folder without labels, of which nothing but the teacher's word is known
    layout: Literal[
        "auto", "folders", "files", "table", "lines", "kinetics", "ucf101", "hmdb51", "json", "collected"
    ] = "auto"
    root: str | None = None  # where the paths of a list start; default: the list's folder
    # Tables and JSON lists: our name -> the file's column, for path, label, split, fold, group, url, page_url, query,
    # author and licence where they are called otherwise, and for start_s, end_s (seconds of the file that the row is
    # about), which no name alone turns on.
    columns: dict[str, str] = {}
    labels: dict[str, str] = {}  # a label or query of the files -> the class it means: {tennis serve: serve}
    class_index: str | None = None  # list of class names for files whose labels are numbers
    # Use only rows that satisfy all conditions: column -> a value, a list of values, or a Range.
    where: Where = {}
    exclude: Where = {}  # leave out rows that satisfy all conditions
    split: Literal["train", "val", "test"] | None = None  # the whole source belongs to this split
    test: Where = {}  # rows that satisfy all conditions are the test split
    val: Where = {}  # of the others, rows that satisfy all conditions are the val split
    # Without test rows otherwise: this share of each class, drawn by hash, whole groups together.
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    test_part: Annotated[int, Field(ge=0)] = 0  # which share of that size: 0 the first drawn, 1 the next
    max_per_class: Count | None = None  # keep the first so many of a class (by sample id)
    missing: Literal["refuse", "drop"] = "refuse"  # listed files that are not there
    licence: list[str] = []  # keep only these licences

    @model_validator(mode="after")
    def _consistent(self) -> "Source":
        if not self.path and self.layout != "collected":
            raise ValueError("path is missing (only `layout: collected` needs none)")
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"columns: '{name}' is none of our names: {', '.join(COLUMNS)}")
        if self.role == "web" and (self.split or self.test or self.val or self.test_share or self.test_part):
            raise ValueError("web sources have no split: remove split, test, val, test_share, test_part")
        if self.test_part and self.test_part >= self.test_parts:
            raise ValueError(
                f"test_part {self.test_part}: with test_share {self.test_share:g} there are the parts 0 to "
                f"{self.test_parts - 1}"
                if self.test_share
                else "test_part says which share is tested, but there is no test_share"
            )
        return self

    @property
    def test_parts(self) -> int:
        """How many shares of the size `test_share` there are that have no clip in common; 0 without a share."""
        return int(1 / self.test_share + 1e-9) if self.test_share else 0
