"""How fast, how flat and how safe against kills the downloader is, on loopback, beside img2dataset's.

    python benchmarks/collect.py                                      # 50,000 small images, ten kills
    python benchmarks/collect.py --img2dataset PATH/TO/ITS/PYTHON     # and img2dataset's downloader on the same URLs

A server process of its own hands out small JPEGs, all different. Both downloaders run as a user would run them, as
programs of their own, without a limit of requests a second, one after the other. Prints the report and writes
benchmarks/results/collect.json.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

PER_HOST = 8
SAMPLE_S = 0.5


class Server(asyncio.Protocol):
    """Just enough of HTTP/1.1 to be much faster than what it measures."""

    asked: Counter[bytes] = Counter()
    picture = b""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            path = self.received.split(b" ", 2)[1]
            self.received = self.received[end + 4 :]
            if path == b"/asked":
                repeated = sum(count - 1 for count in Server.asked.values())
                body = json.dumps({"urls": len(Server.asked), "repeated": repeated}).encode()
            elif path == b"/reset":
                Server.asked.clear()
                body = b"{}"
            else:
                Server.asked[path] += 1
                body = Server.picture + path  # bytes behind the end marker make every file another one
            head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body)


def serve() -> None:
    """The server process; prints its port."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((160, 120)).save(buffer, "JPEG", quality=80)
    Server.picture = buffer.getvalue()

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], len(Server.picture), flush=True)
        await server.serve_forever()

    asyncio.run(run())


def ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
        return json.loads(response.read())


def done(workspace: Path) -> int:
    """URLs that the state table calls done."""
    try:
        with sqlite3.connect(f"file:{workspace}/collect/state.sqlite?mode=ro", uri=True) as database:
            return int(database.execute("SELECT COUNT(*) FROM urls WHERE state = 'done'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def start(folder: Path) -> subprocess.Popen[bytes]:
    settings = ["rate_per_host=0", "robots=false", f"per_host={PER_HOST}", "min_free_bytes=0"]
    command = [sys.executable, "-m", "omnisource", "collect", "--classes", str(folder / "classes.txt")]
    command += ["--sources", f"urls:{folder}/urls.txt", "--workspace", str(folder / "work"), "--allow-private"]
    command += [argument for setting in settings for argument in ("--set", setting)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def watch(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Wall and CPU seconds of a program with all its children, and its resident memory as the work goes on."""
    started, cpu, memory = time.monotonic(), 0.0, []
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            memory.append(sum(one.memory_info().rss for one in family) / 2**20)
            cpu = max(cpu, sum(sum(one.cpu_times()[:2]) for one in family))
        except psutil.Error:
            pass
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{process.args} exited with {process.returncode}")
    tenth = max(3, len(memory) // 10)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(cpu, 1),
        "memory_mib_after_a_tenth": round(statistics.median(memory[tenth : tenth + 3]), 1),
        "memory_mib_after_nine_tenths": round(statistics.median(memory[-tenth - 3 : -tenth]), 1),
        "memory_mib_most": round(max(memory), 1),
    }


def measure_ours(folder: Path, count: int) -> dict[str, Any]:
    result = watch(start(folder))
    with sqlite3.connect(folder / "work/collect/state.sqlite") as database:
        sql = "SELECT COUNT(*), MAX(retrieved_at) - MIN(retrieved_at) FROM urls WHERE state = 'done'"
        finished, seconds = database.execute(sql).fetchone()
    assert finished == count, f"{finished} of {count} done"
    return {
        **result,
        "images_per_s": round(count / result["seconds"], 1),
        "images_per_s_without_start_and_table": round(count / seconds, 1),
        "images_per_cpu_s": round(count / result["cpu_seconds"], 1),
    }


def measure_img2dataset(python: Path, folder: Path, count: int) -> dict[str, Any]:
    """img2dataset with re-encoding off, files as output, threads as many as our requests at once."""
    program = (
        "from img2dataset import download\n"
        f"download(url_list={str(folder / 'urls.txt')!r}, output_folder={str(folder / 'i2d')!r}, processes_count=2, "
        f"thread_count={PER_HOST}, resize_mode='no', disable_all_reencoding=True, number_sample_per_shard=1000, "
        "output_format='files', enable_wandb=False)\n"
    )
    path = folder / "run_img2dataset.py"
    path.write_text(f"if __name__ == '__main__':\n    {program.replace(chr(10), chr(10) + '    ').rstrip()}\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [python, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=folder
    )
    result = watch(process)
    del result["cpu_seconds"]  # its processes end before they can be asked
    got = sum(1 for _ in (folder / "i2d").rglob("*.jpg"))
    return {
        **result,
        "images": got,
        "images_per_s": round(got / result["seconds"], 1),
    }


def measure_kills(folder: Path, count: int, kills: int, port: int) -> dict[str, Any]:
    """Kills the program at random moments and lets it finish; the server knows what was asked twice."""
    ask(port, "/reset")
    chance, moments, known = random.Random(0), [], 0
    for _ in range(kills):
        process = start(folder)
        goal = known + int(chance.uniform(0.3, 1.0) * count / (kills + 1))
        while process.poll() is None and (known := done(folder / "work")) < goal:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        moments.append(done(folder / "work"))
    assert start(folder).wait() == 0
    asked = ask(port, "/asked")
    assert done(folder / "work") == count == asked["urls"]
    # A URL may be asked again only if the kill came between its request and its row: at most those in flight.
    assert asked["repeated"] <= kills * PER_HOST, asked
    return {
        "kills": kills,
        "done_at_each_kill": moments,
        "urls_lost": count - done(folder / "work"),
        "asked_again": asked["repeated"],
        "asked_again_at_most": kills * PER_HOST,
    }


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--img2dataset", type=Path, help="Python of an environment that has img2dataset")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "collect.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port, size = map(int, server.stdout.readline().split())
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            folder = Path(name)
            (folder / "classes.txt").write_text("any\n")
            urls = [f"http://127.0.0.1:{port}/{i:06d}.jpg\n" for i in range(given.count)]
            (folder / "urls.txt").write_text("".join(urls))
            loads = [os.getloadavg()[0]]
            results: dict[str, Any] = {"omnisource": measure_ours(folder, given.count)}
            shutil.rmtree(folder / "work")
            loads.append(os.getloadavg()[0])
            if given.img2dataset:
                results["img2dataset"] = measure_img2dataset(given.img2dataset, folder, given.count)
                shutil.rmtree(folder / "i2d")
                loads.append(os.getloadavg()[0])
            results["kills"] = measure_kills(folder, given.count, given.kills, port)
    finally:
        server.kill()
    report = {
        "command": "python " + " ".join(["benchmarks/collect.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs shared with the server and with other work",
        "load_average_before_each_part": [round(load, 1) for load in loads],
        "versions": {name: version(name) for name in ("httpx", "httpcore")} | {"python": platform.python_version()},
        "images": f"{given.count} of {size} bytes, one host; {PER_HOST} requests at once, img2dataset 2 x {PER_HOST}",
        "results": results,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
