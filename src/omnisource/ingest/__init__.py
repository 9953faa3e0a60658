"""Folders and lists become the samples table."""

from omnisource.ingest.stage import COLLECTED, column_values, entries_of, ingest, is_labelled, source_place

__all__ = ["COLLECTED", "column_values", "entries_of", "ingest", "is_labelled", "source_place"]
