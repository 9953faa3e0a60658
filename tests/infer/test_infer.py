"""Inference: the same numbers as one file after another, in order, whatever is wrong with some of the files."""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
from PIL import Image

from omnisource.clips import augment, dense_test, read_views, segment_test
from omnisource.errors import UserError
from omnisource.infer import Request, Result, infer, pick_device
from omnisource.media import Limits
from omnisource.networks import Meta, Network, create

META = Meta(classes=("a", "b", "c"))
SIZE, SHORT = 32, 40


def picture(seed: int, width: int = 60, height: int = 48) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_video(path: Path, frames: int, seed: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 60, 48, "yuv420p"
        base = picture(seed)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(base, 2 * number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number in range(5):
        Image.fromarray(picture(number)).save(folder / f"{number}.jpg")
        write_video(folder / f"{number}.mp4", 30 + 7 * number, number)
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<!doctype html><p>not found")
    (folder / "cut.jpg").write_bytes((folder / "0.jpg").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def three_d() -> Network:
    torch.manual_seed(0)
    return create("slowonly_r18", 3, base_width=8).eval()


@pytest.fixture(scope="module")
def two_d() -> Network:
    torch.manual_seed(0)
    return create("tsn_r18", 3, base_width=8).eval()


def requests_3d(folder: Path) -> list[Request]:
    requests = []
    for number in range(5):
        frames = 30 + 7 * number
        requests.append(
            Request(f"v{number}", str(folder / f"{number}.mp4"), dense_test(frames, 4, 4, clips=number + 1), crops=3)
        )
        requests.append(Request(f"i{number}", str(folder / f"{number}.jpg"), np.array([[0]]), length=4))
    requests.append(Request("piece", str(folder / "4.mp4"), dense_test(20, 4, 4, clips=2), start_s=1.5, end_s=3.5))
    return requests


def plainly(network: Network, request: Request) -> npt.NDArray[np.float32]:
    """One file, one view after another."""
    views = read_views(
        request.uri,
        request.clips,
        crops=request.crops,
        size=SIZE,
        short_side=SHORT,
        start_s=request.start_s,
        end_s=request.end_s,
    )
    rows = []
    for view in views:
        x = augment(torch.from_numpy(view[None]), mean=META.mean, std=META.std, length=request.length)
        with torch.no_grad():
            rows.append(network(x)[0].numpy())
    return np.stack(rows)


def run(network: Network, requests: list[Request], **options: object) -> list[Result]:
    settings = {"size": SIZE, "short_side": SHORT, "batch": 4, "workers": 2, "device": "cpu"} | options
    return list(infer(network, META, requests, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_same_numbers_as_file_after_file(folder: Path, three_d: Network, batch: int) -> None:
    requests = requests_3d(folder)
    results = run(three_d, requests, batch=batch, features=True)
    assert [result.request.key for result in results] == [request.key for request in requests]
    for result in results:
        assert result.logits is not None and result.features is not None and result.reason is None
        np.testing.assert_allclose(result.logits, plainly(three_d, result.request), atol=1e-4)
        head = three_d.head(torch.from_numpy(result.features)).detach().numpy()
        np.testing.assert_allclose(head, result.logits, atol=1e-4)
        np.testing.assert_allclose(result.probs.sum(1), 1, atol=1e-5)


def test_snippets_and_single_frames_of_a_2d_network(folder: Path, two_d: Network) -> None:
    requests = [
        Request("tsn", str(folder / "0.mp4"), segment_test(30, 5)[None], crops=3),
        Request("frames", str(folder / "1.mp4"), np.arange(0, 30, 3)[:, None]),
        Request("image", str(folder / "2.jpg"), np.array([[0]])),
    ]
    results = run(two_d, requests)
    assert [len(result.probs) for result in results] == [3, 10, 1]
    for result in results:
        np.testing.assert_allclose(result.logits, plainly(two_d, result.request), atol=1e-4)


def test_bad_files_carry_a_reason_and_leave_the_others_alone(folder: Path, three_d: Network) -> None:
    clip = dense_test(30, 4, 4, clips=1)
    names = ["0.mp4", "empty.mp4", "1.mp4", "page.mp4", "missing.mp4", "cut.jpg", "2.mp4"]
    requests = [
        Request(name, str(folder / name), clip if name.endswith("mp4") else np.array([[0]]), length=4) for name in names
    ]
    results = run(three_d, requests)
    assert [result.reason for result in results] == [None, "empty", None, "not_media", "missing", "truncated", None]
    for result in results:
        if result.reason is None:
            np.testing.assert_allclose(result.logits, plainly(three_d, result.request), atol=1e-4)
        else:
            assert result.message and result.logits is None
            with pytest.raises(ValueError, match=result.reason):
                _ = result.probs


def test_a_request_larger_than_one_message_comes_in_parts(folder: Path, two_d: Network) -> None:
    # 1,500 clips of 4 frames of 32x32 are 18 MB
    clips = np.resize(np.arange(50), (1500, 4))
    whole = run(two_d, [Request("many", str(folder / "4.mp4"), clips)], batch=100)[0]
    few = run(two_d, [Request("few", str(folder / "4.mp4"), clips[[0, 700, 1499]])])[0]
    assert whole.logits is not None and whole.logits.shape == (1500, 3)
    np.testing.assert_allclose(whole.logits[[0, 700, 1499]], few.logits, atol=1e-4)


def test_requests_are_read_lazily_and_processes_end_with_the_iterator(folder: Path, three_d: Network) -> None:
    read = 0

    def endless() -> Iterator[Request]:
        nonlocal read
        yield Request("rare", str(folder / "0.jpg"), np.array([[0]]), length=4)  # its batch never fills
        for read in count(1):
            yield Request(read, str(folder / "0.mp4"), np.array([[0, 4, 8, 12]]))

    before = set(psutil.Process().children(recursive=True))
    results = infer(three_d, META, endless(), size=SIZE, short_side=SHORT, batch=4, workers=2, device="cpu")
    keys = [result.request.key for result in islice(results, 20)]
    assert keys == ["rare", *range(1, 20)]
    assert read < 100
    results.close()
    assert not set(psutil.Process().children(recursive=True)) - before


def test_a_time_limit_and_numbers_that_are_not(folder: Path, three_d: Network) -> None:
    clips = dense_test(58, 4, 4, clips=10)
    requests = [Request("slow", str(folder / "4.mp4"), clips)]
    assert run(three_d, requests, limits=Limits(timeout_s=1e-4))[0].reason == "timeout"
    broken = create("slowonly_r18", 3, base_width=8).eval()
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    assert run(broken, requests)[0].reason == "not_finite"


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match="device: 'warp'"):
        pick_device("warp")


def test_a_file_that_is_another_by_now_is_not_recognised(folder: Path, three_d: Network) -> None:
    clip, path = dense_test(30, 4, 4, clips=1), folder / "0.mp4"
    size = path.stat().st_size
    same, other = run(three_d, [Request(n, str(path), clip, bytes=size - n) for n in (0, 1)])
    assert same.logits is not None
    assert other.reason == "changed" and f"has {size} bytes, it had {size - 1}" in (other.message or "")
