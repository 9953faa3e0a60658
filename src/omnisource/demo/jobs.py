"""One job, one file: jobs are plain data, made in the plan and done in any process."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from omnisource.demo import files
from omnisource.demo.filming import Shot, film
from omnisource.demo.scenes import Picture


@dataclass(frozen=True)
class Format:
    """Width and height in pixels (even), frames a second, and what the uploader adds."""

    width: int
    height: int
    fps: float
    caption: str = ""
    bars: float = 0.0  # dark bars above and below, each this share of the height
    quality: int = 23  # x264's crf; for an image 110 minus four times this is the JPEG quality

    def framed(self, frame: Picture) -> Picture:
        if self.bars:
            frame = files.boxed(frame, self.bars)
        return files.captioned(frame, self.caption, below=True) if self.caption else frame


@dataclass(frozen=True)
class Take:
    """A piece of a video: `shot` from second `start` on for `seconds`; `title` instead of a shot is a text card."""

    shot: Shot | None
    seconds: float
    start: float = 0.0
    title: str = ""


@dataclass(frozen=True)
class VideoJob:
    path: str
    form: Format
    takes: tuple[Take, ...]

    def do(self, root: Path) -> None:
        frames = (self.form.framed(frame) for take in self.takes for frame in _frames(take, self.form))
        files.write_video(root / self.path, frames, self.form.fps, self.form.quality)


@dataclass(frozen=True)
class ImageJob:
    path: str
    form: Format
    take: Take

    def do(self, root: Path) -> None:
        (frame,) = _frames(self.take, self.form, count=1)
        files.write_image(root / self.path, self.form.framed(frame), 110 - 2 * self.form.quality)


@dataclass(frozen=True)
class CopyJob:
    path: str
    of: str

    def do(self, root: Path) -> None:
        files.copy(root / self.of, root / self.path)


@dataclass(frozen=True)
class DamageJob:
    path: str
    of: str
    how: files.Damage
    seed: int

    def do(self, root: Path) -> None:
        files.damage(root / self.of, root / self.path, self.how, np.random.default_rng(self.seed))


@dataclass(frozen=True)
class ReuploadJob:
    """A clip uploaded again after an edit, or one of its frames as an image."""

    path: str
    of: str
    edit: files.Edit
    caption: str
    frame: float | None = None  # which frame, 0..1 of the clip; None is the whole clip

    def do(self, root: Path) -> None:
        frames, fps = files.read_video(root / self.of)
        if self.frame is not None:
            frames = [frames[int(self.frame * (len(frames) - 1))]]
            files.write_image(root / self.path, files.edited(frames, self.edit, self.caption)[0], 80)
            return
        files.write_video(root / self.path, files.edited(frames, self.edit, self.caption), fps, crf=30)


Job = VideoJob | ImageJob | CopyJob | DamageJob | ReuploadJob


def _frames(take: Take, form: Format, count: int | None = None) -> list[Picture]:
    count = count or max(round(take.seconds * form.fps), 1)
    if take.shot is None:
        return [_card(take.title, form)] * count
    times = take.start + np.arange(count) / form.fps
    return list(film(take.shot, form.width, form.height, times, form.fps))


def _card(title: str, form: Format) -> Picture:
    """A text card: a plain colour, chosen by the text, with one line on it."""
    hue = sum(title.encode()) * 37 % 180
    colour = cv2.cvtColor(np.array([[[hue, 120, 170]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    picture = np.empty((form.height, form.width, 3), np.uint8)
    picture[:] = np.linspace(1.1, 0.7, form.height)[:, None, None] * colour
    size = form.width / 320
    (wide, high), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_DUPLEX, size, 1)
    spot = (max((form.width - wide) // 2, 2), (form.height + high) // 2)
    cv2.putText(picture, title, spot, cv2.FONT_HERSHEY_DUPLEX, size, (250, 250, 250), 1, cv2.LINE_AA)
    return picture
