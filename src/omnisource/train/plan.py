"""The plan: what stands in every slot of every step, as a pure function of (pool, settings, seed, step).

Nothing is drawn one after the other, so any step can be asked for alone: a resumed run, another number of workers or
of ranks sees the same batches. Every source is dealt like a deck of cards, pass after pass, each pass in its own order:

- Without resampling a pass is each unit once.
- With resampling (paper, section 3.4) a source's class c has M_c = min(N_c, clip) cards of weight M_c^power. A pass has
  L = sum of M_c slots, of which class c gets L M_c^p / sum M^p, rounded down or up by one draw a pass so that the
  mean over passes is exact. Within a pass the units of a class are dealt equally often, or some once more.

An epoch is one pass over the target. All target sources together are one deck.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omnisource.errors import UserError
from omnisource.recipe import Resample, Training
from omnisource.train.keys import F64, I64, U64, beta, mix, name_key, permute, uniform
from omnisource.train.pool import Pool

TARGET = "target"

# What a key is drawn for; two draws of one kind never share a number.
_ORDER, _QUOTA, _WITHIN, _SLOT, _PAIR, _WHETHER, _WEIGHT = range(7)


@dataclass(frozen=True)
class Slots:
    """One global batch: arrays over its slots, target first, then web sources in the recipe's order."""

    step: int
    unit: I64  # numbers of units in the pool
    source: npt.NDArray[np.int32]  # positions in the pool's sources
    key: U64  # for the random draws of each slot: window, crop, flip, camera
    partner: I64  # slot that this one is mixed with; itself where it is not
    weight: F64  # of the slot itself in the mixture, 1 where it is not mixed

    def __len__(self) -> int:
        return len(self.unit)


class Plan:
    """The batches of a run.

    Raises UserError when the batch sizes do not go with the pool.
    """

    def __init__(self, pool: Pool, training: Training, seed: int) -> None:
        self.pool = pool
        self._mixup = training.mixup
        self._key = mix(seed)
        roles = np.array([role == "target" for role in pool.roles])
        self.decks = [
            self._deck(training, TARGET, [name for name, role in zip(pool.sources, roles, strict=True) if role])
        ]
        for name, is_target in zip(pool.sources, roles, strict=True):
            if not is_target and (pool.source == pool.sources.index(name)).any():  # a selection may keep nothing
                self.decks.append(self._deck(training, name, [name]))
        self.sizes = _sizes(training, self.decks, pool)
        self.target_size = self.sizes[0]
        self.steps_per_epoch = self.decks[0].length / self.target_size
        self.steps = max(1, math.ceil(training.epochs * self.steps_per_epoch - 1e-9))

    def step(self, number: int) -> Slots:
        """The global batch of step `number`, counted from 0."""
        unit = np.concatenate(
            [
                deck.units(np.arange(size, dtype=np.int64) + number * size)
                for deck, size in zip(self.decks, self.sizes, strict=True)
            ]
        )
        slot = np.arange(len(unit), dtype=np.int64)
        partner, weight = self._partners(number)
        return Slots(
            step=number,
            unit=unit,
            source=self.pool.source[unit],
            key=mix(self._key, _SLOT, number, slot),
            partner=partner,
            weight=weight,
        )

    def replacement(self, step: int, slot: int, attempt: int) -> int:
        """The unit that takes a slot whose unit failed, from the same deck; attempts count from 1."""
        for deck, size in zip(self.decks, self.sizes, strict=True):
            if slot < size:
                return int(deck.units(np.array([step * size + slot]), attempt)[0])
            slot -= size
        raise IndexError(f"step {step} has no such slot")

    def _deck(self, training: Training, name: str, sources: Sequence[str]) -> "Deck":
        wanted = np.isin(self.pool.source, [self.pool.sources.index(source) for source in sources])
        given = {training.resample.get(source, Resample()) for source in sources}
        if len(given) > 1:
            raise UserError(f"resample: the target sources {', '.join(sources)} are one deck; resample them alike")
        key = mix(self._key, name_key(name))
        return Deck(name, np.flatnonzero(wanted), self.pool.label[wanted], given.pop(), key)

    def _partners(self, step: int) -> tuple[I64, F64]:
        total, targets = sum(self.sizes), self.target_size
        slot = np.arange(total, dtype=np.int64)
        partner = slot.copy()
        key = mix(self._key, _PAIR, step)
        if self._mixup.kind == "cross" and total > targets:
            webs = total - targets
            partner[:targets] = targets + permute(mix(key, 0), slot[:targets] % webs, webs)
            partner[targets:] = permute(mix(key, 1), slot[:webs] % targets, targets)
        elif self._mixup.kind == "within":
            start = 0
            for size in self.sizes:
                # Who stands in a slot is random, so turning the batch round pairs at random.
                turn = 1 + int(permute(mix(key, start), np.array(0), max(size - 1, 1)))
                partner[start : start + size] = start + (slot[:size] + turn) % size
                start += size
        mixed = (partner != slot) & (uniform(mix(self._key, _WHETHER, step, slot)) < self._mixup.probability)
        weight = beta(mix(self._key, _WEIGHT, step, slot), self._mixup.alpha)
        return np.where(mixed, partner, slot), np.where(mixed, weight, 1.0)


class Deck:
    """The units of one source (or of all target sources), dealt pass after pass."""

    def __init__(self, name: str, units: I64, labels: npt.NDArray[np.int32], resample: Resample, key: U64) -> None:
        self.name, self._key = name, key
        self._members = units
        self.length = len(units)
        self._edges: F64 | None = None
        if resample.power == 1 and resample.clip is None:
            return
        self._members = units[np.argsort(labels, kind="stable")]
        self._sizes = np.bincount(labels)
        self._sizes = self._sizes[self._sizes > 0]
        self._starts = np.cumsum([0, *self._sizes])
        most = round(len(units) / len(self._sizes)) if resample.clip == "mean" else resample.clip or len(units)
        cards = np.minimum(self._sizes, most)
        self.length = int(cards.sum())
        shares = cards.astype(np.float64) ** resample.power
        self._edges = np.cumsum([0.0, *shares]) * (self.length / shares.sum() if resample.power != 1 else 1.0)
        self._edges[-1] = self.length

    def units(self, positions: I64, attempt: int = 0) -> I64:
        """Units at positions counted from the first slot of the run; `attempt` > 0 deals from spare decks alike."""
        passes, places = np.divmod(positions, self.length)
        keys = mix(self._key, attempt, passes)
        cards = permute(mix(keys, _ORDER), places, self.length)
        if self._edges is None:
            return self._members[cards]
        classes, ranks = np.empty_like(cards), np.empty_like(cards)
        for number in np.unique(passes):
            now = passes == number
            shift = uniform(mix(self._key, attempt, int(number), _QUOTA))
            edges = np.floor(self._edges + shift).astype(np.int64)
            edges[-1] = self.length
            classes[now] = np.searchsorted(edges, cards[now], side="right") - 1
            ranks[now] = cards[now] - edges[classes[now]]
        sizes = self._sizes[classes]
        rounds, within = np.divmod(ranks, sizes)
        return self._members[self._starts[classes] + permute(mix(keys, _WITHIN, classes, rounds), within, sizes)]


def _sizes(training: Training, decks: Sequence[Deck], pool: Pool) -> list[int]:
    """Slots of each deck in a step."""
    batch = training.batch
    for name in (*batch.ratio, *batch.sizes):
        if name in pool.sources and pool.roles[pool.sources.index(name)] == "target":
            raise UserError(f"batch: '{name}' is a target source; its share is `batch.target`")
    sizes = []
    for deck in decks:
        fixed = batch.target if deck.name == TARGET else batch.sizes.get(deck.name)
        if fixed is None and deck.name in batch.ratio:
            # A source smaller than its share is seen once a step at most: more would only repeat it.
            fixed = min(max(1, round(batch.target * batch.ratio[deck.name])), deck.length)
        elif fixed is None:
            # Nor, unless its share is given, more often than the target: a handful would be learned by heart.
            passes = batch.target / decks[0].length  # of the target, in a step
            fixed = max(1, min(round(batch.target * batch.web_ratio), int(deck.length * passes + 1e-9)))
        if fixed > deck.length:
            where = "batch.target" if deck.name == TARGET else f"batch.sizes.{deck.name}"
            raise UserError(f"{where} is {fixed}, but only {deck.length} units are there to fill it; lower it")
        sizes.append(fixed)
    return sizes
