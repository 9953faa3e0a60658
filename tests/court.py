"""Films of one court, in which a player moves as a seed says."""

import cv2
import numpy as np

from omnisource.clips.moments import Shown

FPS = 10.0


def film(seed: int, seconds: float = 4.0) -> Shown:
    """A player crosses a court, of which every film shows the same; how, and what of a size, the seed says."""
    rng = np.random.default_rng(99)
    court = cv2.resize(rng.uniform(40, 200, (9, 12)).astype(np.float32), (64, 48), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(seed)
    start, speed, phase = rng.uniform(12, 34, 2), rng.uniform(-4, 4, 2), rng.uniform(0, 6)
    times = np.arange(round(seconds * FPS)) / FPS
    frames = np.repeat(court[None], len(times), 0)
    for frame, time in zip(frames, times, strict=True):
        x, y = np.clip(start + time * speed + 6 * np.sin(2 * time + phase), 4, (52, 28)).astype(int)
        cv2.rectangle(frame, (int(x), int(y)), (int(x) + 5, int(y) + 9), 250.0, -1)
    return Shown(frames, times)
