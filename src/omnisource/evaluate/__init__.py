"""Testing: the protocol's views, metrics, predictions tables, paired comparison, fusion, folds."""

from omnisource.evaluate.compare import Comparison, compare
from omnisource.evaluate.current import left_out
from omnisource.evaluate.folds import (
    RunSummary,
    fold_overrides,
    parse_folds,
    predictions_name,
    summarise,
    summarise_folds,
)
from omnisource.evaluate.fusion import best_share, fuse, parse_weights, sweep_weights
from omnisource.evaluate.metrics import Metrics, measure
from omnisource.evaluate.predictions import Predictions, as_table, read_predictions, write_predictions
from omnisource.evaluate.test import check_classes, test_basis, test_checkpoint, test_run, test_teacher, test_training
from omnisource.evaluate.views import crop_size, view_request

__all__ = [
    "Comparison",
    "Metrics",
    "Predictions",
    "RunSummary",
    "as_table",
    "best_share",
    "check_classes",
    "compare",
    "crop_size",
    "fold_overrides",
    "fuse",
    "left_out",
    "measure",
    "parse_folds",
    "parse_weights",
    "predictions_name",
    "read_predictions",
    "summarise",
    "summarise_folds",
    "sweep_weights",
    "test_basis",
    "test_checkpoint",
    "test_run",
    "test_teacher",
    "test_training",
    "view_request",
    "write_predictions",
]
