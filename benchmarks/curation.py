"""What curation costs: probing, scoring against a naive loop, near-duplicate search, selection; is memory flat?

    python benchmarks/curation.py                       # all but the soak, a few minutes
    python benchmarks/curation.py --only select         # one part
    python benchmarks/curation.py --soak 30             # decoding and scoring without end, memory watched

Media are made here. Prints figures and writes them, with command, versions, machine and date, to
benchmarks/results/curation.json; docs/curation.md draws its projection from that file. Parts that were not run keep
their older figures, each with its own date.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import duckdb
import faiss
import numpy as np
import psutil
import pyarrow.compute as pc
import torch

from omnisource.clips import augment, centre, frame_times, read_clip, read_times, segment_test, windows
from omnisource.curate.decide import decide
from omnisource.curate.hamming import keep_first, near_pairs
from omnisource.curate.pieces import Look, pieces
from omnisource.curate.samples import Sample
from omnisource.curate.units import units
from omnisource.infer import forward, infer
from omnisource.infer.parts import parts_of, read_part
from omnisource.media import DEFAULT_LIMITS, IsolatedPool, probe_media
from omnisource.networks import Meta, Network, create
from omnisource.recipe import Score, Select
from omnisource.tables import DECISIONS, table_writer

SIZE, SHORT_SIDE, FPS = 128, 146, 25
RESULTS = Path(__file__).parent / "results" / "curation.json"
Figures = dict[str, Any]


def make_media(
    folder: Path, images: int, films: int, seconds: int, image_size: tuple[int, int] = (640, 480)
) -> tuple[list[Path], list[Path]]:
    """JPEG images and H.264 films of 426x240 with a key frame every 10 seconds, as video sites make them."""
    rng = np.random.default_rng(0)
    jpegs, videos = [], []
    for number in range(images):
        coarse = rng.integers(0, 255, (15, 20, 3), np.uint8)
        jpegs.append(folder / f"{number}.jpg")
        cv2.imwrite(str(jpegs[-1]), cv2.resize(coarse, image_size, interpolation=cv2.INTER_CUBIC))
    for number in range(films):
        world = cv2.resize(rng.integers(0, 255, (20, 60, 3), np.uint8), (1500, 480), interpolation=cv2.INTER_CUBIC)
        videos.append(folder / f"{number}.mp4")
        with av.open(str(videos[-1]), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "26", "g": "250", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 426, 240, "yuv420p"
            for i in range(seconds * FPS):
                left, top = int(500 + 400 * np.sin(i / 90)), int(120 + 100 * np.cos(i / 70))
                picture = np.ascontiguousarray(world[top : top + 240, left : left + 426])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return jpegs, videos


def as_sample(path: Path, seconds: int | None) -> Sample:
    kind = "image" if seconds is None else "untrimmed"
    frames = None if seconds is None else seconds * FPS
    return Sample(
        path.name,
        "web",
        kind,
        str(path),
        0,
        None,
        None,
        426,
        240,
        float(FPS),
        False,
        frames,
        seconds and float(seconds),
    )


def teacher() -> Network:
    torch.manual_seed(0)
    return create("tsn_efficientnet_lite0", 400).eval()


def timed(work: Callable[[], int]) -> tuple[float, int]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done


def cpu_seconds() -> float:
    """Of this process and its decoders so far."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in [me, *me.children(recursive=True)])


def bench_probe(folder: Path) -> Figures:
    jpegs, videos = make_media(folder, 300, 6, 30)
    files = [*jpegs, *videos * 10]

    def work() -> int:
        with IsolatedPool() as pool:
            return sum(1 for _ in pool.map(probe_media, files))

    seconds, done = timed(work)
    return {"files": done, "seconds": round(seconds, 2), "files_per_s": round(done / seconds, 1)}


def bench_score(folder: Path) -> Figures:
    """`infer` over many files, against one file and one unit after another with the same network."""
    film_s, settings = 60, Score(segments=8, window_s=10, hop_s=10)
    jpegs, videos = make_media(folder, 200, 3, film_s)
    network, meta = teacher(), Meta()
    look = Look(spatial=True, frames=8, stride=8)

    def ours(samples: list[Sample], kinds: list[str]) -> int:
        requests = (request for sample in samples for request in pieces(sample, kinds, look, settings))  # type: ignore[arg-type]
        results = infer(network, meta, requests, size=SIZE, short_side=SHORT_SIDE, batch=16)
        return sum(len(result.logits) for result in results if result.logits is not None)

    def one(clip: np.ndarray) -> int:
        x = augment(torch.from_numpy(clip[None]), mean=meta.mean, std=meta.std)
        return len(forward(network, x)[0])

    def naive_images() -> int:
        return sum(one(read_clip(path, [0], centre(SIZE), SIZE, short_side=SHORT_SIDE)) for path in jpegs)

    def naive_windows() -> int:
        return sum(
            one(
                read_clip(
                    path,
                    segment_test(round((end - start) * FPS), 8),
                    centre(SIZE),
                    SIZE,
                    short_side=SHORT_SIDE,
                    start_s=start,
                    end_s=end,
                )
            )
            for path in videos
            for start, end in windows(film_s)
        )

    def naive_frames() -> int:
        return sum(
            one(read_times(path, [at], centre(SIZE), SIZE, short_side=SHORT_SIDE))
            for path in videos
            for at in frame_times(film_s)
        )

    films = [as_sample(path, film_s) for path in videos]
    ours([as_sample(jpegs[0], None)] * 16, ["image"])  # first use of the network, start of the processes
    figures: Figures = {
        "network": "tsn_efficientnet_lite0",
        "size": SIZE,
        "film": "426x240, 25 fps, key frame every 10 s",
    }
    for name, naive, work, amount in (
        ("images", naive_images, lambda: ours([as_sample(path, None) for path in jpegs], ["image"]), len(jpegs)),
        ("windows", naive_windows, lambda: ours(films, ["window"]), film_s * len(videos)),
        ("frames", naive_frames, lambda: ours(films, ["frame"]), film_s * len(videos)),
    ):
        before = cpu_seconds()
        slow, a = timed(naive)
        between = cpu_seconds()
        fast, b = timed(work)
        after = cpu_seconds()
        assert a == b, f"{name}: {a} units one by one, {b} together"
        unit = "images_per_s" if name == "images" else "video_seconds_per_s"
        figures[name] = {
            unit: round(amount / fast, 1),
            "naive_" + unit: round(amount / slow, 1),
            "times_faster": round(slow / fast, 2),
            "cpu_s": round(after - between, 2),
            "naive_cpu_s": round(between - before, 2),
        }
    # What is left for the CPU where a GPU computes: decoding, cropping and scaling.
    for name, samples, kind in (
        ("images", [as_sample(path, None) for path in jpegs], "image"),
        ("windows", films, "window"),
    ):
        requests = [request for sample in samples for request in pieces(sample, [kind], look, settings)]  # type: ignore[list-item]
        started = time.process_time()
        for request in requests:
            for part in parts_of(request, SIZE, SHORT_SIDE, DEFAULT_LIMITS):
                read_part(part)
        figures[name]["decoding_cpu_s"] = round(time.process_time() - started, 2)
        figures[name]["amount"] = len(samples) * (1 if kind == "image" else film_s)
    return figures


def bench_dedupe(folder: Path) -> Figures:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, 300_000).astype(np.uint64)
    words[150_000:200_000] = words[:50_000] ^ np.uint64(5)  # near-duplicates, two bits away
    seconds, dropped = timed(lambda: int((keep_first(len(words), near_pairs(words, 4)) >= 0).sum()))
    frames, queries, dimensions = 50_000, 20_000, 256
    index = faiss.IndexFlatIP(dimensions)
    index.add(rng.normal(size=(frames, dimensions)).astype(np.float32))
    wanted = rng.normal(size=(queries, dimensions)).astype(np.float32)
    search_s, _ = timed(lambda: len(index.search(wanted, 1)[0]))
    pairs = len(words) * (len(words) - 1) / 2
    return {
        "hash_words": len(words),
        "hash_dropped": dropped,
        "hash_seconds": round(seconds, 2),
        "hash_pairs_per_s": round(pairs / seconds),
        "feature_dimensions": dimensions,
        "feature_pairs_per_s": round(frames * queries / search_s),
    }


def bench_select(folder: Path, rows: int) -> Figures:
    """In a process of its own, so that its greatest memory is its own."""
    with duckdb.connect() as db:
        names = ", ".join(f"'class {i}'" for i in range(400))
        db.execute(
            f"""COPY (SELECT format('{{:012d}}', i) AS sample_id, 'web' || (i % 3) AS source,
                    [{names}][(i * 7919) % 400 + 1] AS query_label FROM range({rows}) AS t(i))
                TO '{folder}/samples.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )
        db.execute(
            f"""COPY (SELECT format('{{:012d}}', i) AS sample_id, 'image' AS teacher, 'image' AS unit,
                    NULL::DOUBLE AS start_s, NULL::DOUBLE AS end_s,
                    [(i * 7919 + (hash(i) % 3 > 0)::INT) % 400, 1, 2, 3, 4]::INT[] AS top_classes,
                    [(hash(i) % 1000) / 1000.0, 0.1, 0.05, 0.02, 0.01]::FLOAT[] AS top_probs,
                    ((hash(i) % 1000) / 1000.0)::FLOAT AS query_prob, 1.0::FLOAT AS entropy, NULL::FLOAT[] AS probs,
                    NULL::FLOAT[] AS feature, 'ok' AS status, NULL::VARCHAR AS reason FROM range({rows}) AS t(i))
                TO '{folder}/scores.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )
    command = [sys.executable, __file__, "--select-in", str(folder)]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"rows": rows} | done | {"rows_per_s": round(rows / done["seconds"])}


def select_in(folder: Path) -> None:
    classes = [f"class {i}" for i in range(400)]

    def work() -> int:
        kept = 0
        with (
            units(folder / "scores.parquet", folder / "samples.parquet", classes, False) as db,
            table_writer(folder / "decisions.parquet", DECISIONS) as writer,
        ):
            for table in decide(db, Select(threshold=0.3, cap_per_class=5000)):
                writer.write_table(table)
                kept += pc.sum(table["keep"]).as_py()
        return kept

    seconds, kept = timed(work)
    peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    print(json.dumps({"seconds": round(seconds, 1), "kept": kept, "peak_gb": round(peak / 1024**2, 2)}))


def bench_memory(folder: Path, rows: int | None, minutes: float) -> Figures:
    """Memory of this process and its decoders while samples stream through; the first tenth, start-up, is left out."""
    jpegs, videos = make_media(folder, 20, 2, 20, (640, 480) if rows is None else (96, 72))
    samples = [*(as_sample(path, None) for path in jpegs), *(as_sample(path, 20) for path in videos)]
    if rows is not None:
        samples = samples[:20]
    network = create("tsn_r18", 8, base_width=8).eval()
    look, settings, me = Look(True, 8, 8), Score(segments=8), psutil.Process()
    requests = (
        request
        for number in (range(rows) if rows is not None else count())
        for request in pieces(samples[number % len(samples)], ["image", "frame"], look, settings)
    )
    seen: list[float] = []
    done, started = 0, time.monotonic()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            family = [me, *me.children(recursive=True)]
            seen.append(sum(process.memory_info().rss for process in family if process.is_running()) / 1024**2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for _ in infer(network, Meta(), requests, size=32, short_side=36, batch=64):
        done += 1
        if rows is None and time.monotonic() - started > 60 * minutes:
            break
    stop.set()
    watcher.join()
    steady = seen[len(seen) // 10 :] or seen
    third = max(1, len(steady) // 3)
    return {
        "requests": done,
        "seconds": round(time.monotonic() - started, 1),
        "first_third_mb": round(float(np.median(steady[:third]))),
        "last_third_mb": round(float(np.median(steady[-third:]))),
        "peak_mb": round(max(seen, default=0)),
        "samples_mb": [round(value) for value in seen[:: max(1, len(seen) // 30)]],
    }


def about() -> Figures:
    return {
        "command": "python benchmarks/curation.py " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}, no GPU",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "av": av.__version__,
            "duckdb": duckdb.__version__,
            "faiss": faiss.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["probe", "score", "dedupe", "select", "memory"], action="append")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the selection")
    parser.add_argument("--requests", type=int, default=100_000, help="of the memory check")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="decode and score for so long")
    parser.add_argument("--select-in", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.select_in:
        select_in(arguments.select_in)
        return
    parts: dict[str, Callable[[Path], Figures]] = {
        "probe": bench_probe,
        "score": bench_score,
        "dedupe": bench_dedupe,
        "select": lambda folder: bench_select(folder, arguments.rows),
        "memory": lambda folder: bench_memory(folder, arguments.requests, 0),
    }
    wanted = arguments.only or ([] if arguments.soak else list(parts))
    if arguments.soak:
        parts["soak"] = lambda folder: bench_memory(folder, None, arguments.soak)
        wanted = [*wanted, "soak"]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = parts[name](Path(folder)) | {"about": about()}
        print(name, json.dumps({key: value for key, value in results[name].items() if key != "about"}), flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
