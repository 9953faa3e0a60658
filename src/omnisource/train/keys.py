"""Random numbers as pure functions of integers, over whole arrays: what makes the plan repeatable anywhere.

Nothing here holds a state. The functions are defined by integer arithmetic alone, so they give the same numbers on
every machine and with every version of numpy.
"""

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_ROUNDS = 12  # of the Feistel network; 4 suffice for large decks, tiny ones need more to be even
_QUANTILES = 4096  # points of the table of the beta distribution


def name_key(name: str) -> int:
    """64 bits for a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def mix(*parts: "int | I64 | U64") -> U64:
    """A 64-bit hash of integers; arrays are broadcast against one another. Order matters."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _scramble((state ^ _u64(part)) + np.uint64(0x9E3779B97F4A7C15))
    return state


def uniform(keys: U64) -> F64:
    """Numbers in [0, 1) from keys."""
    return (_scramble(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(keys: "U64", places: I64, sizes: "I64 | int") -> I64:
    """The card at each place of a shuffled deck: for every key a permutation of range(size), without storing it.

    A Feistel network over a grid of a x b >= size cells, walked on until it lands on a card (Black and Rogaway,
    "Ciphers with arbitrary finite domains", CT-RSA 2002).

    Args:
        keys: which shuffle; broadcast with `places`.
        places: in [0, size).
        sizes: number of cards, one number or one a place.
    """
    places, keys = np.asarray(places, np.int64), np.broadcast_to(keys, np.shape(places))
    sizes = np.broadcast_to(np.asarray(sizes, np.int64), places.shape)
    if places.size and (places.min() < 0 or (places >= sizes).any()):
        raise ValueError("places must lie in [0, size)")
    cards = places.astype(np.uint64)
    limits = sizes.astype(np.uint64)
    # a * b exceeds the size by less than its root, so nearly every walk is one step long.
    a = np.maximum(np.ceil(np.sqrt(sizes)), 1).astype(np.uint64)
    b = (limits + a - np.uint64(1)) // a
    walking = np.arange(cards.size)
    cards, limits, a, b, keys = (np.ravel(x).copy() for x in (cards, limits, a, b, keys))
    while walking.size:
        cards[walking] = _feistel(keys[walking], cards[walking], a[walking], b[walking])
        walking = walking[cards[walking] >= limits[walking]]
    return cards.astype(np.int64).reshape(places.shape)


def beta(keys: U64, alpha: float) -> F64:
    """Draws from Beta(alpha, alpha), by a table of its quantiles."""
    power = min(alpha, 1.0)  # the density is smooth in t = x^power, also where it goes to infinity at x = 0
    t = np.linspace(0.0, 0.5**power, _QUANTILES)
    density = t ** (alpha / power - 1.0) * (1.0 - t ** (1.0 / power)) ** (alpha - 1.0)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    u = uniform(keys)
    low = np.interp(np.minimum(u, 1.0 - u), mass / (2.0 * mass[-1]), t) ** (1.0 / power)
    return np.where(u < 0.5, low, 1.0 - low)


def _feistel(keys: U64, cards: U64, a: U64, b: U64) -> U64:
    left, right = cards % a, cards // a
    with np.errstate(over="ignore"):
        for number in range(_ROUNDS):
            if number % 2:
                right = (right + _scramble(keys + left) % b) % b
            else:
                left = (left + _scramble(keys + right) % a) % a
            keys = keys * np.uint64(0xD1342543DE82EF95) + np.uint64(0x2545F4914F6CDD1D)
    return right * a + left


def _scramble(x: U64) -> U64:
    # The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _u64(value: "int | I64 | U64") -> U64:
    if isinstance(value, int):
        return np.asarray(value & 0xFFFFFFFFFFFFFFFF, np.uint64)
    return np.asarray(value).astype(np.uint64)
