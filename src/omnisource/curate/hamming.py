"""Near-duplicates by perceptual hash: pairs of 64-bit words within a small Hamming distance."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import faiss
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BLOCK = 2048  # queries at a time
_PAIRS = 4_000_000  # of one search, about, so that memory stays small where many words are alike
_MOST_BANDS = 8  # beyond so many differing bits the bands are too short to save anything
_MOST_ASKED = 100  # kept items with like words that one item is compared with; where there are more, words say nothing


def near_pairs(
    words: U64, distance: int, hidden: Bools | None = None, possible: Callable[[I64, I64], Bools] | None = None
) -> Iterator[tuple[I64, I64]]:
    """Pairs (earlier, later) of positions whose words differ in at most `distance` bits; block after block.

    Exact: words that differ in d bits agree in at least one of d + 1 bands of bits, so only words that share a band are
    compared. Blocks come in the order of `later`; memory grows with the words and with the pairs of one block.

    Args:
        words: (N,).
        distance: most differing bits, 0 to 64.
        hidden: (N,), true for what is not to be found any more; looked at after each block.
        possible: (earlier, later) -> which of these to give at all; None: all.
    """
    codes = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), 8)
    index = _index(distance)
    known, count = np.empty(len(words), np.int64), 0  # positions of what the index holds
    step = _BLOCK
    for first in range(0, len(words), _BLOCK):
        places = np.arange(first, min(first + _BLOCK, len(words)))
        block = codes[places]
        among = _index(distance)
        among.add(block)
        pairs, total = [], 0
        for part in range(0, len(places), step):
            found, asking = _search(index, block[part : part + step], distance)
            pairs.append(_those(possible, known[found], places[part + asking]))
            total += len(found)
        step = min(_BLOCK, max(1, _PAIRS * len(places) // max(1, total)))
        found, asking = _search(among, block, distance)
        before = found < asking
        pairs.append(_those(possible, places[found[before]], places[asking[before]]))
        yield np.concatenate([earlier for earlier, _ in pairs]), np.concatenate([later for _, later in pairs])
        stay = places if hidden is None else places[~hidden[places]]
        index.add(codes[stay])
        known[count : count + len(stay)] = stay
        count += len(stay)


def _index(distance: int) -> Any:
    bands = distance + 1
    if bands <= _MOST_BANDS:
        return faiss.IndexBinaryMultiHash(64, bands, min(64 // bands, 32))
    return faiss.IndexBinaryFlat(64)


def _search(index: Any, codes: npt.NDArray[np.uint8], distance: int) -> tuple[I64, I64]:
    """Pairs (position in the index, position among the codes) within the distance."""
    limits, _, found = index.range_search(codes, distance + 1)
    return found.astype(np.int64), np.repeat(np.arange(len(codes)), np.diff(limits.astype(np.int64)))


def _those(possible: Callable[[I64, I64], Bools] | None, earlier: I64, later: I64) -> tuple[I64, I64]:
    which = slice(None) if possible is None else possible(earlier, later)
    return earlier[which], later[which]


class Question(Protocol):
    """What two items with like words are asked."""

    def read(self, places: I64) -> None:
        """What it needs of these items; they may have been asked for before."""

    def agree(self, earlier: int, later: int) -> bool:
        """Whether two items that were read may be one."""

    def forget(self, places: I64) -> None:
        """These are not asked about any more."""


def keep_first(
    words: U64, distance: int, possible: Callable[[I64, I64], Bools] | None = None, question: Question | None = None
) -> I64:
    """For each item the earlier item that it duplicates, or -1.

    Items come best first; one is dropped when it is a pair with an earlier item that is itself kept. So likeness is not
    passed on: of a chain of ever less similar items, those that are far from what is kept are kept too. Where a hundred
    kept items have like words but disagree, words say nothing: more of them are kept without being compared.

    Args:
        words: (N,), one for each item.
        distance: most bits in which the words of a pair differ.
        possible: (earlier, later) -> which of these can be pairs at all; None: all.
        question: what pairs must agree in, too.
    """
    twin = np.full(len(words), -1, np.int64)
    hidden = np.zeros(len(words), bool)
    for earlier, later in near_pairs(words, distance, hidden, possible):
        if not len(later):
            continue
        if question is not None:
            question.read(np.unique(np.concatenate([earlier, later])))
        order = np.lexsort((earlier, later))
        places, starts = np.unique(later[order], return_index=True)
        for b, before in zip(places.tolist(), np.split(earlier[order], starts[1:]), strict=True):
            kept = before[twin[before] < 0][:_MOST_ASKED]
            twin[b] = next((a for a in kept.tolist() if question is None or question.agree(a, b)), -1)
            hidden[b] = twin[b] >= 0 or len(kept) == _MOST_ASKED
        if question is not None:
            question.forget(places[hidden[places]])
    return twin
