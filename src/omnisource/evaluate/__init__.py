"""Testing: the protocol's views, metrics, predictions tables, paired comparison, fusion, folds."""

from omnisource.evaluate.compare import Comparison, compare
from omnisource.evaluate.folds import RunSummary, predictions_name, summarise, summarise_folds
from omnisource.evaluate.fusion import best_share, fuse, parse_weights, sweep_weights
from omnisource.evaluate.metrics import Metrics, measure
from omnisource.evaluate.predictions import Predictions, as_table, read_predictions, write_predictions

__all__ = [
    "Comparison",
    "Metrics",
    "Predictions",
    "RunSummary",
    "as_table",
    "best_share",
    "compare",
    "fuse",
    "measure",
    "parse_weights",
    "predictions_name",
    "read_predictions",
    "summarise",
    "summarise_folds",
    "sweep_weights",
    "write_predictions",
]
