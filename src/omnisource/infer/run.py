"""`infer`: requests for views of files in, logits and features out."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from omnisource.clips import augment
from omnisource.infer.device import pick_device
from omnisource.infer.lanes import Lanes
from omnisource.infer.network import Precision, forward
from omnisource.infer.parts import Part, Request, parts_of, read_part
from omnisource.media import DEFAULT_LIMITS, Failure, Limits, shared_pool
from omnisource.networks import Meta, Network, fused

F32 = npt.NDArray[np.float32]

_MOST_OPEN = 8  # batches of requests that may wait for one before them
# Pixels in one forward on a CPU. A 3D network's activations of more fall out of its caches; a 2D network minds those by
# itself (Network.run), and uses what it read of its weights for many pictures (benchmarks/curation.py).
_CPU_PIXELS = {False: 8 * 128**2, True: 64 * 128**2}
NOT_FINITE = "not_finite"  # reason of a request whose logits are not numbers: the network or its precision is at fault


@dataclass(frozen=True, eq=False)
class Result:
    """What the network said about a request; `reason` and `message` say why it could not."""

    request: Request
    logits: F32 | None
    """(K * crops, classes), all crops of the first clip first; None when the request failed."""
    features: F32 | None
    """(K * crops, D), means over time and space; None unless asked for."""
    reason: str | None = None
    message: str | None = None

    @property
    def probs(self) -> F32:
        """(K * crops, classes) probabilities. ValueError when the request failed."""
        if self.logits is None:
            raise ValueError(f"{self.request.uri} was not recognised: {self.reason}")
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        probs: F32 = powers / powers.sum(axis=1, keepdims=True)
        return probs


def infer(
    network: Network,
    meta: Meta,
    requests: Iterable[Request],
    *,
    size: int,
    short_side: int,
    batch: int = 16,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    features: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    memory_bytes: int | None = 2 * 1024**3,
) -> Generator[Result, None, None]:
    """Recognises every requested view; yields one Result a request, in their order.

    Files are decoded in killable processes while the network computes. Every frame of a request is decoded once for all
    its clips and crops; batches hold views of several requests. A file that can't be decoded gives a Result with a
    reason, never an exception. What is held in memory does not grow with the number of requests.

    Args:
        network: in evaluation mode; it is moved to the device.
        meta: its normalisation.
        requests: read lazily, a little ahead.
        size: side of a crop in pixels, cut from frames whose shorter side was scaled to `short_side`.
        batch: views in one forward pass.
        workers: decoding processes; None: one for each CPU.
        device: `auto`, `cpu`, `cuda` ...
        threads: of one forward pass on a CPU (its last bits depend on them); None: PyTorch's, shared out.
        features: yield features too.
        limits: what one file may cost; `limits.timeout_s` also ends a worker that hangs.
        memory_bytes: by which a worker may grow; None: no limit.
    """
    where = pick_device(device)
    network.to(where).eval()
    with shared_pool(workers, limits.timeout_s, memory_bytes) as pool, fused(network), Lanes(where, threads) as lanes:
        runner = _Runner(network, meta, where, precision, batch, features, lanes)
        on_their_way: deque[Request] = deque()  # one entry a part: processes need not know what the caller's keys are

        def parts() -> Iterator[Part]:
            for request in requests:
                for part in parts_of(request, size, short_side, limits, flow=network.in_channels == 2):
                    on_their_way.append(request)
                    yield part

        ahead = max(4 * pool.workers, 2 * batch)  # images come one by one: enough of them for the next batch
        with closing(pool.map(read_part, parts(), ordered=True, ahead=ahead)) as decoded:
            for part, views in decoded:
                runner.take(on_their_way.popleft(), part, views)
                yield from runner.finished()
        runner.flush()
        yield from runner.finished()


@dataclass(eq=False)
class _Open:
    """A request on its way."""

    request: Request
    logits: F32
    features: F32 | None
    missing: int
    """Views without logits."""
    failure: Failure | None = None


_Places = list[tuple[_Open, int]]  # where the logits of the views of a batch belong
_Outputs = tuple[F32, F32]  # logits and features of a batch


@dataclass(eq=False)
class _Batch:
    """Views of one length that wait for a forward pass."""

    pixels: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    places: _Places = field(default_factory=list)


class _Runner:
    """Gathers views into batches, runs them, and gives requests back in order once all their views are done.

    When a batch's outputs are fetched depends on how many came after it, never on time: same requests, same batches.
    """

    def __init__(
        self,
        network: Network,
        meta: Meta,
        device: torch.device,
        precision: Precision,
        batch: int,
        features: bool,
        lanes: Lanes,
    ) -> None:
        self.network, self.meta, self.device, self.precision = network, meta, device, precision
        self.batch, self.with_features = batch, features
        self.lanes = lanes
        self.open: deque[_Open] = deque()
        self.batches: dict[tuple[int, ...], _Batch] = {}
        self.running: deque[tuple[Future[_Outputs], _Places]] = deque()

    def take(self, request: Request, part: Part, views: npt.NDArray[np.uint8] | Failure) -> None:
        """Adds the views of a part of a request; runs the batches that it fills."""
        if part.first == 0:
            self.open.append(self._opened(request))
        at = self.open[-1]
        if isinstance(views, Failure):
            at.failure = at.failure or views
            at.missing -= len(part.clips) * part.crops
            return
        length = request.length or views.shape[1]
        waiting = self.batches.setdefault((views.shape[1], length), _Batch())
        for number, view in enumerate(views):
            waiting.pixels.append(view)
            waiting.places.append((at, part.first * part.crops + number))
            if len(waiting.pixels) == self.batch:
                self._start(waiting, length)
        if len(self.open) > _MOST_OPEN * self.batch:
            self.flush()  # views of a rare length would hold up all that came after them

    def flush(self) -> None:
        """Runs what waits, and fetches all outputs."""
        for (_, length), waiting in self.batches.items():
            if waiting.pixels:
                self._start(waiting, length, last=True)
        while self.running:
            self._fetch()

    def finished(self) -> Iterator[Result]:
        """The results at the head of the queue that are complete."""
        while self.open and self.open[0].missing == 0:
            done = self.open.popleft()
            if done.failure is not None:
                yield Result(done.request, None, None, str(done.failure.reason), done.failure.message)
            elif not np.isfinite(done.logits).all():
                yield Result(done.request, None, None, NOT_FINITE, "the network's output is not finite")
            else:
                yield Result(done.request, done.logits, done.features)

    def _opened(self, request: Request) -> _Open:
        views = len(request.clips) * request.crops
        features = np.empty((views, self.network.feature_dim), np.float32) if self.with_features else None
        return _Open(request, np.empty((views, self.network.num_classes), np.float32), features, views)

    def _start(self, waiting: _Batch, length: int, last: bool = False) -> None:
        """Starts the forward passes of a batch; `last`: it is not full, as no more views are at hand."""
        pixels, places = waiting.pixels, waiting.places
        waiting.pixels, waiting.places = [], []
        step = len(pixels)
        if self.device.type == "cpu":
            height, width = pixels[0].shape[1:3]
            step = max(1, _CPU_PIXELS[self.network.spatial] // (length * height * width))
        alone = last and len(pixels) <= step and not self.running  # no other to run beside it
        for first in range(0, len(pixels), step):
            part = slice(first, first + step)
            flips = [at.request.flip for at, _ in places[part]]
            work = partial(self._outputs, pixels[part], flips, length)
            if not self.lanes.strict and (alone or self.lanes.count == 1):
                self._store(work(), places[part])
                continue
            self.running.append((self.lanes.submit(work), places[part]))
            if len(self.running) > self.lanes.count:  # one waits, so that no lane does
                self._fetch()

    def _fetch(self) -> None:
        """Waits for the batch that was started first."""
        future, places = self.running.popleft()
        self._store(future.result(), places)

    def _outputs(self, pixels: Sequence[npt.NDArray[np.uint8]], flips: Sequence[bool], length: int) -> _Outputs:
        frames = torch.from_numpy(np.stack(pixels))
        if self.device.type == "cuda":
            frames = frames.pin_memory().to(self.device, non_blocking=True)
        clips = augment(
            frames,
            mean=self.meta.mean,
            std=self.meta.std,
            flip=torch.tensor(flips, device=self.device),
            length=length,
            flow=self.network.in_channels == 2,
        )
        logits, features = forward(self.network, clips, self.precision)
        return logits.cpu().numpy(), features.cpu().numpy()

    def _store(self, outputs: _Outputs, places: _Places) -> None:
        logits, features = outputs
        for row, (request, place) in enumerate(places):
            request.logits[place] = logits[row]
            if request.features is not None:
                request.features[place] = features[row]
            request.missing -= 1
