"""What reading and transforming a clip costs, beside decoding it. CPU time of one thread, best of several rounds.

    python benchmarks/clips.py                    # on a film that it makes itself
    python benchmarks/clips.py --video FILE       # on yours

Prints a table and writes benchmarks/results/clips.json.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from film import make_film

from omnisource.clips import (
    Footage,
    augment,
    dense_test,
    dense_train,
    draw_path,
    fit_camera,
    random_resized_crop,
    read_clip,
    read_moving,
    read_views,
    rng,
)
from omnisource.cores import usable_cores
from omnisource.media import decode_frames

FRAMES, STRIDE, SIZE, SHORT_SIDE, BATCH = 8, 8, 224, 256, 8
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def cost_ms(work: Callable[[int], object], count: int = 8, rounds: int = 8) -> float:
    """CPU milliseconds of one call: the best round's mean over `count` different calls."""
    work(0)
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for key in range(count):
            work(key)
        best = min(best, (time.process_time() - started) / count)
    return best * 1000


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--video", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "clips.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        video = given.video or Path(folder) / "film.mp4"
        if given.video is None:
            make_film(video)
        results = measure(video)
    report = {
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, 1 thread of {usable_cores()} CPUs, other work on it",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "av": av.__version__,
            "opencv": cv2.__version__,
        },
        "video": "generated, 340x256, 250 frames, group of 12" if given.video is None else given.video.name,
        "clip": f"{FRAMES} frames, stride {STRIDE}, {SIZE} x {SIZE}",
        "unit": "CPU milliseconds a clip; best of 8 rounds",
        "results": {name: round(value, 2) for name, value in results.items()},
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def measure(video: Path) -> dict[str, float]:
    """CPU milliseconds a clip, by piece of work."""
    with av.open(str(video)) as container:
        num_frames = sum(1 for _ in container.decode(video=0))
    clips = [dense_train(num_frames, FRAMES, STRIDE, rng(key)) for key in range(8)]
    crops = [partial(random_resized_crop, min_area=0.08, rng=rng(key, 1)) for key in range(8)]
    views = dense_test(num_frames, FRAMES, STRIDE, 10)
    results = {
        "decode_frames": cost_ms(lambda k: decode_frames(video, clips[k].tolist(), short_side=SHORT_SIDE)),
        "read_clip": cost_ms(lambda k: read_clip(video, clips[k], crops[k], SIZE, short_side=SHORT_SIDE)),
        "read_views, 10 x 3, a view": cost_ms(
            lambda k: read_views(video, views, crops=3, size=SIZE, short_side=SHORT_SIDE), count=1
        )
        / 30,
    }
    results["read_clip / decode_frames"] = results["read_clip"] / results["decode_frames"]
    camera, _ = fit_camera([Footage(str(video), "", num_frames)], 60, STRIDE, workers=1)
    paths = [draw_path(camera, "homography", FRAMES, rng(key)) for key in range(8)]
    results["draw_path"] = cost_ms(lambda k: draw_path(camera, "homography", FRAMES, rng(k)))
    results["read_moving (from a decoded video frame)"] = cost_ms(
        lambda k: read_moving(video, paths[k], crops[k], SIZE, short_side=SHORT_SIDE)
    )
    pixels = torch.from_numpy(np.stack([read_clip(video, clips[0], crops[k], SIZE) for k in range(BATCH)]))
    moving = [read_moving(video, paths[k], crops[k], SIZE) for k in range(BATCH)]
    images = torch.from_numpy(np.stack([image for image, _ in moving]))
    cameras = torch.from_numpy(np.stack([view for _, view in moving]))
    flip = torch.arange(BATCH) % 2 == 0
    results["augment, videos, half of them flipped"] = (
        cost_ms(lambda k: augment(pixels, mean=MEAN, std=STD, flip=flip), count=2) / BATCH
    )
    results["augment, images, moving camera"] = (
        cost_ms(lambda k: augment(images, mean=MEAN, std=STD, camera=cameras, size=SIZE), count=2) / BATCH
    )
    return results


if __name__ == "__main__":
    main()
