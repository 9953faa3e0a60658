"""Forward passes side by side: the numbers of one after the other, the same bits every time."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omnisource.infer import Request, Result, forward, infer
from omnisource.infer.lanes import Lanes
from omnisource.infer.network import Precision
from omnisource.networks import Meta, Network, create

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 6])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_lanes_share_the_threads_and_give_them_back(threads: int) -> None:
    together = threading.Barrier(min(threads, 4), timeout=30)

    def work() -> tuple[str, int]:
        together.wait()  # as many at once as there are lanes
        return threading.current_thread().name, torch.get_num_threads()

    with Lanes(CPU) as lanes:
        found = [future.result() for future in [lanes.submit(work) for _ in range(lanes.count)]]
    assert lanes.count == min(threads, 4) == len({name for name, _ in found})
    assert {own for _, own in found} == {threads // lanes.count}
    assert torch.get_num_threads() == threads


def test_a_forward_pass_has_the_threads_asked_for(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the process has decide how many passes run side by side, and so no bit."""
    seen = []

    def noted(network: Network, clips: torch.Tensor, precision: Precision) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return forward(network, clips, precision)

    monkeypatch.setattr("omnisource.infer.run.forward", noted)
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    requests = [Request(n, str(tmp_path / "a.png"), np.array([[0]])) for n in range(3)]
    network: Network = create("tsn_r18", 3, base_width=8).eval()
    results = infer(network, Meta(), requests, size=32, short_side=40, batch=2, workers=1, device="cpu", threads=2)
    assert all(result.logits is not None for result in results)
    assert set(seen) == {2} and Lanes(CPU, 2).count == max(1, threads // 2)
    assert torch.get_num_threads() == threads


def test_errors_come_out_and_what_waits_is_dropped() -> None:
    go_on, ran = threading.Event(), []

    def fail() -> None:
        raise RuntimeError("out of memory")

    with Lanes(CPU) as lanes:
        with pytest.raises(RuntimeError, match="out of memory"):
            lanes.submit(fail).result()
        running = threading.Barrier(lanes.count + 1, timeout=30)

        def hold() -> bool:
            running.wait()
            return go_on.wait(30)

        busy = [lanes.submit(hold) for _ in range(lanes.count)]
        waiting = lanes.submit(lambda: ran.append(1))
        waiting.add_done_callback(lambda _: go_on.set())  # dropped, as the block ends, which waits for what runs
        running.wait()  # what no lane has begun would be dropped, too
    assert all(future.result() for future in busy)
    with pytest.raises(CancelledError):
        waiting.result()
    assert not ran


def test_many_files_have_the_same_bits_whatever_the_timing(tmp_path: Path, threads: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"{number}.png")
    torch.manual_seed(0)
    network: Network = create("tsn_r18", 3, base_width=8).eval()
    requests = [Request(n, str(tmp_path / f"{n}.png"), np.array([[0]])) for n in range(30)]

    def run(asked: list[Request], batch: int, workers: int = 2) -> list[Result]:
        return list(infer(network, Meta(), asked, size=32, short_side=40, batch=batch, workers=workers, device="cpu"))

    def logits(results: list[Result]) -> np.ndarray:
        return np.concatenate([result.logits for result in results if result.logits is not None])

    some, again = run(requests, 4), run(requests, 4, workers=1)
    assert [result.request.key for result in some] == list(range(30))
    assert np.array_equal(logits(some), logits(again))
    one_by_one = [run([request], 1)[0] for request in requests[:5]]
    np.testing.assert_allclose(logits(some)[:5], logits(one_by_one), atol=1e-5)
    assert torch.get_num_threads() == threads
