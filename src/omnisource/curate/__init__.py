"""Curation: from a heap of web media to training data that can be trusted."""

from omnisource.curate.calibrate import calibrate
from omnisource.curate.dedupe import dedupe
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.prepare import prepare
from omnisource.curate.probe import probe
from omnisource.curate.score import score
from omnisource.curate.select import select, what_if

__all__ = ["LOCAL", "Engine", "calibrate", "dedupe", "prepare", "probe", "score", "select", "what_if"]
