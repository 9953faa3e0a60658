"""The one way in which DuckDB is opened: bounded memory, bounded space on disk, nothing from the network."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from omnisource.cores import usable_cores
from omnisource.scratch import scratch
from omnisource.tables.check import check_table, damage, unreadable
from omnisource.tables.files import writing
from omnisource.tables.schemas import schema_of

MEMORY = 2_000_000_000  # DuckDB spills to disk beyond it, so that 10 million rows fit beside a training
_SHARE = 4  # but it takes no more than one part in so many of what the machine has
_THREAD_BYTES = 64 * 2**20  # a thread's buffers; more threads than fit would fail where fewer succeed
_viewed: dict[int, list[Path]] = {}  # the files that the queries of each open database read


@contextmanager
def database(place: Path, memory: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens an empty database; what it can't hold in memory spills into a folder of its own inside `place`.

    The folder is removed when the block ends, a killed process's by the next that opens the workspace (`place` is its
    `tables` or `partial`). At most nine tenths of the disk's free space are used.

    Args:
        place: made if need be.
        memory: bytes, MEMORY by default; a quarter of the machine's or the container's where that is less.

    Raises:
        UserError: memory and disk are full, or the disk fails; a file turns out to be damaged while it is queried.
    """
    most = min(memory or MEMORY, machine_bytes() // _SHARE)
    with writing(place), scratch(place) as spill:
        settings = {
            "memory_limit": f"{most}B",
            "threads": max(1, min(usable_cores(), most // _THREAD_BYTES)),
            "temp_directory": str(spill),
            "max_temp_directory_size": f"{shutil.disk_usage(spill).free // 10 * 9}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,  # among them is all that would speak to the network
        }
        with duckdb.connect(config=settings) as db:
            viewed = _viewed[id(db)] = []
            try:
                yield db
            except duckdb.OutOfMemoryException:
                raise
            except RuntimeError as error:
                if str(error) == "Query interrupted":  # DuckDB's word for a signal
                    raise KeyboardInterrupt from error
                raise
            except (duckdb.Error, OSError) as error:  # an OSError where a query is read batch by batch
                for path in viewed:  # DuckDB does not always say which file it is
                    if found := damage(path):
                        raise unreadable(path, found) from error
                raise
            finally:
                del _viewed[id(db)]


def view_table(db: duckdb.DuckDBPyConnection, name: str, path: Path, numbered: bool = False) -> None:
    """Makes a Parquet file the view `name` of a database; `numbered` adds the column `file_row_number`.

    Raises:
        UserError: as `read_table`.
    """
    check_table(path, schema_of(path.stem))
    try:
        db.read_parquet(str(path), file_row_number=numbered).create_view(name)
    except duckdb.Error as error:
        raise unreadable(path, str(error).splitlines()[0]) from error
    reads(db, [path])


def reads(db: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """Notes that queries of a database read these files: when one of them turns out to be damaged, it is named."""
    _viewed.get(id(db), []).extend(paths)


def machine_bytes(root: Path = Path("/")) -> int:
    """Memory of this machine, or of a control group (a container, a job) that this process is in, if that is less.

    Args:
        root: where `proc` and `sys` lie.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if kinds else "")  # version 1 has a tree for each kind
        inside = top / group.strip("/")
        for folder in (inside, *(parent for parent in inside.parents if parent.is_relative_to(top))):
            limit = folder / ("memory.limit_in_bytes" if kinds else "memory.max")
            if limit.exists() and (value := limit.read_text().strip()).isdigit():  # or "max"
                found.append(int(value))
    return min(found)
