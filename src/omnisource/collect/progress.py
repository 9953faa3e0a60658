"""How a collection is going: a line for each source every few seconds, with rates and remaining time."""

import threading
import time
from collections import Counter

from omnisource.collect.state import CollectState, UrlRow
from omnisource.progress import console

_INTERVAL_S = 15.0


class Progress:
    """Counts what is finished and prints where things stand; `close` ends it."""

    def __init__(self, state: CollectState) -> None:
        self._state = state
        self._finished: Counter[bool] = Counter()
        self._started = time.monotonic()
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
            rate = done / (time.monotonic() - self._started)
            left = self._state.counts().get("pending", 0)
            eta = f", {left / rate:.0f} s left" if rate else ""
            console.print(f"collect: {done} URLs finished, {rate:.1f}/s, {left} pending{eta}", soft_wrap=True)
            for source, found, finished in self._state.by_source():
                console.print(f"  {source}: {finished} of {found}", soft_wrap=True, markup=False)
