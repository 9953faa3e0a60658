"""What `omnisource run` prints at its end."""

import io
from dataclasses import replace

from rich.console import Console

from omnisource.cli.run import results_table
from omnisource.evaluate import RunSummary

ALONE = RunSummary(
    run="target-only",
    folds=1,
    seeds=[0, 1, 2],
    trainings=3,
    samples=160,
    failed=0,
    list_hashes=["cde837620c66c4a4"],
    top1=0.352,
    top1_each=[0.325, 0.375, 0.356],
    top1_t_interval=(0.289, 0.415),
    top1_interval=(0.28, 0.42),
    top5=0.9,
    mean_class=0.352,
)
JOINT = replace(
    ALONE, run="+untrimmed", baseline="target-only", gain=-0.029, gain_t_interval=(-0.156, 0.097), gain_interval=(0, 0)
)


def printed(*summaries: RunSummary) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(results_table(summaries))
    return [line.strip("│ \n") for line in out.getvalue().splitlines()]


def test_the_table_is_whole_in_eighty_columns() -> None:
    lines = printed(ALONE, JOINT)
    assert lines[0] == "top-1 on 160 test samples, 95 % intervals: t over trainings"
    rows = [" ".join(line.split()) for line in lines]
    assert "target-only │ 35.2 │ 28.9 – 41.5 │ │ │ 3" in rows
    assert "+untrimmed │ 35.2 │ 28.9 – 41.5 │ -2.9 │ -15.6 – 9.7 │ 3" in rows
    assert lines[-2:] == ["160 of 160 scored", "test list cde837620c66c4a4"]


def test_runs_that_were_not_tested_alike_are_told_apart() -> None:
    lines = printed(ALONE, replace(JOINT, samples=158, failed=2, list_hashes=["0123456789abcdef"]))
    assert lines[-4:] == [
        "target-only: 160 of 160 scored",
        "+untrimmed: 158 of 160 scored",
        "target-only: test list cde837620c66c4a4",
        "+untrimmed: test list 0123456789abcdef",
    ]


def test_the_interval_of_a_single_training_is_called_what_it_is() -> None:
    title = " ".join(printed(ALONE, replace(JOINT, trainings=1, top1_t_interval=None))[:2])
    assert title.endswith("t over trainings; bootstrap over samples for +untrimmed (one training)")
