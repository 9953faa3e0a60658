"""A run that is killed loses no URL and repeats none that was done."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback_site import Request, Site, answer, jpeg

from omnisource.tables import read_table


def done_urls(workspace: Path) -> set[str]:
    path = workspace / "collect/state.sqlite"
    if not path.exists():
        return set()
    database = sqlite3.connect(path)
    try:
        return {row[0] for row in database.execute("SELECT url FROM urls WHERE state = 'done'")}
    except sqlite3.OperationalError:  # killed before the tables were made
        return set()
    finally:
        database.close()


def start(folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    settings = ("rate_per_host=0", "robots=false", "backoff_s=0.05", "per_host=4")
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "omnisource", "collect", "--classes", str(folder / "classes.txt")),
            *("--sources", f"urls:{folder}/list.txt", "--workspace", str(folder / "work"), "--allow-private"),
            *(argument for setting in (*settings, *options) for argument in ("--set", setting)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
    )


def kill_and_resume(site: Site, folder: Path, count: int, kills: int, delay_s: float) -> None:
    allowed = 0  # requests that are answered at once; what comes after waits, so that no run ends before it is killed

    async def picture(request: Request, writer: object) -> None:
        import asyncio

        await asyncio.sleep(delay_s)
        while site.asked.total() > allowed:
            await asyncio.sleep(0.01)
        writer.write(answer(200, jpeg(int(request.path[1:-4]), size=8)))  # type: ignore[attr-defined]

    site.routes = {f"/{i}.jpg": picture for i in range(count)}
    (folder / "classes.txt").write_text("serve\n")
    (folder / "list.txt").write_text("".join(f"{site.url}/{i}.jpg\n" for i in range(count)))
    chance = random.Random(0)
    finished: dict[str, int] = {}  # done URL -> requests for it when it was seen done
    for _ in range(kills):
        allowed = site.asked.total() + count // (kills + 2)
        process = start(folder)
        known = len(done_urls(folder / "work"))
        while process.poll() is None and len(done_urls(folder / "work")) == known:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        allowed = site.asked.total()
        time.sleep(2 * delay_s + 0.02)  # the site answers what was asked already
        for url in done_urls(folder / "work"):
            finished.setdefault(url, site.asked[url.removeprefix(site.url)])
    assert 0 < len(finished) < count, "the kills must fall in the middle of the work"
    allowed += 2 * count
    last = start(folder)
    assert last.wait(timeout=240) == 0, last.stderr and last.stderr.read()
    again = {url for url, asked in finished.items() if site.asked[url.removeprefix(site.url)] != asked}
    assert not again, "done URLs were asked again"
    assert len(done_urls(folder / "work")) == count
    in_flight = 4 * kills
    assert site.asked.total() <= count + in_flight
    rows = read_table(folder / "work/tables/collected.parquet").to_pylist()
    assert {Path(row["uri"]).read_bytes() for row in rows} == {jpeg(i, size=8) for i in range(count)}
    leftovers = [path for path in (folder / "work/media/web/partial").iterdir() if path.stat().st_size > 2**16]
    assert not leftovers


def test_two_kills(site: Site, tmp_path: Path) -> None:
    kill_and_resume(site, tmp_path, count=400, kills=2, delay_s=0.01)


@pytest.mark.slow
def test_ten_kills(site: Site, tmp_path: Path) -> None:
    kill_and_resume(site, tmp_path, count=4000, kills=10, delay_s=0.005)


def test_ctrl_c_ends_quickly_and_resumes(site: Site, tmp_path: Path) -> None:
    async def slow(request: Request, writer: object) -> None:
        import asyncio

        await asyncio.sleep(0.05)
        writer.write(answer(200, jpeg(int(request.path[1:-4]), size=8)))  # type: ignore[attr-defined]

    site.routes = {f"/{i}.jpg": slow for i in range(300)}
    (tmp_path / "classes.txt").write_text("serve\n")
    (tmp_path / "list.txt").write_text("".join(f"{site.url}/{i}.jpg\n" for i in range(300)))
    process = start(tmp_path)
    while process.poll() is None and not done_urls(tmp_path / "work"):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - started < 10
    assert process.stderr is not None and b"resumes" in process.stderr.read()
    assert 0 < len(done_urls(tmp_path / "work")) < 300
    assert start(tmp_path, "per_host=32").wait(timeout=120) == 0
    assert len(done_urls(tmp_path / "work")) == 300
