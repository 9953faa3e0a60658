"""Folders for what does not fit into memory: gone at the end, and after a kill; never another process's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omnisource.scratch import scratch, sweep

HOLD = """if True:
    import pathlib, sys
    from omnisource.scratch import scratch
    with scratch(pathlib.Path(sys.argv[1])) as place:
        (place / "rows").write_text("rows")
        print(place, flush=True)
        sys.stdin.read()
"""


def test_it_is_gone_when_the_block_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on the way"), scratch(tmp_path / "new") as place:
        (place / "rows").write_text("rows")
        raise ValueError("on the way")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_process_uses_stays_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    place = Path(process.stdout.readline().strip())
    with scratch(tmp_path) as ours:
        sweep(tmp_path)
        assert (place / "rows").read_text() == "rows"
        assert ours.is_dir()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert (place / "rows").exists()
        sweep(tmp_path)
        assert not place.exists()
        assert ours.is_dir()
