"""Training with a fixed trunk: its features of a few views of every unit are computed once, kept, and read like pixels.

What a fixed trunk says of a view never changes, so only the classifier is left to train. The differences to training
the whole network with `trunk_lr_scale: 0`: a unit's views come from a fixed number, samples are mixed after the trunk
in place of before it, and the classifier trains on standardised features (`Standard`), so that one learning rate fits.
"""

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from omnisource.clips import augment
from omnisource.errors import UserError
from omnisource.media import Failure, IsolatedPool, MediaError
from omnisource.networks import Network, fused
from omnisource.progress import track
from omnisource.recipe import Training
from omnisource.tables import Journal
from omnisource.train import keys
from omnisource.train.decode import F32, FLIP, U8, Kept, Reading, Request, decode
from omnisource.train.loader import Batch, Group, Quarantine, Replacement, unit_of
from omnisource.train.plan import Plan
from omnisource.train.pool import Pool, Unit
from omnisource.workspace import fingerprint

_FEATURES = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("feature", pa.list_(pa.float32()))])
_VIEW = 7  # what a key is drawn for
_MOST_BYTES = 8 * 2**30  # of features in memory
_KEPT_BYTES = 2**28  # of a unit's decoded frames, for its views

_LEAST_SCALE = 1e-3  # of a feature, below which it counts as constant
# Options that the weights' shapes tell, or that concern what follows the trunk.
_TOLD = ("in_channels", "base_width", "dropout", "consensus")
_USUAL = 0.5  # share of the usual deviation by which every feature's is raised

Read = tuple[list[U8], list[F32] | None]


@dataclass(frozen=True)
class _Views:
    """The views of one unit."""

    unit: int
    requests: tuple[Request, ...]
    flips: tuple[bool, ...]

    @property
    def key(self) -> str:
        """Identifies what is seen: the file as it is now, the frames, the crops, the camera."""
        whole = hashlib.blake2b(digest_size=16)
        first = self.requests[0]
        with suppress(OSError):
            facts = Path(first.uri).stat()
            whole.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
        for request, flip in zip(self.requests, self.flips, strict=True):
            seen = (request.uri, request.indices, request.times_s, request.start_s, request.end_s, request.short_side)
            whole.update(repr((seen, request.keys_only, flip)).encode())
            if request.motion is not None:
                whole.update(request.motion.tobytes())
        return whole.hexdigest()


def trunk_features(
    network: Network,
    pool: Pool,
    reading: Reading,
    training: Training,
    device: torch.device,
    folder: Path,
) -> tuple[F32, dict[int, Failure]]:
    """The fixed trunk's features of every unit's views: float32 (units, views, D), and which units can't be read.

    They are kept below `folder`, for every trunk and input anew, and shared by all trainings that look there. A killed
    call goes on with the units that are missing. A unit's views are computed together and alone, so that no bit depends
    on what else is computed.

    Raises:
        UserError: more features than fit into memory.
    """
    count = training.trunk_views or 1
    size = len(pool) * count * network.feature_dim * 4
    if size > _MOST_BYTES:
        raise UserError(
            f"trunk_views: the features of {len(pool):,} units in {count} views take {size / 2**30:.0f} GiB of memory; "
            "ask for fewer views, or train the trunk (trunk_views: null)"
        )
    features = np.zeros((len(pool), count, network.feature_dim), np.float32)
    views = [_views(reading, pool.unit(number), number, count) for number in range(len(pool))]
    mark = fingerprint(
        {
            "trunk": trunk_digest(network),
            "input": training.input.model_dump(mode="json"),
            "views": count,
            "form": "mean-std-slope, nan where unknown",
        }
    )
    failures: dict[int, Failure] = {}
    network.eval()
    with _alone(folder / mark) as place, fused(network):
        journal = Journal(place, _FEATURES, ["key"], mark)
        known = {key: number for number, key in enumerate(view.key for view in views)}
        missing = _load(journal, known, views, features)

        def rows() -> Iterator[list[dict[str, object]]]:
            for view, result in track(_read(missing, training, reading), len(missing), "features of the trunk"):
                if isinstance(result, Failure):
                    failures[view.unit] = result
                    continue
                seen = _look(network, training, reading, view, result, device)
                features[view.unit] = seen[:, : network.feature_dim]
                yield [{"key": view.key, "feature": seen.reshape(-1)}]

        journal.fill(rows())
    return features, failures


@dataclass(frozen=True)
class Standard:
    """The coordinates in which a classifier on a fixed trunk trains: (feature - mean) / scale, (D,) each.

    Mean and scale are those of the target's training views, so web data of another domain does not move them. What a
    single snippet can't show (NaN) becomes the mean. Features that hardly move on the target are scaled as if they
    moved a little: web data in which they do would else be hundreds of deviations away, and decide everything.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: F32, rows: npt.NDArray[np.bool_], parts: int) -> "Standard":
        """From the features (units, views, D) of the units where `rows`; one at a time, for all may be gigabytes.

        Args:
            parts: of a consensus (mean, spread, slope), equally wide; each has its own usual deviation.
        """
        count, total, squares = (np.zeros(features.shape[2]) for _ in range(3))
        for number in np.flatnonzero(rows):
            known = np.isfinite(features[number])
            seen = np.where(known, features[number], 0).astype(np.float64)
            count += known.sum(0)
            total += seen.sum(0)
            squares += (seen**2).sum(0)
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0).reshape(parts, -1)
        usual = np.median(np.sqrt(variance), axis=1, keepdims=True)
        scale = np.sqrt(variance + (_USUAL * usual) ** 2).reshape(-1)
        scale[scale < _LEAST_SCALE] = 1.0
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(scale).float())

    def apply(self, features: F32) -> None:
        """Standardises features (units, views, D) in place."""
        mean, scale = self.mean.numpy(), self.scale.numpy()
        for unit in features:  # no second copy of all
            unit -= mean
            unit /= scale
            np.nan_to_num(unit, copy=False, nan=0.0)

    def enter(self, head: nn.Linear) -> None:
        """Makes a classifier of features the same classifier of standardised ones."""
        mean, scale = self.mean.to(head.weight.device), self.scale.to(head.weight.device)
        with torch.no_grad():
            head.bias.add_(head.weight @ mean)
            head.weight.mul_(scale)

    def leave(self, network: Network) -> None:
        """The inverse of `enter`; the network also learns what a single snippet's change is taken for."""
        head = network.head
        mean, scale = self.mean.to(head.weight.device), self.scale.to(head.weight.device)
        with torch.no_grad():
            head.weight.div_(scale)
            head.bias.sub_(head.weight @ mean)
            if network.consensus != "mean":
                network.usual_change.copy_(mean[-len(network.usual_change) :])


class FrozenLoader:
    """The batches of a plan for one process; what would be pixels are standardised features (n, D)."""

    def __init__(self, plan: Plan, features: F32, failures: dict[int, Failure], quarantine: Quarantine) -> None:
        self._plan, self._features, self._quarantine = plan, features, quarantine
        for number, failure in sorted(failures.items()):
            unit = plan.pool.unit(number)
            quarantine.add(number, 0, failure, unit.sample_id, unit.uri)

    def __enter__(self) -> "FrozenLoader":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` up to `stop`."""
        for step in range(start, stop):
            slots = self._plan.step(step)
            slot = np.arange(len(slots), dtype=np.int64)
            unit, replaced = slots.unit.copy(), []
            for place in slot if len(self._quarantine) else ():
                planned = int(unit[place])
                unit[place], reason = unit_of(self._plan, self._quarantine, slots, int(place))
                if unit[place] != planned:
                    replaced.append(Replacement(step, int(place), planned, int(unit[place]), reason))
            view = (slots.key % np.uint64(self._features.shape[1])).astype(np.int64)
            yield Batch(slots, slot, len(slot), unit, [Group(slot, self._features[unit, view], None)], replaced)


def trunk_digest(network: Network) -> str:
    """Identifies what a trunk computes: its weights, and the options that these do not show."""
    whole = hashlib.blake2b(network.name.encode(), digest_size=16)
    if form := {key: value for key, value in network.options.items() if key not in _TOLD}:
        whole.update(repr(sorted(form.items())).encode())
    for name, value in network.state_dict().items():
        if not name.startswith(("head.", "usual_change")):
            whole.update(name.encode() + value.cpu().numpy().tobytes())
    return whole.hexdigest()


def _views(reading: Reading, unit: Unit, number: int, count: int) -> _Views:
    given = reading.training.input
    base = keys.mix(_VIEW, keys.name_key(unit.sample_id), round(1000 * unit.start_s))
    drawn = [int(keys.mix(base, view)) for view in range(count)]
    flips = tuple(bool(keys.uniform(keys.mix(FLIP, np.array(key, np.uint64))) < given.flip) for key in drawn)
    return _Views(number, tuple(reading.request(unit, key) for key in drawn), flips)


def _load(journal: Journal, known: dict[str, int], views: Sequence[_Views], features: F32) -> list[_Views]:
    """Fills in what the store has; returns what it lacks."""
    missing = dict(enumerate(views))
    for table in journal.tables(_FEATURES.names):
        rows = [known.get(key, -1) for key in table["key"].to_pylist()]
        values = table["feature"].combine_chunks().flatten().to_numpy().reshape(len(rows), features.shape[1], -1)
        for row, number in enumerate(rows):
            if number >= 0:
                features[number] = values[row, :, : features.shape[2]]
                missing.pop(number, None)
    return list(missing.values())


def _read(views: Sequence[_Views], training: Training, reading: Reading) -> Iterator[tuple[_Views, Read | Failure]]:
    """Decodes each unit's views, in killable processes if the training has workers."""
    if training.workers:
        with IsolatedPool(training.workers, reading.limits.timeout_s) as pool:
            yield from pool.map(_decode, views, ordered=True)
        return
    for view in views:
        try:
            yield view, _decode(view)
        except MediaError as error:
            yield view, Failure(error.reason, error.message)


def _decode(views: _Views) -> Read:
    kept = Kept(_KEPT_BYTES)
    found = [decode(request, kept) for request in views.requests]
    cameras = [camera for _, camera in found if camera is not None]
    return [pixels for pixels, _ in found], cameras or None


def _look(
    network: Network, training: Training, reading: Reading, views: _Views, read: Read, device: torch.device
) -> npt.NDArray[np.float32]:
    """(views, D) features of one unit's views."""
    given, (pixels, cameras) = training.input, read
    clips = augment(
        torch.from_numpy(np.stack(pixels)).to(device),
        mean=given.mean,
        std=given.std,
        flip=torch.tensor(views.flips).to(device),
        camera=torch.from_numpy(np.stack(cameras)).to(device) if cameras else None,
        length=None if reading.spatial else given.frames,
        size=given.size,
        flow=given.modality == "flow",
    )
    with torch.no_grad():
        # The longest form is kept: its first columns are the shorter one.
        found: Tensor = network.agree(network.features(clips), "mean-std-slope")
    features: F32 = found.float().cpu().numpy()
    if network.spatial and clips.shape[2] == 1:
        features[:, features.shape[1] // 3 :] = np.nan  # one snippet shows no change
    return features


@contextmanager
def _alone(place: Path) -> Iterator[Path]:
    """Lets one training at a time fill a store; others wait, and then find it filled."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield place
