"""Near-duplicates by perceptual hash: pairs of 64-bit words within a small Hamming distance."""

from collections.abc import Iterable, Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_BLOCK = 16_384  # queries at a time
_MOST_BANDS = 8  # beyond so many differing bits the bands are too short to save anything


def near_pairs(words: U64, distance: int) -> Iterator[tuple[I64, I64]]:
    """Pairs (earlier, later) of positions whose words differ in at most `distance` bits; block after block.

    Exact: words that differ in d bits agree in at least one of d + 1 bands of bits, so only words that share a band are
    compared. Blocks come in the order of `later`; memory grows with the words and with the pairs of one block.

    Args:
        words: (N,).
        distance: most differing bits, 0 to 64.
    """
    codes = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), 8)
    bands = distance + 1
    index: Any = faiss.IndexBinaryFlat(64)
    if bands <= _MOST_BANDS:
        index = faiss.IndexBinaryMultiHash(64, bands, min(64 // bands, 32))
    for first in range(0, len(words), _BLOCK):
        block = codes[first : first + _BLOCK]
        index.add(block)
        limits, _, earlier = index.range_search(block, distance + 1)
        later = np.repeat(np.arange(first, first + len(block)), np.diff(limits.astype(np.int64)))
        earlier = earlier.astype(np.int64)
        before = earlier < later
        yield earlier[before], later[before]


def keep_first(count: int, pairs: Iterable[tuple[I64, I64]]) -> I64:
    """For each of `count` items the earlier item that it duplicates, or -1.

    Items come best first; one is dropped when it is a pair with an earlier item that is itself kept. So likeness is not
    passed on: of a chain of ever less similar items, those that are far from what is kept are kept too.

    Args:
        count: items.
        pairs: as `near_pairs` gives them, blocks in the order of `later`.
    """
    twin = np.full(count, -1, np.int64)
    for earlier, later in pairs:
        possible = twin[earlier] < 0
        earlier, later = earlier[possible], later[possible]
        order = np.lexsort((earlier, later))
        for a, b in zip(earlier[order].tolist(), later[order].tolist(), strict=True):
            if twin[a] < 0 and twin[b] < 0:
                twin[b] = a
    return twin
