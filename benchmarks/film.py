"""A film for benchmarks that need one and were given none."""

from pathlib import Path

import av
import cv2
import numpy as np


def make_film(path: Path, group: int = 12, frames: int = 250) -> Path:
    """A 10-second film, 340x256, 25 fps: a camera that pans over noise of all scales, with a moving square."""
    draw = np.random.default_rng(0)
    world = sum(
        cv2.resize(draw.normal(0, 40, (n, 2 * n, 3)).astype(np.float32), (1200, 600), interpolation=cv2.INTER_CUBIC)
        for n in (4, 16, 64, 200)
    )
    picture = np.clip(world + 128, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23", "g": str(group)})
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for i in range(frames):
            left, top = 3 * i, int(100 + 80 * np.sin(i / 20))
            frame = picture[top : top + 256, left : left + 340].copy()
            frame[100:150, (5 * i) % 280 : (5 * i) % 280 + 50] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path
