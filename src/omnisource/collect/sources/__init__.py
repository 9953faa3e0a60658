"""Where candidates come from: one file a source, all behind `Source.search`."""

from omnisource.collect.sources.base import Candidate, Source

__all__ = ["Candidate", "Source"]
