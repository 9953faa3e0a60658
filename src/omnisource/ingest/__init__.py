"""Folders and lists become the samples table."""

from omnisource.ingest.stage import COLLECTED, ingest, source_place

__all__ = ["COLLECTED", "ingest", "source_place"]
