"""The fitted camera is the one that filmed."""

from pathlib import Path

import av
import numpy as np
import pytest
from test_clips_motion import HEIGHT, WIDTH, film, world

from omnisource.clips import Footage, fit_camera, rng
from omnisource.clips.camera import Gaussian, fit_gaussian
from omnisource.clips.motion import from_movement
from omnisource.errors import UserError

STEPS, VIDEOS, SHIFT = 9, 24, np.array([0.03, 0.01])


def truth(sign: float) -> Gaussian:
    """A camera that drifts to one side: shifts mostly along x, a little zoom and wobble."""
    covariance = 0.02**2 * np.kron(np.ones((4, 4)), np.diag([1, 0.2])) + 0.004**2 * np.eye(8)
    return Gaussian(sign * np.tile(SHIFT, 4), covariance, 0)


def write(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def steps(number: int) -> np.ndarray:
    """The true corner movements (STEPS, 8) in film `number`."""
    return truth(sign(number)).draw(STEPS, rng(number))


def sign(number: int) -> float:
    return -1.0 if number % 2 else 1.0


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> list[Footage]:
    folder = tmp_path_factory.mktemp("footage")
    found = []
    for number in range(VIDEOS):
        path = [np.eye(3)]
        for movement in steps(number):
            path.append(path[-1] @ from_movement(movement))
        write(folder / f"{number}.mp4", film(world(number), path))
        label = "left" if sign(number) < 0 else "right"
        found.append(Footage(str(folder / f"{number}.mp4"), label, STEPS + 1))
    return found


def test_known_mean_and_covariance_are_recovered(footage: list[Footage]) -> None:
    camera, measured = fit_camera(footage, VIDEOS * STEPS, stride=1, seed=3, workers=2)
    assert measured["pairs"]["used"] == camera.overall.pairs >= 0.97 * VIDEOS * STEPS
    happened = np.concatenate([steps(number) for number in range(VIDEOS)])
    groups = {"right": happened.reshape(VIDEOS, -1)[0::2], "left": happened.reshape(VIDEOS, -1)[1::2]}
    for label, direction in (("right", 1.0), ("left", -1.0)):
        true, found, seen = truth(direction), camera.classes[label], fit_gaussian(groups[label].reshape(-1, 8))
        # Against the movements that were really filmed: the error of measuring alone.
        assert np.abs(found.mean - seen.mean).max() < 0.001
        assert np.abs(found.covariance - seen.covariance).max() < 0.06 * seen.covariance.max()
        # Against the Gaussian they were drawn from: three standard errors of 108 draws.
        count = VIDEOS * STEPS / 2
        assert (np.abs(found.mean - true.mean) < 3 * np.sqrt(np.diag(true.covariance) / count)).all()
        assert np.abs(found.covariance - true.covariance).max() < 3 * np.sqrt(2 / count) * true.covariance.max()
        # The small part of the motion, a twentieth of the variance, is not drowned by noise.
        wobble = np.eye(8)[2] - np.eye(8)[0]
        assert np.sqrt(wobble @ found.covariance @ wobble) == pytest.approx(0.004 * np.sqrt(2), rel=0.3)
    # Both classes in one Gaussian: the mean vanishes, the drift becomes variance.
    assert np.abs(camera.overall.mean - happened.mean(axis=0)).max() < 0.001
    assert camera.overall.covariance[0, 0] == pytest.approx(0.02**2 + SHIFT[0] ** 2, rel=0.3)


def test_the_fit_repeats_and_broken_files_are_counted(footage: list[Footage], tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    with_broken = [*footage[:6], Footage(str(tmp_path / "broken.mp4"), "left", 10)]
    one, measured = fit_camera(with_broken, 45, stride=2, seed=1, workers=2)
    two, _ = fit_camera(with_broken, 45, stride=2, seed=1, workers=1)
    assert measured["pairs"]["not_media"] == 6 and sum(measured["pairs"].values()) == 45
    assert np.array_equal(one.overall.mean, two.overall.mean)
    assert np.array_equal(one.overall.covariance, two.overall.covariance)


def test_too_little_footage_says_what_to_do(footage: list[Footage], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"longer than the stride of 64.*camera\.mode"):
        fit_camera(footage, 10, stride=64)
    (tmp_path / "broken.mp4").write_bytes(b"not a film")
    with pytest.raises(UserError, match=r"only 0 of 3 .*not_media 3.*camera\.pairs"):
        fit_camera([Footage(str(tmp_path / "broken.mp4"), "a", 10)], 3, stride=1, workers=1)
