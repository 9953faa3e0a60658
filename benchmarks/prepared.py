"""Does training on prepared media cost accuracy? A linear classifier on frozen ImageNet features, trained on clips read
from the originals or from prepared media (key frames only), tested on the originals either way.

    python benchmarks/prepared.py --root DATA/tennis

needs a folder with target.csv (path, label, fold) and its videos. Every clip gives 8 frames, one drawn from each of 8
equal parts (TSN); prepared media give the key frame before each. All else is equal: folds, draws, classifier. Beside
the default form (a key frame every 8 frames, CRF 20) stand one of higher quality, one with twice the key frames, and,
to tell what the choice of frames costs without any compression, the originals' own frames at the places of the key
frames. Prints accuracies over folds x seeds and their paired differences, and writes benchmarks/results/prepared.json.
"""

import argparse
import csv
import json
import os
import platform
import shlex
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from omnisource.clips import segment_test, segment_train
from omnisource.media import decode_frames, prepare_video, probe_media
from omnisource.networks import create, initialise
from omnisource.progress import track

SEGMENTS, SHORT_SIDE, SIZE, DRAWS, SEEDS = 8, 146, 128, 4, 5
FORMS = {"gop 8, crf 20": (8, 20), "gop 8, crf 12": (8, 12), "gop 4, crf 20": (4, 20)}
PLACES = {"originals, every 8th frame": 8, "originals, every 4th frame": 4}
MEAN, STD = torch.tensor((123.675, 116.28, 103.53)), torch.tensor((58.395, 57.12, 57.375))


def read_features(network: torch.nn.Module, path: Path, indices: list[int], keys_only: bool = False) -> np.ndarray:
    """(len(indices), D) features of the centre crops of frames."""
    frames = torch.from_numpy(decode_frames(path, indices, short_side=SHORT_SIDE, keys_only=keys_only))
    top, left = (frames.shape[1] - SIZE) // 2, (frames.shape[2] - SIZE) // 2
    crop = (frames[:, top : top + SIZE, left : left + SIZE].float() - MEAN) / STD
    with torch.inference_mode():
        features = network.features(crop.permute(0, 3, 1, 2)[:, :, None])
    return features.reshape(len(indices), -1).numpy()


def form_features(network: torch.nn.Module, row: Path, form: tuple[int, int] | None) -> tuple[np.ndarray, int]:
    """Features of all frames of an original (None), or of the key frames of its prepared form; and the file's bytes."""
    count = probe_media(row).num_frames
    assert count is not None
    if form is None:
        return read_features(network, row, list(range(count))), row.stat().st_size
    gop, crf = form
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "prepared.mp4"
        size = prepare_video(row, target, short_side=SHORT_SIDE, gop=gop, crf=crf).bytes
        return read_features(network, target, list(range(0, count, gop)), keys_only=True), size


def accuracy(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, classes: int) -> float:
    """Top-1 accuracy of a logistic regression (L2, LBFGS) on standardised features."""
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
    return float((guess == test_y).mean() * 100)


def taken(
    features: list[np.ndarray], drawn: list[list[np.ndarray]], place: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(clips x draws, D): the mean features of the drawn frames, wherever `place` finds them."""
    return np.stack([of[place(i)].mean(0) for of, many in zip(features, drawn, strict=True) for i in many])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (normal)."""
    return round(float(values.mean()), 2), round(float(1.96 * values.std(ddof=1) / np.sqrt(len(values))), 2)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prepared.json")
    parser.add_argument("--keep", type=Path, help="folder for features: a run that was ended goes on from there")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="none: only the places")
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
                    partial = keep / "partial.npz"
                    np.savez(partial, features=features, size=size)
                    partial.rename(kept)
                with np.load(kept) as found:
                    (original if form is None else prepared[name]).append(found["features"])
                    sizes[name] += int(found["size"])
    test = np.stack([features[segment_test(len(features), SEGMENTS)].mean(0) for features in original])
    scores: dict[str, list[float]] = {name: [] for name in ("originals", *PLACES, *forms)}
    for seed in range(SEEDS):
        draw = np.random.default_rng(seed)
        drawn = [[segment_train(len(features), SEGMENTS, draw) for _ in range(DRAWS)] for features in original]
        seen = {"originals": taken(original, drawn, lambda i: i)}
        for name, gop in PLACES.items():
            seen[name] = taken(original, drawn, lambda i, gop=gop: i // gop * gop)
        for name, (gop, _) in forms.items():
            seen[name] = taken(prepared[name], drawn, lambda i, gop=gop: i // gop)
        for fold in np.unique(folds):
            train = np.repeat(folds != fold, DRAWS)
            held_out = test[folds == fold], labels[folds == fold], len(names)
            for name, x in seen.items():
                scores[name].append(accuracy(x[train], np.repeat(labels, DRAWS)[train], *held_out))
    report = {
        "command": shlex.join(["python", "benchmarks/prepared.py", "--root", "DATA/tennis", "--forms", *forms]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__},
        "clips": len(rows),
        "form": f"short side {SHORT_SIDE}",
        "reading": f"{SEGMENTS} frames a clip, {DRAWS} draws a training clip; EfficientNet-lite0, frozen, linear",
        "runs": f"{len(np.unique(folds))} folds x {SEEDS} seeds; mean and half of the 95 % interval, top-1 in %",
        "top1": {name: interval(np.array(values)) for name, values in scores.items()},
        "paired_difference": {
            name: interval(np.subtract(values, scores["originals"]))
            for name, values in scores.items()
            if name != "originals"
        },
        "bytes": sizes,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
