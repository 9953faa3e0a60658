"""Does the web help? Tracks, questions, cells (one training each), and what they amount to (paper, section 5)."""

from omnisource.evidence.cells import Cell, run_cells
from omnisource.evidence.own import own_track, own_variants
from omnisource.evidence.page import write_page, write_results
from omnisource.evidence.sheet import write_sheet
from omnisource.evidence.summary import Row, summarise
from omnisource.evidence.tracks import TRACKS, Track, track_of
from omnisource.evidence.variants import Variant, variants_of

__all__ = [
    "TRACKS",
    "Cell",
    "Row",
    "Track",
    "Variant",
    "own_track",
    "own_variants",
    "run_cells",
    "summarise",
    "track_of",
    "variants_of",
    "write_page",
    "write_results",
    "write_sheet",
]
