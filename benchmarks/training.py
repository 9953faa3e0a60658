"""What a training step costs beside its network: this project's loop, and a plain PyTorch one, on the same files.

    python benchmarks/training.py                       # small network and clips: minutes on a CPU
    python benchmarks/training.py --network slowonly_r50 --size 224 --frames 8 --device cuda --clock wall --workers 8

Four trainings take turns, the best round of each counts:

- `single`: one source.
- `joint`: the same files as four sources, 2:1:1:1, classes resampled by N_c^0.5. At most 5 % more per clip is the goal.
- `joint, kept`: the same with decoded files kept in memory (`cache_bytes`), as for small data sets.
- `plain`: torch's DataLoader over a Dataset that reads the same frames with PyAV, torch's own Conv3d, SGD.

Decoding is part of all of them. With --clock cpu (for a busy machine; needs --workers 0) it is the process's CPU time
that counts. Prints a table and writes benchmarks/results/training-*.json. When mmaction2 is importable it is said so;
it is not driven here, because its loop needs a configuration of its own for each version.
"""

import argparse
import json
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import nn

from omnisource import __version__, networks
from omnisource.media import DEFAULT_LIMITS
from omnisource.recipe import Training
from omnisource.train import Pool
from omnisource.train.distributed import Ranks
from omnisource.train.loader import Loader, Quarantine
from omnisource.train.loop import Trainer

WEB = ("images", "clips", "films")
CLASSES = 4
LENGTH, FPS, WIDTH, HEIGHT = 96, 24, 340, 256


def make_film(path: Path, seed: int) -> Path:
    """A moving pattern with noise, H.264, a key frame every 12 frames."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": "12", "preset": "veryfast"}
        base = cv2.resize(rng.integers(0, 255, (16, 22, 3), dtype=np.uint8), (WIDTH, HEIGHT))
        for number in range(LENGTH):
            picture = np.roll(base, 2 * number * (1 + seed % 3), axis=1) + rng.integers(
                0, 12, base.shape, dtype=np.uint8
            )
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


def make_pool(films: list[Path], joint: bool) -> Pool:
    """The films as one source, or dealt to four."""
    sources = ["target", *WEB] if joint else ["target"]
    rows = [
        {
            "source": number * len(sources) // len(films),
            "place": number,
            "label": number % CLASSES,
            "sample_id": path.stem,
            "uri": str(path),
            "kind": "clip",
            "fps": float(FPS),
            "num_frames": LENGTH,
            "side": HEIGHT,
            "sound": True,
        }
        for number, path in enumerate(films)
    ]
    roles = ["target", *["web"] * (len(sources) - 1)]
    return Pool.from_rows(sources, roles, [f"class {number}" for number in range(CLASSES)], rows)


def settings(given: argparse.Namespace, joint: bool) -> Training:
    """The same clips a step: 8 + 4 + 4 + 4, or 20 of one source, at the scale of --batch."""
    target = given.batch * 2 // 5 if joint else given.batch
    return Training.model_validate(
        {
            "network": {"name": given.network, "options": {"base_width": given.width} if given.width else {}},
            "input": {"frames": given.frames, "stride": 4, "size": given.size, "short_side": HEIGHT},
            "batch": {"target": target, "web_ratio": 0.5},
            "resample": {name: {"power": 0.5} for name in WEB} if joint else {},
            "epochs": 10_000,
            "camera": {"mode": "still"},
            "workers": given.workers,
            "device": given.device,
        }
    )


def ours(given: argparse.Namespace, films: list[Path], folder: Path, joint: bool, kept: bool) -> Callable[[], int]:
    """A training of this project; each call takes --steps steps and returns the clips of them."""
    ranks = Ranks(0, 1, torch.device(given.device))
    training, pool = settings(given, joint), make_pool(films, joint)
    trainer = Trainer(training, pool, folder, 0, ranks, validation=None, camera=None, limits=DEFAULT_LIMITS)
    networks.use_plain_form(trainer.network, False)
    loader = Loader(
        trainer.plan,
        trainer.reading,
        Quarantine(folder),
        workers=given.workers,
        cache_bytes=2**31 if kept else 0,
    )
    batches = loader.batches(0, trainer.plan.steps)

    def steps() -> int:
        clips = 0
        for _ in range(given.steps):
            batch = next(batches)
            sums, _ = trainer.take_step(batch)
            float(sums[0, 0])
            clips += len(batch.slots)
        return clips

    return steps


class Plain(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A clip as one reads it by hand: seek, decode on, random resized crop, flip."""

    def __init__(self, films: list[Path], frames: int, size: int) -> None:
        self.films, self.frames, self.size = films, frames, size

    def __len__(self) -> int:
        return len(self.films) * 10_000

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        film = number % len(self.films)
        rng = np.random.default_rng(number)
        first = int(rng.integers(LENGTH - 4 * (self.frames - 1)))
        wanted = {first + 4 * step for step in range(self.frames)}
        frames = []
        with av.open(str(self.films[film])) as container:
            stream = container.streams.video[0]
            per_frame = float(1 / (stream.average_rate * stream.time_base))
            container.seek(int(first * per_frame), stream=stream)
            for frame in container.decode(stream):
                index = round(frame.pts / per_frame)
                if index in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if index >= max(wanted):
                    break
        area, aspect = rng.uniform(0.08, 1) * WIDTH * HEIGHT, np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = min(int((area * aspect) ** 0.5), WIDTH), min(int((area / aspect) ** 0.5), HEIGHT)
        left, top = int(rng.integers(WIDTH - w + 1)), int(rng.integers(HEIGHT - h + 1))
        cut = [cv2.resize(f[top : top + h, left : left + w], (self.size, self.size)) for f in frames]
        clip = torch.from_numpy(np.stack(cut)).permute(3, 0, 1, 2)
        return (clip.flip(3) if rng.random() < 0.5 else clip), film % CLASSES


def plain(given: argparse.Namespace, films: list[Path]) -> Callable[[], int]:
    """The loop that everybody writes first."""
    device = torch.device(given.device)
    network = networks.create(given.network, CLASSES, **({"base_width": given.width} if given.width else {}))
    networks.use_plain_form(network, True)
    network.to(device).train()
    loader = torch.utils.data.DataLoader(
        Plain(films, given.frames, given.size), given.batch, shuffle=False, num_workers=given.workers
    )
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    mean, std = (
        torch.tensor(v, device=device).view(1, 3, 1, 1, 1) for v in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    )
    batches = iter(loader)

    def steps() -> int:
        for _ in range(given.steps):
            clips, labels = next(batches)
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network((clips.to(device).float() - mean) / std), labels.to(device))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 40.0)
            optimiser.step()
            loss.item()
        return given.steps * given.batch

    return steps


def main() -> None:
    """Parses the command line, measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="slowonly_r18")
    parser.add_argument("--width", type=int, default=16, help="base_width; 0: the network's own")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=20, help="clips a step, a multiple of 5")
    parser.add_argument("--steps", type=int, default=3, help="in a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=["cpu", "wall"], default="cpu")
    given = parser.parse_args()
    if given.clock == "cpu" and given.workers:
        parser.error("--clock cpu does not see what workers use; give --workers 0 or --clock wall")
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.clock == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = [make_film(folder / f"{number:03d}.mp4", number) for number in range(given.films)]
        kinds: dict[str, Callable[[], int]] = {
            "single": ours(given, films, folder / "single", joint=False, kept=False),
            "joint": ours(given, films, folder / "joint", joint=True, kept=False),
            "joint, kept": ours(given, films, folder / "kept", joint=True, kept=True),
            "plain": plain(given, films),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(given.rounds):
            for kind, steps in kinds.items():
                began = clock()
                clips = steps()
                seconds[kind].append((clock() - began) / clips)
    best = {kind: min(times[1:]) for kind, times in seconds.items()}  # the first round warms up
    result = {
        "command": f"python {shlex.join([str(Path(sys.argv[0])), *sys.argv[1:]])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"omnisource": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "device": networks_device(given.device),
        "settings": vars(given),
        "mmaction2": "importable" if find_spec("mmaction") else "not importable",
        "milliseconds_per_clip": {kind: round(1000 * value, 3) for kind, value in best.items()},
        "joint_over_single": round(best["joint"] / best["single"] - 1, 4),
        "times_faster_than_plain": {kind: round(best["plain"] / best[kind], 2) for kind in best if kind != "plain"},
    }
    for kind, value in best.items():
        print(f"{kind:12} {1000 * value:8.2f} ms/clip {1 / value:8.1f} clips/s ({given.clock})")
    print(f"joint over single: {100 * result['joint_over_single']:+.1f} %")  # type: ignore[operator]
    path = Path(__file__).parent / "results" / f"training-{given.device}-{given.network}-{given.size}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(path)


def networks_device(device: str) -> str:
    """What computed."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].partition(':')[2].strip() if names else platform.machine()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
