"""A contact sheet for the eye: real clips beside clips of the moving camera, one clip a row."""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from omnisource.clips.camera import Camera, Mode, draw_path, load_camera
from omnisource.clips.keys import rng
from omnisource.clips.read import read_clip, read_moving
from omnisource.clips.spatial import random_resized_crop
from omnisource.clips.stage import camera_path, target_footage
from omnisource.clips.temporal import dense_train, stride_in
from omnisource.errors import UserError
from omnisource.media import MediaError
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import Workspace

U8 = npt.NDArray[np.uint8]

_MODES: tuple[Mode, ...] = ("still", "translate-random", "translate-constant", "homography")
_PICTURES = (".jpg", ".jpeg", ".png")
_SIZE = 112  # pixels of a frame on the sheet
_REAL_ROWS = _ROWS_PER_MODE = 3
_MIN_AREA = 0.4  # crops large enough to see what is going on
_MARGIN, _TITLE = 4, 14


def camera_sheet(recipe: Recipe, workspace: Workspace, out: Path) -> None:
    """Draws clips of the target, then images of the web filmed in each mode but the one per class, to `out`.

    Without web images the middle frames of target clips are filmed.

    Raises:
        UserError: no camera is fitted, nothing can be decoded, or `out` is no name of a picture.
    """
    if out.suffix.lower() not in _PICTURES:
        raise UserError(f"{out}: not the name of a picture; let it end in {', '.join(_PICTURES)}")
    camera = load_camera(camera_path(workspace))
    given = recipe.student.input
    footage = target_footage(workspace)
    order = rng(recipe.seed).permutation(len(footage))
    rows: list[tuple[str, U8]] = []
    for key, i in enumerate(order):
        piece = footage[i]
        if len(rows) == _REAL_ROWS:
            break
        stride = stride_in(piece.fps, given.stride, given.fps)
        indices = dense_train(piece.num_frames, given.frames, stride, rng(key))
        crop = partial(random_resized_crop, min_area=_MIN_AREA, rng=rng(key, 1))
        try:
            clip = read_clip(piece.path, indices, crop, _SIZE, start_s=piece.start_s, end_s=piece.end_s)
        except MediaError:
            continue
        rows.append(("real clips of the target", clip))
    images = _images(workspace) or [piece.path for piece in footage]
    chosen = [images[i] for i in rng(recipe.seed, 2).permutation(len(images))]
    for mode in _MODES:
        rows += _filmed(camera, mode, chosen, given.frames)
    if not rows:
        raise UserError(f"{workspace.root}: not one clip or image of the tables can be decoded; run `omnisource probe`")
    _paste(rows).save(out)


def _filmed(camera: Camera, mode: Mode, images: list[str], length: int) -> list[tuple[str, U8]]:
    import torch

    from omnisource.clips.device import augment

    rows: list[tuple[str, U8]] = []
    for key, path in enumerate(images):
        if len(rows) == _ROWS_PER_MODE:
            break
        crop = partial(random_resized_crop, min_area=_MIN_AREA, rng=rng(key, 1))
        try:
            image, view = read_moving(path, draw_path(camera, mode, length, rng(key)), crop, _SIZE)
        except MediaError:
            continue
        clip = augment(
            torch.from_numpy(image)[None],
            mean=(0, 0, 0),
            std=(1, 1, 1),
            camera=torch.from_numpy(view)[None],
            size=_SIZE,
        )
        rows.append((f"images, {mode}", clip[0].permute(1, 2, 3, 0).round().clamp(0, 255).byte().numpy()))
    return rows


def _images(workspace: Workspace) -> list[str]:
    names = ["sample_id", "uri", "role", "format", "status"]
    rows = sorted(read_table(workspace.table("samples"), names).to_pylist(), key=lambda row: row["sample_id"])
    return [row["uri"] for row in rows if (row["role"], row["format"], row["status"]) == ("web", "image", "ok")]


def _paste(rows: list[tuple[str, U8]]) -> Image.Image:
    length = max(len(clip) for _, clip in rows)
    titles = [title for i, (title, _) in enumerate(rows) if i == 0 or rows[i - 1][0] != title]
    width = length * (_SIZE + _MARGIN) + _MARGIN
    height = len(rows) * (_SIZE + _MARGIN) + len(titles) * _TITLE + _MARGIN
    page = Image.new("RGB", (width, height), "white")
    pen, y = ImageDraw.Draw(page), _MARGIN
    for i, (title, clip) in enumerate(rows):
        if i == 0 or rows[i - 1][0] != title:
            pen.text((_MARGIN, y), title, fill="black")
            y += _TITLE
        for t, frame in enumerate(clip):
            page.paste(Image.fromarray(frame), (_MARGIN + t * (_SIZE + _MARGIN), y))
        y += _SIZE + _MARGIN
    return page
