"""What one training clip costs to decode: originals with each decoder at hand, and prepared media, side by side.

    python benchmarks/decoding.py                      # films that it makes itself, key frame every 12 and 250 frames
    python benchmarks/decoding.py --videos FILE ...    # yours

A clip is 8 frames, stride 8, at random places that are the same for every decoder. All decoders use one thread and
give RGB pixels; rounds are interleaved, the best round of each counts. CPU time is what to compare on a machine that
does other work as well. Prints a table and writes benchmarks/results/decoding.json.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from film import make_film

from omnisource.cores import usable_cores
from omnisource.media import decode_frames, prepare_video, probe_media

FRAMES, STRIDE, SHORT_SIDE = 8, 8, 256
CLIPS, ROUNDS = 12, 5
TARGET = 2.5  # how many times faster than the fastest decoder on the originals prepared media are to be

Decoder = Callable[[Path, Sequence[int]], np.ndarray]


def omnisource(path: Path, indices: Sequence[int], keys_only: bool = False) -> np.ndarray:
    """This project's decoder."""
    return decode_frames(path, indices, keys_only=keys_only)


def pyav(path: Path, indices: Sequence[int]) -> np.ndarray:
    """PyAV as one writes it by hand: seek to the key frame before the clip, decode on, keep the frames asked for."""
    wanted, converter = set(indices), VideoReformatter()
    frames: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        per_frame = 1 / float(stream.average_rate * stream.time_base)
        start = stream.start_time or 0
        container.seek(start + int(indices[0] * per_frame), stream=stream)
        for frame in container.decode(stream):
            index = round((frame.pts - start) / per_frame)
            if index in wanted:
                frames[index] = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            if index >= indices[-1]:
                break
    return np.stack([frames[index] for index in indices])


def opencv(path: Path, indices: Sequence[int]) -> np.ndarray:
    """OpenCV: seek to the first frame, grab on, retrieve the frames asked for."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, indices[0])
    frames, wanted = [], set(indices)
    for index in range(indices[0], indices[-1] + 1):
        capture.grab()
        if index in wanted:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


def decord(path: Path, indices: Sequence[int]) -> np.ndarray:
    """decord, when it is installed."""
    from decord import VideoReader

    frames: np.ndarray = VideoReader(str(path), num_threads=1).get_batch(list(indices)).asnumpy()
    return frames


def torchcodec(path: Path, indices: Sequence[int]) -> np.ndarray:
    """torchcodec, when it is installed and finds its FFmpeg."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode="approximate")
    frames: np.ndarray = decoder.get_frames_at(list(indices)).data.numpy()
    return frames


def decoders() -> dict[str, Decoder]:
    """Every decoder that can be used here."""
    found: dict[str, Decoder] = {"omnisource": omnisource, "PyAV": pyav, "OpenCV": opencv}
    for decoder in (decord, torchcodec):
        if find_spec(decoder.__name__):
            try:
                __import__(decoder.__name__)
                found[decoder.__name__] = decoder
            except Exception as error:  # found but unusable: said, not hidden
                print(f"{decoder.__name__} is installed but does not import: {str(error).splitlines()[0]}")
    return found


def draw_clips(num_frames: int) -> list[list[int]]:
    """Places of the clips: the same for every decoder."""
    span = (FRAMES - 1) * STRIDE + 1
    starts = np.random.default_rng(0).integers(0, max(1, num_frames - span + 1), CLIPS)
    return [(int(start) + np.arange(FRAMES) * STRIDE).clip(max=num_frames - 1).tolist() for start in starts]


def side_by_side(
    works: dict[str, Callable[[list[int]], object]], clips: list[list[int]]
) -> dict[str, dict[str, float]]:
    """Milliseconds of CPU and wall time a clip; rounds of all works alternate, the best round of each counts."""
    best = {name: {"cpu_ms": float("inf"), "wall_ms": float("inf")} for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            cpu, wall = time.process_time(), time.perf_counter()
            for clip in clips:
                work(clip)
            best[name]["cpu_ms"] = min(best[name]["cpu_ms"], (time.process_time() - cpu) / len(clips) * 1000)
            best[name]["wall_ms"] = min(best[name]["wall_ms"], (time.perf_counter() - wall) / len(clips) * 1000)
    return {name: {key: round(value, 2) for key, value in times.items()} for name, times in best.items()}


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(((first.astype(float) - second.astype(float)) ** 2).mean(), 1e-9)))


def measure(path: Path, available: dict[str, Decoder], folder: Path) -> dict[str, Any]:
    """One film: every decoder on the original, ours on the prepared file."""
    facts = probe_media(path)
    target = folder / f"{path.stem}-prepared.mp4"
    started = time.process_time()
    made = prepare_video(path, target, short_side=min(SHORT_SIDE, facts.width, facts.height), gop=STRIDE)
    preparing_s = time.process_time() - started
    clips = draw_clips(facts.num_frames)
    works: dict[str, Callable[[list[int]], object]] = {
        name: partial(decoder, path) for name, decoder in available.items()
    }
    works["prepared, key frames"] = partial(omnisource, target, keys_only=True)
    works["prepared, exact frames"] = partial(omnisource, target)
    times = side_by_side(works, clips)
    fastest = min(available, key=lambda name: times[name]["cpu_ms"])
    exact = decode_frames(path, clips[0], short_side=min(SHORT_SIDE, facts.width, facts.height))
    same = exact[:, : made.height, : made.width]
    return {
        "video": {
            "name": path.name,
            "codec": facts.codec,
            "size": f"{facts.width}x{facts.height}",
            "frames": facts.num_frames,
            "bytes": facts.bytes,
        },
        "prepared": {
            "bytes": made.bytes,
            "cpu_s_per_video_s": round(preparing_s / facts.duration_s, 3),
            "psnr_db": round(psnr(same, decode_frames(target, clips[0])), 1),
        },
        "times": times,
        "fastest_on_original": fastest,
        "speedup_over_fastest": round(times[fastest]["cpu_ms"] / times["prepared, key frames"]["cpu_ms"], 2),
    }


def show(result: dict[str, Any]) -> None:
    """Prints one film's table."""
    video, prepared = result["video"], result["prepared"]
    print(f"\n{video['name']}: {video['codec']} {video['size']}, {video['frames']} frames, {video['bytes']:,} bytes")
    for name, times in result["times"].items():
        print(
            f"  {name:26} {times['cpu_ms']:8.2f} ms CPU {1000 / times['cpu_ms']:7.1f} clips/s"
            f" {times['wall_ms']:8.2f} ms wall"
        )
    print(
        f"  prepared: {prepared['bytes']:,} bytes, {prepared['psnr_db']} dB,"
        f" {prepared['cpu_s_per_video_s']} s CPU per second of video"
    )
    print(f"  {result['speedup_over_fastest']} times as fast as {result['fastest_on_original']} on the original")


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--videos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "decoding.json")
    given = parser.parse_args()
    available = decoders()
    with tempfile.TemporaryDirectory() as folder:
        films = given.videos or [make_film(Path(folder) / f"generated-gop{group}.mp4", group) for group in (12, 250)]
        results = []
        for film in films:
            results.append(measure(film, available, Path(folder)))
            show(results[-1])
    versions = {"python": platform.python_version(), "av": av.__version__, "opencv": cv2.__version__}
    for name in ("decord", "torchcodec"):
        if name in available:
            versions[name] = str(sys.modules[name].__version__)
    report = {
        "command": " ".join(["python", "benchmarks/decoding.py", *(["--videos ..."] if given.videos else [])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, 1 thread of {usable_cores()} CPUs, load {os.getloadavg()[0]:.1f}",
        "versions": versions,
        "clip": f"{FRAMES} frames, stride {STRIDE}, RGB, {CLIPS} places",
        "unit": f"milliseconds a clip, best of {ROUNDS} interleaved rounds",
        "target_speedup": TARGET,
        "reached": all(result["speedup_over_fastest"] >= TARGET for result in results),
        "results": results,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(
        f"\ntarget {TARGET} times the fastest: {'reached' if report['reached'] else 'missed'}; written to {given.out}"
    )


if __name__ == "__main__":
    main()
