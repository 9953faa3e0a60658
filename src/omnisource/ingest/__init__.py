"""Folders and lists become the samples table."""

from omnisource.ingest.stage import COLLECTED, ingest

__all__ = ["COLLECTED", "ingest"]
