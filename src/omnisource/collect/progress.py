"""How a collection is going: a line for each source every few seconds, with rates and remaining time."""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

from omnisource.collect.state import CollectState, UrlRow
from omnisource.progress import say

_INTERVAL_S = 15.0
_RATE_OVER_S = 60.0


class Progress:
    """Counts what is finished and prints where things stand; `close` ends it."""

    def __init__(self, state: CollectState) -> None:
        self._state = state
        self._finished: Counter[bool] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def finished(self, row: UrlRow, outcome: str) -> None:
        """One more URL is done (outcome `done`) or given up."""
        self._finished[outcome == "done"] += 1

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            done = self._finished.total()
            standing = look(self._state)
            failed = f", {self._finished[False]} failed" if self._finished[False] else ""
            say(f"collect: {done} URLs finished{failed}; {standing.pace}")
            for source, found, finished in self._state.by_source():
                say(f"  {source}: {finished} of {found}")


@dataclass(frozen=True)
class Standing:
    """How far a collection is: in all, and by source and class."""

    counts: dict[str, int]  # URLs by state
    rate: float  # files a second over the last minute
    rows: list[tuple[Any, ...]]  # (source, class, found, finished, failed)

    @property
    def pace(self) -> str:
        """Rate and remaining time in words."""
        left = self.counts.get("pending", 0)
        eta = f", about {left / self.rate:.0f} s left" if self.rate and left else ""
        return f"{self.rate:.1f} files/s, {left} pending{eta}"


def look(state: CollectState, classes: bool = False) -> Standing:
    """Where a collection stands, from its state table alone: also while another process works on it."""
    rate = state.recent(_RATE_OVER_S) / _RATE_OVER_S
    return Standing(state.counts(), rate, state.by_source(classes=True) if classes else [])
