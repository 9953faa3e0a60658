"""What opening a run of ten million samples costs, and a step of it: seconds, memory.

    python benchmarks/pool.py      # takes minutes and 3 GB of disk, most of it to make the tables

Writes the tables that the stages before training would write: a target and three web sources, every sample kept, two
windows of each untrimmed video. Ids and paths have the usual lengths, rows the order that the stages give them. Then,
three times and each time in a process of its own, joins them into a pool, whose CPU seconds and greatest memory count,
opens the plan on it, and asks for steps with everything about their units. Prints and writes
benchmarks/results/pool.json.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from omnisource import __version__
from omnisource.cores import usable_cores
from omnisource.recipe import Recipe, Training
from omnisource.tables import DECISIONS, DUPLICATES, PROBE, SAMPLES, table_writer, write_json
from omnisource.train import Plan, build_pool
from omnisource.workspace import StageRecord, Workspace, open_workspace

CLASSES = [f"class number {number}" for number in range(400)]
# Source: role, format, share of the samples.
SOURCES = {
    "images": ("web", "image", 0.60),
    "kinetics": ("target", "clip", 0.03),
    "shorts": ("web", "clip", 0.32),
    "untrimmed": ("web", "untrimmed", 0.05),
}
WINDOWS = 2  # kept ones of an untrimmed video
_PIECE = 1_000_000


def recipe() -> Recipe:
    """The headline setting: 2:1:1:1, classes resampled, mixup."""
    sources: dict[str, Any] = {
        name: {"role": role, "format": form, "path": "media"} for name, (role, form, _) in SOURCES.items()
    }
    training = {"network": {"name": "slowonly_r50"}}
    return Recipe.model_validate(
        {
            "name": "large",
            "sources": sources,
            "teachers": {"image": training, "video": training},
            "student": training,
            "data": ".",
        }
    )


def make_tables(root: Path, samples: int) -> None:
    """The tables of `samples` samples, in sorted pieces."""
    names = list(SOURCES)
    edges = np.cumsum([round(samples * share) for *_, share in SOURCES.values()])
    with open_workspace(root) as workspace, duckdb.connect() as tables:
        record = StageRecord("ingest", "", "", {}, {"classes": CLASSES})
        write_json(workspace.root / "stages" / "ingest.json", asdict(record))
        tables.register("names", pa.table({"number": range(len(names)), "source": names}))
        tables.register("class", pa.table({"number": range(len(CLASSES)), "label": CLASSES}))
        cases = " ".join(f"WHEN i < {edge} THEN {number}" for number, edge in enumerate(edges))
        tables.execute(f"""
            CREATE TABLE facts AS SELECT substr(sha256(i::VARCHAR), 1, 20) AS sample_id, source, label,
                CASE source WHEN 'kinetics' THEN 'target' ELSE 'web' END AS role,
                CASE source WHEN 'images' THEN 'image' WHEN 'untrimmed' THEN 'untrimmed' ELSE 'clip' END AS format
            FROM (SELECT i, CASE {cases} END AS number, floor(400 * pow(hash(i) / pow(2.0, 64), 2))::INT AS class
                  FROM range({int(edges[-1])}) one(i)) JOIN names USING (number)
                 JOIN class ON class.number = least(class, 399)""")
        queries = {
            "samples": """SELECT sample_id, source, role, format,
                    '/data/media/' || source || '/' || substr(sample_id, 1, 2) || '/' || sample_id || sample_id
                        || CASE format WHEN 'image' THEN '.jpg' ELSE '.mp4' END AS uri,
                    CASE role WHEN 'target' THEN label END AS label, CASE role WHEN 'web' THEN label END AS query_label,
                    CASE role WHEN 'target' THEN 'train' END AS split, 'ok' AS status
                FROM facts ORDER BY source, sample_id""",
            "probe": """SELECT sample_id, CASE format WHEN 'image' THEN 'image' ELSE 'video' END AS kind,
                    340 + hash(sample_id) % 3 AS width, 256 AS height, 1.0 AS decodable_share, 'ok' AS status,
                    CASE WHEN format != 'image' THEN 30000 / 1001.0 END AS fps,
                    CASE WHEN format != 'image' THEN 300 + hash(sample_id) % 100 END AS num_frames,
                    CASE WHEN format != 'image' THEN 10.5 END AS duration_s,
                    sha256(sample_id) AS sha256
                FROM facts ORDER BY sample_id""",
            "duplicates": """SELECT sample_id,
                    CASE WHEN hash(sample_id) % 50 = 0 THEN 'dropped' ELSE 'ok' END AS status
                FROM facts WHERE role = 'web' ORDER BY sample_id""",
            "decisions-default": f"""SELECT sample_id, source, label, true AS keep, false AS negative,
                    0.5 AS confidence, 'rule' AS decided_by,
                    CASE format WHEN 'untrimmed' THEN 'window' ELSE format END AS unit,
                    CASE format WHEN 'untrimmed' THEN 10.0 * w END AS start_s,
                    CASE format WHEN 'untrimmed' THEN 10.0 * (w + 1) END AS end_s
                FROM facts JOIN range({WINDOWS}) window_(w) ON w = 0 OR format = 'untrimmed'
                WHERE role = 'web' ORDER BY sample_id, start_s""",
        }
        schemas = {"samples": SAMPLES, "probe": PROBE, "duplicates": DUPLICATES, "decisions-default": DECISIONS}
        for name, query in queries.items():
            schema = schemas[name]
            with table_writer(workspace.table(name), schema) as writer:
                for batch in tables.sql(query).to_arrow_reader(_PIECE):
                    columns = [
                        batch[field.name].cast(field.type)
                        if field.name in batch.schema.names
                        else pa.nulls(len(batch), field.type)
                        for field in schema
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=schema))


def measure(root: Path, steps: int) -> dict[str, Any]:
    """Opens the pool and the plan of the tables at `root`; seconds, bytes, and the identity of the list."""
    given = recipe()
    training = Training.model_validate(
        {
            "network": {"name": "slowonly_r50"},
            "batch": {"target": 16, "web_ratio": 0.5},
            "resample": {name: {"power": 0.5} for name, (role, *_) in SOURCES.items() if role == "web"},
            "mixup": {"kind": "cross"},
        }
    )
    before = memory()
    wall, cpu = time.perf_counter(), time.process_time()
    pool = build_pool(given, Workspace(root), list(given.sources), by_frame=False)
    joined = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    greatest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    after = memory()
    began = time.process_time()
    plan = Plan(pool, training, seed=0)
    opened = time.process_time() - began
    began = time.process_time()
    slots = 0
    for step in range(steps):
        batch = plan.step(step * 9973)
        slots += len([pool.unit(int(number)) for number in batch.unit])
    return {
        "units": len(pool),
        "digest": pool.digest,
        "join": {key: round(value, 2) for key, value in joined.items()},
        "greatest_bytes": greatest,
        "own_bytes_before": before,
        "own_bytes_after": after,
        "plan_cpu_s": round(opened, 2),
        "slot_cpu_ms": round(1000 * (time.process_time() - began) / slots, 4),
    }


def memory() -> int:
    """Bytes of memory that are this process's own: not those of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main() -> None:
    """Parses the command line, measures in a process of its own, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tables", type=Path, help="keep the tables here, and use those that are there")
    parser.add_argument("--only", action="store_true", help="measure --tables in this process; print, write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pool.json")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.tables, given.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = given.tables or Path(folder)
        if not (root / "tables" / "decisions-default.parquet").exists():
            make_tables(root, given.samples)
        command = [sys.executable, __file__, "--only", "--tables", str(root), "--steps", str(given.steps)]
        rounds = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
        sizes = {path.stem: path.stat().st_size for path in sorted((root / "tables").glob("*.parquet"))}
    report = {
        "command": f"python benchmarks/pool.py --samples {given.samples} --steps {given.steps}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {usable_cores()} CPUs",
        "versions": {
            "omnisource": __version__,
            "python": platform.python_version(),
            "duckdb": duckdb.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
        },
        "samples": given.samples,
        "table_bytes": sizes,
        "rounds": rounds,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
