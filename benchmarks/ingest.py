"""What listing a million web samples costs: CPU seconds, memory.

    python benchmarks/ingest.py      # takes minutes and 4 GB of disk, most of it to make the files

Writes a million small files in a thousand folders, a CSV list that names them with query, address, author and licence,
and a target of 8,000 clips of 400 classes. Then, in processes of their own, `ingest` lists them into a new workspace,
and once more into the same one, which finds that nothing has changed. Each process's CPU seconds and greatest memory
count. Prints and writes benchmarks/results/ingest.json.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from omnisource import __version__
from omnisource.cores import usable_cores
from omnisource.ingest import ingest
from omnisource.recipe import Recipe
from omnisource.workspace import open_workspace

CLASSES = [f"class number {number}" for number in range(400)]
TARGET_CLIPS = 20  # of a class
_FOLDER_FILES = 1000


def recipe(root: Path) -> Recipe:
    """A listed web source beside a target in folders."""
    training = {"network": {"name": "slowonly_r50"}}
    return Recipe.model_validate(
        {
            "name": "large",
            "data": root,
            "sources": {
                "target": {"role": "target", "path": "target", "test_share": 0.25},
                "web": {
                    "role": "web",
                    "format": "image",
                    "path": "web.csv",
                    "columns": {"label": "query"},
                    "licence": ["cc0", "cc-by"],
                },
            },
            "teachers": {"image": training, "video": training},
            "student": training,
        }
    )


def make_files(root: Path, rows: int) -> None:
    """The media and their list."""
    for name in CLASSES:
        folder = root / "target" / name
        folder.mkdir(parents=True)
        for clip in range(TARGET_CLIPS):
            (folder / f"{clip:04d}.mp4").write_text(f"{name} {clip}")
    with (root / "web.csv").open("w") as listed:
        listed.write("path,query,url,author,licence\n")
        for first in range(0, rows, _FOLDER_FILES):
            folder = f"web/{first // _FOLDER_FILES:05d}"
            (root / folder).mkdir(parents=True)
            for number in range(first, min(first + _FOLDER_FILES, rows)):
                path = f"{folder}/{number:08d}.jpg"
                (root / path).write_text(str(number))
                query, licence = CLASSES[number * 7919 % len(CLASSES)], ("cc0", "cc-by", "unknown")[number % 3]
                listed.write(f"{path},{query},https://example.org/{number:08d}.jpg,author {number % 999},{licence}\n")


def measure(root: Path) -> dict[str, Any]:
    """Ingests the files at `root` in this process; what it took and what came out."""
    given = recipe(root)
    wall, cpu = time.perf_counter(), time.process_time()
    with open_workspace(root / "workspace") as workspace:
        record = ingest(given, workspace)
    return {
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "greatest_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rows": record.counts["rows"],
        "current": not record.fresh,
        "digest": record.settings["table"],
    }


def main() -> None:
    """Parses the command line, measures in processes of their own, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=Path, help="keep the files here, and use those that are there")
    parser.add_argument("--only", action="store_true", help="measure --files in this process; print, write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ingest.json")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.files)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = given.files or Path(folder)
        if not (root / "web.csv").exists():
            make_files(root, given.rows)
        command = [sys.executable, __file__, "--only", "--files", str(root)]
        first, again = (json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(2))
    report = {
        "command": f"python benchmarks/ingest.py --rows {given.rows}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {usable_cores()} CPUs",
        "versions": {
            "omnisource": __version__,
            "python": platform.python_version(),
            "duckdb": duckdb.__version__,
            "pyarrow": pa.__version__,
        },
        "first": first,
        "again": again,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
