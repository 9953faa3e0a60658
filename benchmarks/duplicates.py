"""Recall and precision of near-duplicate removal, on copies of test clips made here and now from real media.

    python benchmarks/duplicates.py --data ../shared/data/tennis --draws 3 4 5
    python benchmarks/duplicates.py --worlds 0 1 2
    python benchmarks/duplicates.py --films ../shared/data/home --draws 0 1 2 3

Takes test clips of a target, plants altered copies of them among web samples that show something else, runs ingest,
probe and dedupe, and counts what was found; once for each draw of films and clips. The rule's constants were chosen on
draws 0 to 2 (of pictures: 0 and 1, and worlds 10 and 11). `--worlds` counts copies that the demo's worlds of these
seeds hold by themselves, with the demo's recipe. `--films` takes a target's untrimmed films for the web and
counts, fold by fold, those from which its test clips were cut. Prints a table; writes
benchmarks/results/duplicates-NAME.json.
"""

import argparse
import csv
import json
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import av
import cv2
import faiss
import numpy as np
import numpy.typing as npt
import torch

from omnisource.curate import dedupe, probe
from omnisource.demo import make_world
from omnisource.ingest import ingest
from omnisource.media import decode_frames, iter_frames
from omnisource.recipe import Recipe, load_recipe
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, open_workspace

Film = npt.NDArray[np.uint8]  # (T, H, W, 3)


def film_of(path: Path) -> tuple[Film, float]:
    """All frames of a clip, and its frames per second."""
    times, frames = zip(*iter_frames(path), strict=True)
    return np.stack(frames), (len(times) - 1) / max(times[-1], 1e-6) if len(times) > 1 else 25.0


def write_film(path: Path, film: Film, fps: float, crf: int = 23) -> None:
    height, width = (side // 2 * 2 for side in film.shape[1:3])
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=max(1, round(fps)), options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]))))
        container.mux(stream.encode())


def resized(film: Film, scale: float) -> Film:
    return np.stack([cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for picture in film])


def cropped(film: Film, share: float) -> Film:
    """Without `share` of the width and of the height, off-centre."""
    height, width = film.shape[1:3]
    top, left = round(height * share * 0.3), round(width * share * 0.7)
    return film[:, top : top + round(height * (1 - share)), left : left + round(width * (1 - share))]


def subtitled(film: Film) -> Film:
    film = film.copy()
    height, width = film.shape[1:3]
    for picture in film:
        cv2.rectangle(picture, (width // 10, int(height * 0.84)), (width * 9 // 10, int(height * 0.96)), (0, 0, 0), -1)
        place = (width // 8, int(height * 0.93))
        cv2.putText(picture, "What a fine stroke!", place, cv2.FONT_HERSHEY_SIMPLEX, height / 420, (255,) * 3, 1)
    return film


# kind of change -> (film, fps, file without suffix); all but the last write a video
CHANGES: dict[str, Callable[[Film, float, Path], None]] = {
    "same content, other encoding": lambda film, fps, to: write_film(to.with_suffix(".mp4"), film, fps, crf=36),
    "resized to a half": lambda film, fps, to: write_film(to.with_suffix(".mp4"), resized(film, 0.5), fps),
    "cropped by 10 %": lambda film, fps, to: write_film(to.with_suffix(".mp4"), cropped(film, 0.1), fps),
    "mirrored": lambda film, fps, to: write_film(to.with_suffix(".mp4"), film[:, :, ::-1], fps),
    "subtitled": lambda film, fps, to: write_film(to.with_suffix(".mp4"), subtitled(film), fps),
    "every second frame": lambda film, fps, to: write_film(to.with_suffix(".mp4"), film[::2], fps / 2),
    "one frame as an image": lambda film, fps, to: write_jpeg(to.with_suffix(".jpg"), film[len(film) * 2 // 5]),
}


def write_jpeg(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])


def build(data: Path, root: Path, clips: int, others: int, seed: int) -> tuple[dict[str, list[Path]], dict[Path, str]]:
    """Lays out a target and a web; returns the web files by kind of change (`other ...`: not copies), and for each the
    file in `data` of which it was made. `seed` draws the films and the clips."""
    rng = np.random.default_rng(seed)
    rows = list(csv.DictReader((data / "target.csv").open()))
    group = "group" if "group" in rows[0] else "video"  # clips of one film
    films = sorted({row[group] for row in rows})
    rng.shuffle(films)
    # A third of the films is tested on, one is the web's, and from one `auto` learns what is merely alike.
    of_test, of_web, of_train = ([row for row in rows if row[group] in films[third::3]] for third in range(3))
    held_out = [of_test[i] for i in rng.permutation(len(of_test))[:clips]]
    elsewhere = [of_web[i] for i in rng.permutation(len(of_web))[: others // 2]]
    listing = ["path,label,split"]
    listing += [f"{data / row['path']},{row['label']},test" for row in held_out]
    listing += [f"{data / row['path']},{row['label']},train" for row in of_train]
    (root / "target.csv").write_text("\n".join(listing) + "\n")
    planted: dict[str, list[Path]] = {}
    origin: dict[Path, str] = {}
    for number, row in enumerate(held_out):
        film, fps = film_of(data / row["path"])
        for change, write in CHANGES.items():
            place = (
                root / ("images" if "image" in change else "clips") / row["label"] / f"{change[:8].strip()}_{number}"
            )
            write(film, fps, place)
            (path,) = place.parent.glob(place.name + ".*")
            planted.setdefault(change, []).append(path)
            origin[path] = row["path"]
    for number, row in enumerate(elsewhere):
        film, fps = film_of(data / row["path"])
        write_film(path := root / "clips" / row["label"] / f"other_{number}.mp4", film, fps)
        planted.setdefault("other film", []).append(path)
        origin[path] = row["path"]
    images = list(csv.DictReader((data / "images.csv").open())) if (data / "images.csv").exists() else []
    # A target without web images: frames of the same other films, which are the harder images besides.
    images = images or [{"path": row["path"], "query": row["label"]} for row in elsewhere]
    for number, at in enumerate(rng.permutation(len(images))[: others - others // 2]):
        (picture,) = decode_frames(data / images[at]["path"], [0])
        write_jpeg(path := root / "images" / images[at]["query"] / f"other_{number}.jpg", picture)
        planted.setdefault("other image", []).append(path)
        origin[path] = images[at]["path"]
    return planted, origin


def deduped(recipe: Recipe, root: Path) -> tuple[StageRecord, dict[str, Path], dict[Path, dict[str, Any]], float]:
    """Runs the stages; returns the record of `dedupe`, the file of each sample, the row of each file, and seconds."""
    with open_workspace(root / "workspace") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        started = time.monotonic()
        record = dedupe(recipe, workspace)
        seconds = time.monotonic() - started
        samples = {row["sample_id"]: Path(row["uri"]) for row in read_table(workspace.table("samples")).to_pylist()}
        table = read_table(workspace.table("duplicates")).to_pylist()
    return record, samples, {samples[row["sample_id"]]: row for row in table}, round(seconds, 1)


def measured(record: StageRecord) -> dict[str, Any]:
    return {name: value for name, value in record.counts.items() if name not in ("rows", "dropped", "reasons")}


def measure_world(seed: int, dedupe_settings: dict[str, object]) -> dict[str, Any]:
    """What the demo's recipe finds in a world that was drawn with this seed."""
    with tempfile.TemporaryDirectory() as folder, as_file(files("omnisource.demo") / "recipe.yaml") as path:
        root = Path(folder)
        world = make_world(root / "world", seed=seed)
        settings = [f"dedupe.{name}={json.dumps(value)}" for name, value in dedupe_settings.items()]
        record, samples, rows, seconds = deduped(load_recipe(path, [f"data={world.root}", *settings]), root)
        truth = [row for row in csv.DictReader(world.truth_csv.open()) if not row["exact_duplicate_of"]]
    found: dict[str, dict[str, Any]] = {}
    wrong: list[dict[str, object]] = []
    for entry in truth:
        row = rows.get(world.root / entry["path"])
        if row is None:
            continue  # a broken file
        kind = f"{'copy' if entry['near_duplicate_of'] else 'other'}, {entry['source']}"
        count = found.setdefault(kind, {"files": 0, "dropped": 0, "by_features": 0})
        count["files"] += 1
        # That one of two equal files goes is no mistake.
        count["dropped"] += row["status"] != "ok" and (kind.startswith("copy") or row["rule"] != "sha256")
        count["by_features"] += row["rule"] == "feature"
        if kind.startswith("other") and row["rule"] not in (None, "sha256"):
            twin = samples[row["twin_id"]].relative_to(world.root)
            wrong.append(
                {"file": entry["path"], "rule": row["rule"], "similarity": row["similarity"], "twin": str(twin)}
            )
    copies = [count for kind, count in found.items() if kind.startswith("copy")]
    hits = sum(count["dropped"] for count in copies)
    return {
        "draw": seed,
        "kinds": found,
        "recall": hits / sum(count["files"] for count in copies),
        "precision": hits / max(hits + len(wrong), 1),
        "wrong": wrong,
        "measured": measured(record),
        "seconds": seconds,
    }


def measure(data: Path, clips: int, others: int, draw: int, dedupe_settings: dict[str, object]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        planted, origin = build(data, root, clips, others, draw)
        student = {"network": {"name": "tsn_r18"}}
        recipe = Recipe.model_validate(
            {
                "name": "duplicates",
                "data": root,
                "sources": {
                    "target": {"role": "target", "path": "target.csv"},
                    "images": {"role": "web", "format": "image", "path": "images"},
                    "clips": {"role": "web", "format": "clip", "path": "clips"},
                },
                "teachers": {"image": student, "video": student},
                "student": student,
                "dedupe": dedupe_settings,
            }
        )
        record, samples, rows, seconds = deduped(recipe, root)
    # Frames of one film that look alike are near-duplicates of each other, and not wrong.
    films = {row["path"]: row.get("group", row.get("video")) for row in csv.DictReader((data / "target.csv").open())}
    found: dict[str, dict[str, float]] = {}
    wrong: list[dict[str, object]] = []
    for kind, paths in planted.items():
        mine = [rows[path] for path in paths]
        dropped = sum(row["status"] != "ok" for row in mine)
        close = [row["similarity"] or 0.0 for row in mine if row["rule"] in (None, "feature")]
        low, middle, high = np.quantile(close, [0.05, 0.5, 0.95]).round(3).tolist() if close else (0.0,) * 3
        found[kind] = {
            "files": len(mine),
            "dropped": dropped,
            "by_features": sum(row["rule"] == "feature" for row in mine),
            "sim_p05": low,
            "sim_p50": middle,
            "sim_p95": high,
        }
        if kind not in CHANGES:
            for path, row in zip(paths, mine, strict=True):
                if row["status"] == "ok":
                    continue
                twin = samples[row["twin_id"]]
                if kind == "other image" and films.get(origin[path], 0) == films.get(origin.get(twin, ""), 1):
                    found[kind]["of one film"] = found[kind].get("of one film", 0) + 1
                    continue
                wrong.append(
                    {"file": path.name, "of": origin[path], "rule": row["rule"], "similarity": row["similarity"]}
                    | {"twin": twin.name, "twin_of": origin.get(twin)}
                )
    copies = sum(found[kind]["files"] for kind in CHANGES)
    hits = sum(found[kind]["dropped"] for kind in CHANGES)
    return {
        "draw": draw,
        "kinds": found,
        "recall": hits / copies,
        "precision": hits / max(hits + len(wrong), 1),
        "wrong": wrong,
        "measured": measured(record),
        "seconds": seconds,
    }


def measure_films(data: Path, fold: int, dedupe_settings: dict[str, object]) -> dict[str, Any]:
    """Which of all untrimmed films go when one fold is tested on: a copy is a film of which a test clip is a piece."""
    copied = {row["video"] for row in csv.DictReader((data / "target.csv").open()) if row["fold"] == str(fold)}
    student = {"network": {"name": "tsn_r18"}}
    recipe = Recipe.model_validate(
        {
            "name": "films",
            "data": data,
            "sources": {
                "target": {"role": "target", "path": "target.csv", "test": {"fold": fold}},
                "films": {"role": "web", "format": "untrimmed", "path": "untrimmed", "layout": "files"},
            },
            "teachers": {"image": student, "video": student},
            "student": student,
            "dedupe": dedupe_settings,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        record, samples, rows, seconds = deduped(recipe, Path(folder))
    found = {kind: {"files": 0, "dropped": 0, "by_features": 0} for kind in ("copy, film", "other, film")}
    wrong: list[dict[str, object]] = []
    for path, row in rows.items():
        copy = path.stem in copied
        count = found["copy, film" if copy else "other, film"]
        count["files"] += 1
        count["dropped"] += row["status"] != "ok"
        count["by_features"] += row["rule"] == "feature"
        if not copy and row["status"] != "ok":
            twin = samples[row["twin_id"]].name
            wrong.append({"file": path.name, "rule": row["rule"], "similarity": row["similarity"], "twin": twin})
    hits = found["copy, film"]["dropped"]
    return {
        "draw": fold,
        "kinds": found,
        "recall": hits / found["copy, film"]["files"],
        "precision": hits / max(hits + len(wrong), 1),
        "wrong": wrong,
        "measured": measured(record),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help="folder with target.csv (path, label, group), images.csv")
    where.add_argument("--films", type=Path, help="folder with target.csv (path, label, video, fold), untrimmed/")
    where.add_argument("--worlds", type=int, nargs="+", help="seeds of drawn worlds")
    parser.add_argument("--clips", type=int, default=20, help="test clips to copy")
    parser.add_argument("--others", type=int, default=200, help="web samples that are no copies")
    parser.add_argument("--dedupe", default="{}", help="settings of the recipe's section `dedupe`, as JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder")
    parser.add_argument("--draws", type=int, nargs="+", default=[0], help="seeds of the films and clips drawn")
    arguments = parser.parse_args()
    settings = json.loads(arguments.dedupe)
    results = []
    for draw in arguments.worlds or arguments.draws:
        if arguments.worlds:
            result = measure_world(draw, settings)
        elif arguments.films:
            result = measure_films(arguments.films.resolve(), draw, settings)
        else:
            result = measure(arguments.data.resolve(), arguments.clips, arguments.others, draw, settings)
        results.append(result)
        print(f"{'kind':32} {'files':>6} {'dropped':>8} {'by features':>12}   similarity 5 % / 50 % / 95 %")
        for kind, entry in result["kinds"].items():
            print(
                f"{kind:32} {entry['files']:6} {entry['dropped']:8} {entry['by_features']:12}   "
                + " / ".join(f"{entry[name]:.3f}" for name in ("sim_p05", "sim_p50", "sim_p95") if name in entry)
            )
        print({key: value for key, value in result.items() if key not in ("kinds", "wrong")}, flush=True)
        for entry in result["wrong"]:
            print("wrong:", entry)
    dropped = {
        kind: {count: sum(result["kinds"][kind][count] for result in results) for count in ("files", "dropped")}
        for kind in results[0]["kinds"]
    }
    summary = {name: float(np.mean([result[name] for result in results])) for name in ("recall", "precision")}
    print("mean:", summary)
    if arguments.worlds:
        name, what = "world", f"--worlds {' '.join(map(str, arguments.worlds))}"
    elif arguments.films:
        name = f"{arguments.films.name}-films"
        what = f"--films DATA/{arguments.films.name} --draws {' '.join(map(str, arguments.draws))}"
    else:
        name = arguments.data.name
        what = f"--data DATA/{name} --clips {arguments.clips} --others {arguments.others}"
        what += f" --draws {' '.join(map(str, arguments.draws))}"
    about = {
        "command": f"python benchmarks/duplicates.py {what} --dedupe '{arguments.dedupe}'",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "faiss": faiss.__version__},
        "data": name,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out / f"duplicates-{name}.json"
    out.write_text(json.dumps(about | summary | {"all_draws": dropped, "draws": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
