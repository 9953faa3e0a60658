"""The line of the log, by hand."""

import torch
from test_train_plan import pool_of

from omnisource.train.tally import Progress, Tally, new_tally, speed_row, train_row

SUMS = torch.tensor(
    [  # loss, right, slots, loss and sureness of strong views, weighted loss
        [6.0, 3.0, 4.0, 0.0, 0.0, 6.0],
        [2.0, 1.0, 8.0, 4.0, 6.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ],
    dtype=torch.float64,
)


def test_the_line_of_the_log() -> None:
    pool = pool_of([[0], [1], [2]])
    at = Progress(9, Tally(SUMS, steps=4, loss=10.0, norm=9.0, skipped=1))
    row = train_row(at, pool, 2.5, 0.01, consistent=True)
    assert row == {
        "kind": "train",
        "step": 9,
        "epoch": 2.5,
        "lr": 0.01,
        "loss": 2.5,
        "gradient_norm": 3.0,
        "skipped": 1,
        "sources": {
            "target": {"loss": 1.5, "accuracy": 0.75, "slots": 4},
            "images": {"loss": 0.25, "accuracy": 0.125, "slots": 8, "consistency": {"loss": 0.5, "sure": 0.75}},
        },
    }
    at.tally.skipped = 0
    plain = train_row(at, pool, 2.5, 0.01, consistent=False)
    assert "skipped" not in plain and plain["gradient_norm"] == 2.25
    assert plain["sources"]["images"] == {"loss": 0.25, "accuracy": 0.125, "slots": 8}
    at.tally.skipped = 4
    assert train_row(at, pool, 2.5, 0.01, consistent=False)["gradient_norm"] is None, "no step was taken"
    at.seconds, at.waited = 3.0, 0.75
    speed = speed_row(at, torch.device("cpu"))
    assert (speed["step"], speed["seconds"], speed["clips_per_s"], speed["waiting_share"]) == (9, 3.0, 4.0, 0.25)
    assert new_tally(pool).sums.shape == SUMS.shape and not new_tally(pool).sums.any()
