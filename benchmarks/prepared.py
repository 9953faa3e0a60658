"""Does training on prepared media cost accuracy? A linear classifier on frozen ImageNet features, trained on clips read
from the originals or from prepared media (key frames only), tested on the originals either way.

    python benchmarks/prepared.py --root DATA/tennis

needs a folder with target.csv (path, label, fold) and its videos. Every clip gives 8 frames, one drawn from each of 8
equal parts (TSN). All else is equal: folds, draws, classifier. Of prepared media three ways to read them are compared:
every frame itself (what compression costs), each moved to the key frame before it (repeats where a clip is short), and
as training reads them: moved, but of several with one key frame only the first. The same two on the originals tell what
the choice of frames costs without compression. Prints accuracies and their paired differences to the originals, with
intervals over runs (folds x seeds: chance in training, these clips given) and over clips (other clips would differ),
and the CPU time of reading; writes benchmarks/results/prepared.json.
"""

import argparse
import csv
import json
import platform
import shlex
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from omnisource.clips import segment_test, segment_train
from omnisource.cores import usable_cores
from omnisource.media import decode_frames, prepare_video, probe_media
from omnisource.networks import create, initialise
from omnisource.progress import track

SEGMENTS, SHORT_SIDE, SIZE, DRAWS, SEEDS, TIMED = 8, 146, 128, 4, 40, 60
FORMS = {"gop 8, crf 20": (8, 20), "gop 4, crf 20": (4, 20)}
Place = Callable[[np.ndarray], np.ndarray]


def itself(indices: np.ndarray) -> np.ndarray:
    return indices


def to_key(indices: np.ndarray, gop: int) -> np.ndarray:
    return indices // gop * gop


def to_key_once(indices: np.ndarray, gop: int) -> np.ndarray:
    """As training reads: ascending indices, of which the first in a group of pictures moves to its key frame."""
    keys = to_key(indices, gop)
    return np.where(np.diff(keys, prepend=-1) > 0, keys, indices)


MEAN, STD = torch.tensor((123.675, 116.28, 103.53)), torch.tensor((58.395, 57.12, 57.375))


def read_features(network: torch.nn.Module, path: Path, count: int) -> np.ndarray:
    """(count, D) features of the centre crops of all frames."""
    frames = torch.from_numpy(decode_frames(path, range(count), short_side=SHORT_SIDE))
    top, left = (frames.shape[1] - SIZE) // 2, (frames.shape[2] - SIZE) // 2
    crop = (frames[:, top : top + SIZE, left : left + SIZE].float() - MEAN) / STD
    with torch.inference_mode():
        features = network.features(crop.permute(0, 3, 1, 2)[:, :, None])
    return features.reshape(count, -1).numpy()


def form_features(network: torch.nn.Module, row: Path, form: tuple[int, int] | None) -> tuple[np.ndarray, int]:
    """Features of all frames of an original (None), or of its prepared form; and the file's bytes."""
    count = probe_media(row).num_frames
    assert count is not None
    if form is None:
        return read_features(network, row, count), row.stat().st_size
    gop, crf = form
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "prepared.mp4"
        size = prepare_video(row, target, short_side=SHORT_SIDE, gop=gop, crf=crf).bytes
        return read_features(network, target, count), size


def hits(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, classes: int) -> np.ndarray:
    """Whether a logistic regression (L2, LBFGS) on standardised features names each test clip right."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    inputs, labels = torch.from_numpy((x - mean) / std), torch.from_numpy(y)
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = cross_entropy(inputs @ weight, labels) + 0.01 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    guess = (torch.from_numpy((test_x - mean) / std) @ weight.detach()).argmax(1).numpy()
    return guess == test_y


def taken(features: list[np.ndarray], drawn: list[list[np.ndarray]], place: Place) -> np.ndarray:
    """(clips x draws, D): the mean features of the drawn frames, wherever `place` finds them."""
    return np.stack([of[place(i)].mean(0) for of, many in zip(features, drawn, strict=True) for i in many])


def reading_times(root: Path, rows: list[dict[str, str]], forms: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Milliseconds of CPU to read the 8 frames of a training clip, all forms in turn, the best of three rounds."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(rows):
            files = {"originals": root / row["path"]}
            for name, (gop, crf) in forms.items():
                files[name] = Path(folder) / f"{number} {name}.mp4"
                prepare_video(files["originals"], files[name], short_side=SHORT_SIDE, gop=gop, crf=crf)
            count = probe_media(files["originals"]).num_frames
            assert count is not None
            indices = segment_train(count, SEGMENTS, np.random.default_rng(number)).tolist()
            best = dict.fromkeys(files, float("inf"))
            for _ in range(3):
                for name, path in files.items():
                    started = time.process_time()
                    decode_frames(path, indices, short_side=SHORT_SIDE, keys_only=name != "originals")
                    best[name] = min(best[name], time.process_time() - started)
            for name, seconds in best.items():
                times.setdefault(name, []).append(1000 * seconds)
    return {name: round(float(np.mean(values)), 2) for name, values in times.items()}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (normal)."""
    return round(float(values.mean()), 2), round(float(1.96 * values.std(ddof=1) / np.sqrt(len(values))), 2)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prepared.json")
    parser.add_argument("--keep", type=Path, help="folder for features: a run that was ended goes on from there")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="none: only the originals")
    given = parser.parse_args()
    forms = {name: FORMS[name] for name in given.forms}
    rows = list(csv.DictReader((given.root / "target.csv").open()))
    names = sorted({row["label"] for row in rows})
    labels, folds = np.array([names.index(row["label"]) for row in rows]), np.array([int(row["fold"]) for row in rows])
    network = create("tsn_efficientnet_lite0", len(names))
    initialise(network, "imagenet")
    network.eval()
    original: list[np.ndarray] = []
    prepared: dict[str, list[np.ndarray]] = {name: [] for name in forms}
    sizes = dict.fromkeys(("originals", *forms), 0)
    with tempfile.TemporaryDirectory() as folder:
        keep = given.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(track(rows, len(rows), "features")):
            for name, form in {"originals": None, **forms}.items():
                kept = keep / f"{number} {name}.npz"
                if not kept.exists():
                    features, size = form_features(network, given.root / row["path"], form)
                    unfinished = keep / "unfinished.npz"
                    np.savez(unfinished, features=features, size=size)
                    unfinished.rename(kept)
                with np.load(kept) as found:
                    (original if form is None else prepared[name]).append(found["features"])
                    sizes[name] += int(found["size"])
    ways: dict[str, tuple[list[np.ndarray], Place]] = {"originals": (original, itself)}
    for name, (gop, _) in forms.items():
        ways |= {
            f"{name}, every frame itself": (prepared[name], itself),
            f"{name}, moved to key frames": (prepared[name], partial(to_key, gop=gop)),
            f"{name}, as training reads": (prepared[name], partial(to_key_once, gop=gop)),
            f"originals at key frames, gop {gop}": (original, partial(to_key, gop=gop)),
            f"originals as training reads, gop {gop}": (original, partial(to_key_once, gop=gop)),
        }
    test = np.stack([features[segment_test(len(features), SEGMENTS)].mean(0) for features in original])
    right = {name: np.zeros((SEEDS, len(rows))) for name in ways}
    for seed in track(range(SEEDS), SEEDS, "seeds"):
        draw = np.random.default_rng(seed)
        drawn = [[segment_train(len(features), SEGMENTS, draw) for _ in range(DRAWS)] for features in original]
        for name, (features, place) in ways.items():
            x = taken(features, drawn, place)
            for fold in np.unique(folds):
                train, held_out = np.repeat(folds != fold, DRAWS), folds == fold
                y = np.repeat(labels, DRAWS)[train]
                right[name][seed, held_out] = hits(x[train], y, test[held_out], labels[held_out], len(names))

    def over_runs(values: np.ndarray) -> tuple[float, float]:
        return interval(np.concatenate([100 * values[:, folds == fold].mean(1) for fold in np.unique(folds)]))

    gains = {name: values - right["originals"] for name, values in right.items() if name != "originals"}
    report = {
        "command": shlex.join(["python", "benchmarks/prepared.py", "--root", "DATA/tennis", "--forms", *forms]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {usable_cores()} CPUs",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__},
        "clips": len(rows),
        "form": f"short side {SHORT_SIDE}",
        "reading": f"{SEGMENTS} frames a clip, {DRAWS} draws a training clip; EfficientNet-lite0, frozen, linear",
        "runs": f"{len(np.unique(folds))} folds x {SEEDS} seeds; mean and half of the 95 % interval, top-1 in %",
        "top1": {name: over_runs(values) for name, values in right.items()},
        "paired_difference": {name: over_runs(values) for name, values in gains.items()},
        "paired_difference_over_clips": {name: interval(100 * values.mean(0)) for name, values in gains.items()},
        "bytes": sizes,
        "cpu_ms_a_clip": reading_times(given.root, rows[:: max(1, len(rows) // TIMED)], forms),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
