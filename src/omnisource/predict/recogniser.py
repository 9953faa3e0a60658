"""`load(path)`: a recogniser of images, clips and long videos, from a checkpoint or an exported ONNX file."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omnisource.clips import windows
from omnisource.errors import UserError
from omnisource.evaluate import view_request
from omnisource.infer import Request, Result, infer
from omnisource.media import DEFAULT_LIMITS, Failure, Limits, MediaFacts, probe_media, shared_pool
from omnisource.networks import Meta, Network, load_checkpoint
from omnisource.predict.export import load_onnx
from omnisource.recipe import Input, Test
from omnisource.recipe.load import check

F64 = npt.NDArray[np.float64]
_SHORT_SIDE = 256 / 224  # frames to crop, where the checkpoint does not say (paper, section 4)
_SEGMENTS, _CLIPS = 8, 3  # per window: segments of a 2D network, clips of a 3D one
_MOST_CLIPS, _LEAST_S = 10_000, 0.01
_LONG = 1.5  # a video longer than so many windows gets a timeline


@dataclass(frozen=True)
class Guess:
    """A class and its probability."""

    label: str
    prob: float


@dataclass(frozen=True)
class Window:
    """What the network saw between two times, in seconds; best guess first."""

    start_s: float
    end_s: float
    top: tuple[Guess, ...]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says about a file: `top` over all of it (mean over windows), and window by window if it is long.

    A file that could not be read has no guesses, but a `reason` (a short code) and a `message`.
    """

    uri: str
    kind: str | None
    duration_s: float | None
    top: tuple[Guess, ...]
    windows: tuple[Window, ...] = ()
    probs: F64 | None = None  # (classes,)
    reason: str | None = None
    message: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything but `probs`, as JSON-able values."""
        return {key: value for key, value in asdict(self).items() if key != "probs"}


class Recogniser:
    """A network with what it needs to look at files. Made by `load`.

    >>> recognise = omnisource.load("workspaces/project/runs/all-0/last.safetensors")
    >>> recognise("video.mp4").top[0]
    Guess(label='serve', prob=0.93)
    """

    def __init__(self, network: Network, meta: Meta, *, device: str = "auto", workers: int | None = None) -> None:
        if network.in_channels != 3:
            raise UserError(
                f"{network.name} sees optical flow, not pictures: test it with `omnisource test` and fuse it with "
                "`omnisource fuse`"
            )
        _check_meta(network, meta)
        self.network, self.meta, self.device, self.workers = network, meta, device, workers
        self.classes = list(meta.classes) or [f"class {n}" for n in range(network.num_classes)]
        short_side = meta.notes.get("short_side")
        given = {
            "frames": meta.frames,
            "stride": meta.stride,
            "fps": meta.fps,
            "size": meta.size,
            "short_side": short_side if isinstance(short_side, int) else round(meta.size * _SHORT_SIDE),
        }
        self.input = check(Input, given, {}, f"the metadata of a {network.name}")

    def __call__(self, uri: str | Path, **settings: Any) -> Prediction:
        """Recognises one file; settings as for `many`."""
        return next(self.many([uri], **settings))

    def many(
        self,
        uris: Iterable[str | Path],
        *,
        top: int = 5,
        clips: int | None = None,
        crops: int = 1,
        window_s: float = 10.0,
        hop_s: float | None = None,
        batch: int = 8,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Iterator[Prediction]:
        """Recognises files; yields one Prediction a file, in their order. Bad files never raise.

        Args:
            uris: images and videos: paths or fsspec URLs.
            top: guesses to keep.
            clips: views per file or window: clips of a 3D network (default 3), segments of a 2D one (default 8).
            crops: 1, 3, 5 or 10 for each of them.
            window_s, hop_s: length and distance of the windows of videos longer than 1.5 windows.
            batch: views in one forward pass.
            limits: what one file may cost.
        """
        if crops not in (1, 3, 5, 10):
            raise UserError(f"crops: 1, 3, 5 or 10, not {crops}")
        if clips is not None and not 1 <= clips <= _MOST_CLIPS:
            raise UserError(f"clips: 1 to {_MOST_CLIPS}, not {clips}")
        if not (window_s >= _LEAST_S and (hop_s is None or hop_s >= _LEAST_S)):
            raise UserError(f"windows and hops take {_LEAST_S} s at least, not {window_s} and {hop_s}")
        spatial = self.network.spatial
        views = Test(clips=clips or (_SEGMENTS if spatial else _CLIPS), crops=crops, batch=batch)  # type: ignore[arg-type]
        files = [str(uri) for uri in uris]
        with shared_pool(self.workers, limits.timeout_s) as pool:
            probed = [facts for _, facts in pool.map(partial(probe_media, limits=limits), files, ordered=True)]
        requests = (
            request
            for number, (uri, facts) in enumerate(zip(files, probed, strict=True))
            if isinstance(facts, MediaFacts)
            for request in self._requests(number, uri, facts, views, window_s, hop_s or window_s)
        )
        results = infer(
            self.network,
            self.meta,
            requests,
            size=min(self.input.size, self.input.short_side),
            short_side=self.input.short_side,
            batch=batch,
            workers=self.workers,
            device=self.device,
            limits=limits,
        )
        by_file = groupby(results, key=lambda result: result.request.key)
        following = next(by_file, None)
        for number, (uri, facts) in enumerate(zip(files, probed, strict=True)):
            if isinstance(facts, Failure):
                yield Prediction(uri, None, None, (), reason=str(facts.reason), message=facts.message)
                continue
            found: list[Result] = list(following[1]) if following and following[0] == number else []
            yield self._prediction(uri, facts, found, top)
            following = next(by_file, None)

    def _requests(
        self, number: int, uri: str, facts: MediaFacts, views: Test, window_s: float, hop_s: float
    ) -> Iterator[Request]:
        known = {"kind": facts.kind, "num_frames": facts.num_frames, "duration_s": facts.duration_s, "fps": facts.fps}
        pieces: Sequence[tuple[float | None, float | None]] = [(None, None)]
        if facts.kind == "video" and facts.duration_s > _LONG * window_s:
            pieces = windows(facts.duration_s, window_s, hop_s)
        for start_s, end_s in pieces:
            piece = {"sample_id": number, "uri": uri, "format": facts.kind, "start_s": start_s, "end_s": end_s}
            yield view_request(piece, known, self.input, views, self.network.spatial)

    def _prediction(self, uri: str, facts: MediaFacts, results: Sequence[Result], top: int) -> Prediction:
        good = [result for result in results if result.logits is not None]
        if not good:
            failed = results[0]
            return Prediction(uri, facts.kind, facts.duration_s, (), reason=failed.reason, message=failed.message)
        means = [result.probs.mean(axis=0, dtype=np.float64) for result in good]
        timeline = tuple(
            Window(result.request.start_s, result.request.end_s, self._top(mean, top))
            for result, mean in zip(good, means, strict=True)
            if result.request.end_s is not None
        )
        probs: F64 = np.mean(means, axis=0)
        return Prediction(uri, facts.kind, facts.duration_s, self._top(probs, top), timeline, probs)

    def _top(self, probs: F64, count: int) -> tuple[Guess, ...]:
        order = np.argsort(-probs, kind="stable")[:count]
        return tuple(Guess(self.classes[n], float(probs[n])) for n in order)


def _check_meta(network: Network, meta: Meta) -> None:
    """Refuses metadata that the network can't have been trained with: they came with a file from anywhere."""
    names, numbers = meta.classes, (meta.mean, meta.std)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        problem = "its classes are no names"
    elif len(names) not in (0, network.num_classes):
        problem = f"{len(names)} class names for {network.num_classes} classes"
    elif not all(isinstance(values, list | tuple) and len(values) == network.in_channels for values in numbers):
        problem = f"mean and std are not of {network.in_channels} channels"
    elif not all(isinstance(value, int | float) and math.isfinite(value) for values in numbers for value in values):
        problem = "mean and std are not finite numbers"
    elif 0 in meta.std:
        problem = "a std is 0"
    elif not isinstance(meta.notes, dict):
        problem = "its notes are no mapping"
    else:
        return
    raise UserError(f"the metadata of a {network.name}: {problem}; use another copy of the file")


def load(path: str | Path, *, device: str = "auto", workers: int | None = None) -> Recogniser:
    """Loads a recogniser from a checkpoint (.safetensors) or an exported network (.onnx).

    Args:
        path: the file.
        device: `auto`, `cpu`, `cuda` ...; ONNX files run on the CPU.
        workers: decoding processes; None: one for each CPU.

    Raises:
        UserError: not such a file, damaged, or a network of optical flow.
    """
    path = Path(path)
    if path.suffix == ".pt2":
        raise UserError(f"{path}: torch.export files are for your own runtime; give the checkpoint or its .onnx")
    network, meta = load_onnx(path) if path.suffix == ".onnx" else load_checkpoint(path)
    return Recogniser(network, meta, device=device, workers=workers)
