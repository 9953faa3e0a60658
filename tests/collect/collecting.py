"""A collection as the tests ask for it."""

from pathlib import Path
from typing import Any

from omnisource.collect import Order, collect_order
from omnisource.recipe import Collect
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, open_workspace

QUICK = {"allow_private": True, "rate_per_host": 0, "backoff_s": 0.01, "timeout_s": 1.0, "min_free_bytes": 0}
CLASSES = ["forehand", "serve"]


def order(sources: list[Any], classes: list[str] = CLASSES, **settings: Any) -> Order:
    return Order(Collect(**{**QUICK, **settings}, sources=sources), classes, Path, {})


def run(workspace: Path, order: Order, **options: bool) -> tuple[StageRecord, list[dict[str, Any]]]:
    with open_workspace(workspace) as opened:
        record = collect_order(order, opened, **options)
        return record, read_table(opened.table("collected")).to_pylist()
