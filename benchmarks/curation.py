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
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
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
from PIL import Image

from omnisource.clips import frame_times, segment_test
from omnisource.cores import usable_cores
from omnisource.curate.decide import decide
from omnisource.curate.hamming import keep_first
from omnisource.curate.pieces import Look, pieces
from omnisource.curate.samples import Sample
from omnisource.curate.units import units
from omnisource.infer import infer
from omnisource.infer.parts import parts_of, read_part
from omnisource.media import DEFAULT_LIMITS, IsolatedPool, probe_media
from omnisource.media.image import scaled_size
from omnisource.networks import Meta, Network, create, initialise, use_plain_form
from omnisource.recipe import Score, Select
from omnisource.recipe.curation import Unit
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
    network = create("tsn_efficientnet_lite0", 400)
    initialise(network, "imagenet")
    return network.eval()


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


def naive_pictures(path: Path, indices: list[int]) -> list[np.ndarray]:
    """Centre crops of frames of a film, decoded from its beginning, or of an image ([0])."""
    if path.suffix == ".jpg":
        with Image.open(path) as image:
            width, height = scaled_size(*image.size, SHORT_SIDE)
            scaled = [np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))]
    else:
        wanted, scaled = set(indices), []
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    width, height = scaled_size(frame.width, frame.height, SHORT_SIDE)
                    scaled.append(frame.to_ndarray(width=width, height=height, format="rgb24"))
                if number == indices[-1]:
                    break
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    return [picture[top : top + SIZE, left : left + SIZE] for picture in scaled]


def naive_logits(network: Network, meta: Meta, clip: list[np.ndarray]) -> np.ndarray:
    """One forward pass for one clip, as the textbook has it."""
    x = torch.from_numpy(np.stack(clip)).float()
    x = (x - torch.tensor(meta.mean)) / torch.tensor(meta.std)
    with torch.no_grad():
        return network(x.permute(3, 0, 1, 2)[None].contiguous())[0].numpy()


def bench_score(folder: Path) -> Figures:
    """`infer` over many files, against a loop that decodes and recognises one after the other.

    The loop is what one would write: Pillow and PyAV, each file decoded once from its beginning, one forward pass for
    each image, window or frame, the network in PyTorch's own Conv3d and BatchNorm3d. Both give the same logits.
    """
    film_s, settings, rounds = 60, Score(segments=8, window_s=10, hop_s=10), 3
    jpegs, videos = make_media(folder, 200, 3, film_s)
    network, plain, meta = teacher(), teacher(), Meta()
    use_plain_form(plain)
    look = Look(spatial=True, frames=8, stride=8)

    def ours(samples: list[Sample], kind: Unit) -> np.ndarray:
        requests = (request for sample in samples for request in pieces(sample, [kind], look, settings))
        results = infer(network, meta, requests, size=SIZE, short_side=SHORT_SIDE, batch=16)
        return np.concatenate([result.logits for result in results if result.logits is not None])

    def naive(paths: list[Path], shown: list[list[int]]) -> np.ndarray:
        """`shown`: the frames of each unit of a file."""
        logits = []
        wanted = sorted(index for unit in shown for index in unit)
        for path in paths:
            pictures = dict(zip(wanted, naive_pictures(path, wanted), strict=True))
            logits += [naive_logits(plain, meta, [pictures[index] for index in unit]) for unit in shown]
        return np.stack(logits)

    images, films = [as_sample(path, None) for path in jpegs], [as_sample(path, film_s) for path in videos]
    windows = [segment_test(10 * FPS, 8) + 10 * FPS * number for number in range(film_s // 10)]
    figures: Figures = {
        "network": "tsn_efficientnet_lite0",
        "size": SIZE,
        "image": "640x480 JPEG",
        "film": "426x240 H.264, 25 fps, key frame every 10 s",
        "rounds": rounds,
    }
    works: list[tuple[Unit, list[Sample], list[Path], list[list[int]]]] = [
        ("image", images, jpegs, [[0]]),
        ("window", films, videos, [window.tolist() for window in windows]),
        ("frame", films, videos, [[math.ceil(at * FPS - 1e-6)] for at in frame_times(film_s)]),
    ]
    for kind, samples, paths, indices in works:
        ours(samples[:16], kind)  # first use of the network, start of the processes
        walls, cpus = [], []
        for _ in range(rounds):
            before = cpu_seconds(), time.perf_counter()
            slow = naive(paths, indices)
            between = cpu_seconds(), time.perf_counter()
            fast = ours(samples, kind)
            after = cpu_seconds(), time.perf_counter()
            cpus.append((between[0] - before[0], after[0] - between[0]))
            walls.append((between[1] - before[1], after[1] - between[1]))
        amount = len(samples) if kind == "image" else film_s * len(samples)
        what = "images" if kind == "image" else "video_seconds"
        slow_s, fast_s = np.median(walls, axis=0)
        slow_cpu, fast_cpu = np.median(cpus, axis=0)
        figures[kind + "s"] = {
            what: amount,
            f"{what}_per_s": round(amount / fast_s, 1),
            f"naive_{what}_per_s": round(amount / slow_s, 1),
            "times_faster": round(float(np.median([a / b for a, b in walls])), 2),
            "times_less_cpu": round(float(np.median([a / b for a, b in cpus])), 2),
            "cpu_s": round(fast_cpu, 2),
            "naive_cpu_s": round(slow_cpu, 2),
            # What is left for the CPU where a GPU computes: decoding, cropping and scaling.
            "decoding_cpu_s": round(decoding_seconds(samples, kind, look, settings), 2),
            "logits_differ_at_most": float(np.abs(slow - fast).max()),
            "logits_at_most": float(np.abs(slow).max()),
        }
    return figures


def decoding_seconds(samples: list[Sample], kind: Unit, look: Look, settings: Score) -> float:
    """CPU seconds of this process to read all the views of samples."""
    requests = [request for sample in samples for request in pieces(sample, [kind], look, settings)]
    started = time.process_time()
    for request in requests:
        for part in parts_of(request, SIZE, SHORT_SIDE, DEFAULT_LIMITS):
            read_part(part)
    return time.process_time() - started


def bench_dedupe(folder: Path) -> Figures:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, 300_000).astype(np.uint64)
    words[150_000:200_000] = words[:50_000] ^ np.uint64(5)  # near-duplicates, two bits away
    seconds, dropped = timed(lambda: int((keep_first(words, 4) >= 0).sum()))
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


# What `bench_select` asks for: settings of the selection, classes with a probability in every row, teachers.
SELECTIONS: dict[str, tuple[Select, int, int]] = {
    "select": (Select(threshold=0.3, cap_per_class=5000), 0, 1),
    "soft": (Select(threshold=0.3, label="soft"), 20, 1),
    "two-teachers": (Select(threshold=0.3, label="soft"), 20, 2),
    "unanimous": (Select(threshold=0.3, label="soft", unanimous=True), 20, 2),
}


def bench_select(folder: Path, name: str, rows: int) -> Figures:
    """Selects from `rows` scores, in a process of its own, so that its greatest memory is its own."""
    _, wide, teachers = SELECTIONS[name]
    classes = wide or 400
    samples = rows // teachers
    # Each teacher agrees with the query in a third of the samples, and is as sure as a hash says.
    top = f"(i * 7919 + (hash(i + t * {samples}) % 3 > 0)::INT) % {classes}"
    sure = "((hash(i * 2 + t) % 1000) / 1000.0)::FLOAT"
    probs = "NULL::FLOAT[]"
    if wide:
        probs = f"[CASE WHEN c = {top} THEN {sure} ELSE ((1 - {sure}) / {wide - 1})::FLOAT END FOR c IN range({wide})]"
    with duckdb.connect() as db:
        db.execute("SET memory_limit='2GB'")
        db.execute("SET temp_directory=?", [str(folder / "spill")])
        names = ", ".join(f"'class {i}'" for i in range(classes))
        db.execute(
            f"""COPY (SELECT format('{{:012d}}', i) AS sample_id, 'web' || (i % 3) AS source,
                    [{names}][(i * 7919) % {classes} + 1] AS query_label FROM range({samples}) AS t(i))
                TO '{folder}/samples.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )
        db.execute(
            f"""COPY (SELECT format('{{:012d}}', i) AS sample_id, 'teacher ' || t AS teacher, 'image' AS unit,
                    NULL::DOUBLE AS start_s, NULL::DOUBLE AS end_s,
                    [{top}, 1, 2, 3, 4]::INT[] AS top_classes,
                    [{sure}, 0.1, 0.05, 0.02, 0.01]::FLOAT[] AS top_probs,
                    {sure} AS query_prob, 1.0::FLOAT AS entropy, {probs} AS probs,
                    NULL::FLOAT[] AS feature, 'ok' AS status, NULL::VARCHAR AS reason
                    FROM range({samples}) AS s(i), range({teachers}) AS u(t))
                TO '{folder}/scores.parquet' (FORMAT parquet, COMPRESSION zstd)"""
        )
    command = [sys.executable, __file__, "--select-in", str(folder), "--only", name]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    size = (folder / "scores.parquet").stat().st_size
    about = {"rows": rows, "classes": classes, "teachers": teachers, "scores_bytes": size}
    return about | done | {"rows_per_s": round(rows / done["seconds"])}


def select_in(folder: Path, name: str) -> None:
    settings, wide, _ = SELECTIONS[name]
    classes = [f"class {i}" for i in range(wide or 400)]

    def work() -> int:
        kept = 0
        with (
            units(folder / "scores.parquet", folder / "samples.parquet", classes, settings.label == "soft") as db,
            table_writer(folder / "decisions.parquet", DECISIONS) as writer,
        ):
            for table in decide(db, settings):
                writer.write_table(table)
                kept += pc.sum(table["keep"]).as_py()
        return kept

    began = time.process_time()
    seconds, kept = timed(work)
    peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    figures = {"seconds": round(seconds, 1), "cpu_s": round(time.process_time() - began, 1), "kept": kept}
    print(json.dumps(figures | {"peak_gb": round(peak / 1024**2, 2)}))


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
        "start_mb": round(seen[0]) if seen else 0,
        "after_a_tenth_mb": round(steady[0]) if steady else 0,
        "end_mb": round(seen[-1]) if seen else 0,
        "samples_mb": [round(value) for value in seen[:: max(1, len(seen) // 30)]],
    }


def about() -> Figures:
    return {
        "command": "python benchmarks/curation.py " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {usable_cores()} CPUs, load {os.getloadavg()[0]:.1f}, no GPU",
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
    parser.add_argument("--only", choices=["probe", "score", "dedupe", *SELECTIONS, "memory"], action="append")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the selection")
    parser.add_argument("--requests", type=int, default=100_000, help="of the memory check")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="decode and score for so long")
    parser.add_argument("--select-in", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.select_in:
        select_in(arguments.select_in, arguments.only[0])
        return
    parts: dict[str, Callable[[Path], Figures]] = {
        "probe": bench_probe,
        "score": bench_score,
        "dedupe": bench_dedupe,
        **{name: partial(bench_select, name=name, rows=arguments.rows) for name in SELECTIONS},
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
