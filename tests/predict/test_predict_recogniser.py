"""Recognising files: the checkpoint's own numbers, timelines of long videos, bad files said as such."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import omnisource
from omnisource.cli import app
from omnisource.clips import augment, dense_test, read_views, windows
from omnisource.errors import UserError
from omnisource.media import Limits, decode_frames, write_video
from omnisource.networks import Meta, create, load_checkpoint, save_checkpoint
from omnisource.predict import Annotation, Guess, Prediction, annotate, annotated_name, gathered
from omnisource.predict.annotate import _has, _written, draw
from omnisource.predict.web import fetch

CLASSES = ("jump", "wave", "a class with [brackets]")


def texture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 48)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(texture(0)).save(folder / "image.jpg")
    for name, seconds in (("short", 2), ("long", 9)):
        frames = ((n / 10, np.roll(texture(n // 30), 2 * n, axis=1)) for n in range(10 * seconds))
        write_video(folder / f"{name}.mp4", frames, options={"crf": "15"})
    (folder / "page.mp4").write_text("<html>gone</html>")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = create("slowonly_r18", 3, base_width=8)
    torch.nn.init.normal_(network.head.weight)
    path = tmp_path_factory.mktemp("runs") / "last.safetensors"
    save_checkpoint(path, network, Meta(CLASSES, frames=4, stride=2, size=40, notes={"short_side": 48}))
    return path


def plainly(checkpoint: Path, clips: np.ndarray, uri: Path, **piece: float) -> np.ndarray:
    network, meta = load_checkpoint(checkpoint)
    views = torch.from_numpy(read_views(uri, clips, crops=1, size=40, short_side=48, **piece))
    with torch.inference_mode():
        return network(augment(views, mean=meta.mean, std=meta.std)).double().softmax(1).mean(0).numpy()


def test_a_clip_an_image_and_a_long_video(folder: Path, checkpoint: Path) -> None:
    recognise = omnisource.load(checkpoint, workers=1)
    short = recognise(folder / "short.mp4")
    np.testing.assert_allclose(
        short.probs, plainly(checkpoint, dense_test(20, 4, 2, 3), folder / "short.mp4"), atol=1e-5
    )
    assert short.windows == () and short.kind == "video" and short.duration_s == pytest.approx(2.0)
    assert short.top[0].label == CLASSES[int(np.argmax(short.probs))]
    assert [guess.prob for guess in short.top] == sorted(short.probs, reverse=True)

    image = recognise(str(folder / "image.jpg"), top=1)
    assert image.kind == "image" and len(image.top) == 1 and image.probs is not None

    long = recognise(folder / "long.mp4", window_s=3.0)
    assert [(w.start_s, w.end_s) for w in long.windows] == windows(9.0, 3.0, 3.0)
    middle = plainly(checkpoint, dense_test(30, 4, 2, 3), folder / "long.mp4", start_s=3.0, end_s=6.0)
    best = long.windows[1].top[0]
    assert best.label == CLASSES[int(middle.argmax())] and best.prob == pytest.approx(middle.max(), abs=1e-5)
    assert long.probs is not None and long.probs.sum() == pytest.approx(1)


def test_bad_files_stand_where_they_were_given(folder: Path, checkpoint: Path) -> None:
    files = [folder / "page.mp4", folder / "short.mp4", folder / "none.mp4", folder / "image.jpg", folder / "page.mp4"]
    found = list(omnisource.load(checkpoint, workers=1).many(files))
    assert [p.uri for p in found] == [str(path) for path in files]
    assert [p.reason for p in found] == ["not_media", None, "missing", None, "not_media"]
    json.dumps([p.as_json() for p in found], allow_nan=False)


def test_impossible_settings_and_networks_are_refused(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    recognise = omnisource.load(checkpoint)
    with pytest.raises(UserError, match="crops: 1, 3, 5 or 10, not 2"):
        recognise(folder / "short.mp4", crops=2)
    for window_s in (0.0, 1e-9, float("nan")):
        with pytest.raises(UserError, match="windows and hops take"):
            recognise(folder / "short.mp4", window_s=window_s)
    with pytest.raises(UserError, match="clips: 1 to 10000"):
        recognise(folder / "short.mp4", clips=10**9)
    save_checkpoint(tmp_path / "f.safetensors", create("slowonly_r18", 2, in_channels=2, base_width=8), Meta())
    with pytest.raises(UserError, match="optical flow"):
        omnisource.load(tmp_path / "f.safetensors")


def test_annotated_copies(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    recognise = omnisource.load(checkpoint, workers=1)
    for name, settings in (("long.mp4", {"window_s": 3.0}), ("image.jpg", {})):
        said = recognise(folder / name, **settings)
        out = annotate(Annotation(said, tmp_path / annotated_name(said)))
        if name == "image.jpg":
            assert np.abs(np.asarray(Image.open(out)).astype(int) - texture(0)).max() > 60
            continue
        with av.open(str(out)) as video:
            assert sum(1 for _ in video.decode(video=0)) == 90
        before, after = decode_frames(folder / name, [45]), decode_frames(out, [45])
        assert np.abs(after[0, :20, :40].astype(int) - before[0, :20, :40]).max() > 60, "the guesses are drawn"
        assert after.shape == before.shape


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; `cut.mp4` is announced as longer than what is sent, `to/NAME` redirects to `NAME`."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/{self.path[4:]}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path != "/cut.mp4":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(bytes(400))


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


def test_names_that_are_hard_to_write(tmp_path: Path) -> None:
    stem = "é" * 126  # 252 bytes
    for uri in (f"/x/{stem}.mp4", "/x/half \udcff.mp4", "/x/..mp4"):
        name = annotated_name(Prediction(uri, "video", 1.0, ()))
        (tmp_path / f".{name}.12345678.tmp").touch()
    assert draw(np.zeros((48, 64, 3), np.uint8), (Guess("two\nlines", 0.5),)).any()
    for name in ("x" * 300, "nul\0"):
        with pytest.raises(UserError, match="no such file or folder"), gathered([name], Limits()):
            pass
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    with gathered([str(tmp_path)], Limits()) as files:
        assert list(files) == [str(tmp_path / "b.jpg")]


def test_inputs_are_files_folders_and_addresses(folder: Path, server: str) -> None:
    address = f"{server.replace('http', 'HTTP')}/to/image.jpg"
    with gathered([str(folder), address], Limits(), allow_private=True) as files:
        assert len(files) == 5
        fetched = Path(files[address])
        assert fetched.read_bytes() == (folder / "image.jpg").read_bytes()
    assert not fetched.exists()


def test_inputs_that_are_refused(folder: Path, server: str, tmp_path: Path) -> None:
    for given, limits, message in (
        (f"{server}/nothing.mp4", Limits(), "cannot be fetched .http_404"),
        (f"{server}/short.mp4", Limits(max_bytes=100), "more than 100 bytes"),
        ("http://127.0.0.1:1/x.mp4", Limits(), "cannot be fetched"),
        (f"{server}/cut.mp4", Limits(), "cannot be fetched .reset: .*400 bytes, expected 1000"),
        (f"{server}/a b.mp4", Limits(), "cannot be fetched"),
        ("http://a b/c.mp4", Limits(), "cannot be fetched"),
        (f"simplecache::{server}/image.jpg", Limits(), "inside another URL"),
        (str(tmp_path), Limits(), "no files in this folder"),
        (str(tmp_path / "x"), Limits(), "no such file or folder"),
        ("", Limits(), "an empty name"),
    ):
        with pytest.raises(UserError, match=message), gathered([given], limits, allow_private=True):
            pass


def test_private_addresses_are_asked_on_demand_only(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1, which is not on the open internet\); --allow-private"):
        fetch(f"{server}/image.jpg", tmp_path / "file", max_bytes=10**6, allow_private=False)
    # The first hop counts as public, so that the server here may answer it; it redirects to its own address.
    passed = iter([True])
    monkeypatch.setattr("omnisource.collect.addresses.is_public", lambda address: next(passed, False))
    start = f"{server.replace('127.0.0.1', 'localhost')}/to/image.jpg"
    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: lookup("127.0.0.1", *rest, **more))
    with pytest.raises(UserError, match=r"127\.0\.0\.1 is 127\.0\.0\.1, which is not on the open internet"):
        fetch(start, tmp_path / "file", max_bytes=10**6, allow_private=False)
    assert next(passed, None) is None, "the first hop was asked"
    assert not (tmp_path / "file").exists()


def test_a_fetch_is_bounded_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(UserError, match="not there after"):
            fetch(address, tmp_path / "file", max_bytes=10**6, allow_private=True, most_s=0.1)


def test_the_verb_prints_json_csv_and_lines(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    files = [str(folder / name) for name in ("long.mp4", "page.mp4")]

    def output(*options: str) -> str:
        done = CliRunner().invoke(app, ["predict", str(checkpoint), *files, *options], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    first, second = (json.loads(line) for line in output("--format", "json", "--window", "3").splitlines())
    assert len(first["windows"]) == 3 and len(first["top"]) == 3
    assert second["reason"] == "not_media"
    rows = output("--format", "csv", "--top", "1", "--window", "3").splitlines()
    assert rows[0] == "uri,start_s,end_s,rank,label,prob,reason"
    assert len(rows) == 1 + 4 + 1 and rows[-1].endswith(",not_media")
    lines = output("--window", "3", "--annotate", str(tmp_path / "out"))
    assert "0:03.0 to 0:06.0" in lines and "not_media" in lines
    assert len(list((tmp_path / "out").glob("long-*.mp4"))) == 1


def test_the_verb_calls_a_web_file_by_its_address(folder: Path, checkpoint: Path, server: str, tmp_path: Path) -> None:
    def invoke(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["predict", str(checkpoint), "--allow-private", *words], catch_exceptions=False)
        return done.exit_code, done.output

    status, said = invoke(f"{server}/short.mp4", f"{server}/page.mp4", "--annotate", str(tmp_path / "out"))
    assert status == 0, "one of two was recognised"
    assert f"not_media: {server}/page.mp4 is" in said
    assert [path.name.startswith("short-") for path in (tmp_path / "out").iterdir()] == [True]
    assert invoke(f"{server}/page.mp4")[0] == 1, "nothing was recognised"


def test_a_long_name_is_drawn_with_its_share_and_accents_are_no_boxes() -> None:
    text, font = _written("a class with a very long name " * 5, "42%", 12, 200)
    assert font.getlength(text) <= 200
    assert text.startswith("a class with") and text.endswith("... 42%")
    assert _written("short", "5%", 12, 200)[0] == "short 5%"
    text, font = _written("Übung", "5%", 12, 200)  # which fonts there are depends on the machine
    assert _has(font, text) and text in ("Übung 5%", "Ubung 5%")
