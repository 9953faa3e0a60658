"""Curation: from a heap of web media to training data that can be trusted."""

from omnisource.curate.prepare import prepare
from omnisource.curate.probe import probe
from omnisource.curate.select import select, what_if

__all__ = ["prepare", "probe", "select", "what_if"]
