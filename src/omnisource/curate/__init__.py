"""Curation: from a heap of web media to training data that can be trusted."""

from omnisource.curate.calibrate import calibrate
from omnisource.curate.dedupe import dedupe
from omnisource.curate.embed import Trunk
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.prepare import prepare
from omnisource.curate.probe import probe
from omnisource.curate.score import score, units_by_teacher
from omnisource.curate.select import human_decisions, select, what_if
from omnisource.curate.teacher import foreign_teacher

__all__ = [
    "LOCAL",
    "Engine",
    "Trunk",
    "calibrate",
    "dedupe",
    "foreign_teacher",
    "human_decisions",
    "prepare",
    "probe",
    "score",
    "select",
    "units_by_teacher",
    "what_if",
]
