"""The datasets on which the method is measured: for each fold of each a recipe, as anybody would write it."""

import csv
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from omnisource.demo import WorldSize, make_world
from omnisource.errors import UserError
from omnisource.recipe import Recipe, load_recipe
from omnisource.recipe.load import check

LABELLED_SHARE = 0.3  # of the groups, in `tennis-30`
VIDEO_WEIGHTS = Path("weights/i3d_inception.safetensors")  # below the data folder: I3D, trained on Kinetics-400
_NAME = 70  # characters of a track's name in the names of its folds
WORLD = WorldSize(test_clips=40, images=480, clips=1200, untrimmed=32)  # as the demo's, with more web and tests
_TENNIS = ["backhand", "forehand", "serve", "smash", "b_slice", "b_volley", "f_volley"]
_HOME = ["walk", "standup", "sitdown", "sit", "falling", "falled", "lying", "sleeping"]

Sections = Mapping[str, Any]  # of a recipe


@dataclass(frozen=True)
class Track:
    """A dataset with folds. Every fold is a recipe: its sources, and what its web samples really show."""

    name: str
    about: str
    folder: str | None  # below the data folder ("": itself); None: a drawn world, every fold another one
    folds: tuple[int, ...]
    sections: Callable[[Path, Path, int], Sections]  # (media, where lists may be written, fold) -> of the recipe
    weights: Path | None = None  # below the data folder, from which its networks start
    collected: Path | None = None  # the table of what was collected, for sources with `layout: collected`
    lasting: bool = True  # its data never change: else cells are known by them, too

    def media(self, data: Path | None, root: Path, fold: int) -> Path:
        """The folder of a fold's media.

        Raises:
            UserError: `data` is missing, or does not hold the weights that the track starts from.
        """
        if self.folder is None:
            return root / self.name / f"world-{fold}"
        if data is None:
            raise UserError(f"track {self.name}: --data is missing; it names the folder that holds {self.folder}/")
        if not self.ready(data):
            raise UserError(
                f"track {self.name}: {data / str(self.weights)} is missing (docs/evidence.md says how to get it)"
            )
        return (data / self.folder).resolve()

    def provide(self, media: Path, fold: int, workers: int) -> None:
        """Films a world that is not there yet; real media must be there."""
        if self.folder is None:
            make_world(media, size=WORLD, seed=fold, workers=workers)
        elif self.folder and not media.is_dir():
            raise UserError(f"{media}: no such folder; --data names the folder that holds {self.folder}/")

    def ready(self, data: Path | None) -> bool:
        """Whether the weights that it starts from are there."""
        return self.weights is None or (data is not None and (data / self.weights).is_file())

    def recipe(self, media: Path, place: Path, fold: int) -> Recipe:
        """The recipe of a fold: target alone and web data under the settings that all variants start from.

        Raises:
            UserError: there is no such recipe, as of one's own that needs the runs that it names.
        """
        place.mkdir(parents=True, exist_ok=True)
        given = {"name": f"{self.name[:_NAME]}-{fold}", "data": str(media)}
        return check(Recipe, dict(self.sections(media, place, fold)) | given, {}, f"{self.name}, fold {fold}")


def training() -> dict[str, Any]:
    """A 2D network on a fixed ImageNet trunk (EfficientNet-lite0): what two CPU cores train in seconds."""
    return {
        "network": {
            "name": "tsn_efficientnet_lite0",
            "init": {"imagenet": "package"},
            "dropout": 0.5,
            "options": {"consensus": "mean-std-slope"},
        },
        "input": {"frames": 8, "short_side": 182, "size": 160, "min_area": 0.3},
        "epochs": 40,
        "batch": {"target": 32, "web_ratio": 1.0},
        "optimiser": {
            "kind": "adamw",
            "lr": 0.0005,
            "weight_decay": 0.1,
            "warmup_epochs": 1,
            "clip_grad": 5,
            "trunk_lr_scale": 0,
        },
        "snippets": {"kind": "window"},
        "trunk_views": 4,
        "threads": 1,
    }


def demo() -> dict[str, Any]:
    """The recipe of `omnisource demo`: a small SlowOnly from scratch, and teachers from scratch."""
    with as_file(files("omnisource.demo") / "recipe.yaml") as path:
        return load_recipe(path).model_dump(mode="json")


def _flat(sources: Callable[[Path, Path, int], Sections], media: Path, place: Path, fold: int) -> dict[str, Any]:
    """A 2D student and its like as teachers."""
    given = {
        "teachers": {"image": training(), "video": training()},
        "student": training(),
        "score": {"window_s": 2.0, "hop_s": 2.0},
        "test": {"clips": 8, "crops": 3},
    }
    return given | dict(sources(media, place, fold))


def _deep(sources: Callable[[Path, Path, int], Sections], media: Path, place: Path, fold: int) -> dict[str, Any]:
    """The demo's 3D student from scratch. Its teachers stay 2D: on so few clips an ImageNet trunk is the better one."""
    student, test = demo()["student"], {"clips": 2, "crops": 1}
    student["input"] |= {"frames": 4, "stride": 6, "short_side": 72, "size": 64, "min_area": 0.5}
    student["batch"] = {"target": 8, "web_ratio": 1.0}
    student["epochs"] *= 4  # as on `world`
    return _flat(sources, media, place, fold) | {"student": student, "test": test}


def _video(sources: Callable[[Path, Path, int], Sections], media: Path, place: Path, fold: int) -> dict[str, Any]:
    """A 3D network on a fixed trunk that was trained on video (I3D, Kinetics-400), as student and as video teacher."""
    student = training()
    student["network"] = {
        "name": "i3d_inception",
        "init": {"checkpoint": str(media.parent / VIDEO_WEIGHTS)},
        "dropout": 0.5,
    }
    student["input"] |= {"frames": 32, "stride": 1, "mean": [127.5] * 3, "std": [127.5] * 3}
    student["trunk_views"] = 2
    student["camera"] = {"mode": "still"}  # a camera is fitted for each fold, and all images would be seen anew there
    teachers = {"image": training(), "video": student}
    return _flat(sources, media, place, fold) | {
        "student": student,
        "teachers": teachers,
        "test": {"clips": 2, "crops": 1},
    }


def _world(media: Path, place: Path, fold: int) -> dict[str, Any]:
    """The demo's recipe, everything trained four times as long: the target alone goes on gaining for so long."""
    given = demo()
    for training in (given["student"], *given["teachers"].values()):
        training["epochs"] *= 4
    return given


def _tennis(data: Path, place: Path, fold: int) -> dict[str, Any]:
    group = {"label": "label", "group": "group"}
    return {
        "classes": _TENNIS,
        "sources": {
            "target": {"role": "target", "path": "target.csv", "columns": group, "test": {"fold": fold}},
            **{
                name: {"role": "web", "format": form, "path": f"{name}.csv", "columns": {"label": "query"}}
                for name, form in (("images", "image"), ("clips", "clip"), ("untrimmed", "untrimmed"))
            },
        },
        "truth": {"files": ["images.csv", "clips.csv"], "column": "oracle"},
    }


def _tennis_val(data: Path, place: Path, fold: int) -> dict[str, Any]:
    """The next fold is labelled too, but held out: thresholds and probabilities are calibrated on it."""
    given = _tennis(data, place, fold)
    given["sources"]["target"]["val"] = {"fold": (fold + 1) % 5}
    return given


def _tennis_30(data: Path, place: Path, fold: int) -> dict[str, Any]:
    given = _tennis(data, place, fold)
    hidden = [
        {"path": row["path"], "query": row["query"], "oracle": row["label"]}
        for row in _rows(data / "target.csv")
        if int(row["fold"]) != fold and float(row["rank"]) >= LABELLED_SHARE
    ]
    listed = place / "hidden.csv"
    with listed.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "path", "query", "oracle"])
        writer.writeheader()
        # The truth of a list is looked up from where the list lies; ids, and so the draws, do not depend on that.
        writer.writerows({**row, "file": row["path"], "path": str(data / row["path"])} for row in hidden)
    source = {"role": "target", "path": "target.csv", "columns": {"label": "label", "group": "group"}}
    sources = {
        "target": source | {"where": {"rank": {"below": LABELLED_SHARE}}, "exclude": {"fold": fold}},
        "test": source | {"where": {"fold": fold}, "split": "test"},
        "hidden": {
            "role": "web",
            "format": "clip",
            "path": str(listed),
            "root": str(data),
            "columns": {"path": "file", "label": "query"},
        },
    }
    sources |= {name: value for name, value in given["sources"].items() if name != "target"}
    truth = {"files": [*given["truth"]["files"], str(listed)], "column": "oracle"}
    # In some folds a class has no labelled clip: it can be learned from the web alone.
    return given | {"sources": sources, "truth": truth, "unlabelled_classes": "allow"}


def _home(data: Path, place: Path, fold: int) -> dict[str, Any]:
    """One fold is tested on, the next is labelled, the untrimmed videos of the other two stand for the web."""
    web = [(fold + 2) % 4, (fold + 3) % 4]
    target = {"exclude": {"fold": web}, "test": {"fold": fold}}
    return _rooms({"target": target}, {row["video"] for row in _rows(data / "target.csv") if int(row["fold"]) in web})


def _home_moved(data: Path, place: Path, fold: int) -> dict[str, Any]:
    """Labelled in one room, tested in the other, of which the untrimmed videos of two folds stand for the web."""
    labelled, room = ("01", "02") if fold < 2 else ("02", "01")
    half = [2 * (fold % 2), 2 * (fold % 2) + 1]  # of the folds: tested on
    target = {"where": {"layout": labelled}}
    test = {"where": {"layout": room, "fold": half}, "split": "test"}
    rows = [row for row in _rows(data / "target.csv") if row["layout"] == room and int(row["fold"]) not in half]
    return _rooms({"target": target, "test": test}, {row["video"] for row in rows})


def _rooms(target: Mapping[str, Sections], web: Set[str]) -> dict[str, Any]:
    """What the splits of `home` share. web: names of the videos that stand for it."""
    listed = {"role": "target", "path": "target.csv", "columns": {"group": "video"}}
    untrimmed = {"role": "web", "format": "untrimmed", "path": "untrimmed", "layout": "files"}
    where = {"path": sorted(f"{video}.mp4" for video in web)}
    return {
        "classes": _HOME,
        "sources": {
            **{name: {**listed, **rows} for name, rows in target.items()},
            "untrimmed": {**untrimmed, "where": where},
        },
        "truth": {"segments": "segments.csv", "min_overlap": 0.5},
        "score": {"window_s": 5.0, "hop_s": 2.5},  # about as long as the labelled clips
        # Nobody searched for these videos, so there is no query to agree with.
        "select": {"rule": "teacher", "threshold": 0.6, "label": "teacher"},
    }


def _rows(path: Path) -> Sequence[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; --data names the folder that holds tennis/ and home/") from None


_FULL = "seven tennis strokes, all training groups labelled"
_FEW = "the same with labels for three tenths of the groups; the other training clips are web clips"
_HELD_OUT = "the same with a fourth of the labelled groups held out, to calibrate on"
_ROOMS = "eight household actions under a ceiling camera; web: untrimmed videos"
_MOVED = "the same, labelled in one room and tested in the other; web: untrimmed videos of the other"
_DEEP = "; 3D student"
_PRETRAINED = "; 3D student and video teacher on a fixed trunk trained on Kinetics-400"
TRACKS = (
    Track("tennis-full", _FULL, "tennis", (0, 1, 2, 3, 4), partial(_flat, _tennis)),
    Track("tennis-30", _FEW, "tennis", (0, 1, 2, 3, 4), partial(_flat, _tennis_30)),
    Track("tennis-val", _HELD_OUT, "tennis", (0, 1, 2, 3, 4), partial(_flat, _tennis_val)),
    Track("home", _ROOMS, "home", (0, 1, 2, 3), partial(_flat, _home)),
    Track("home-moved", _MOVED, "home", (0, 1, 2, 3), partial(_flat, _home_moved)),
    Track("world", "eight drawn actions, every fold another world; 3D student", None, (0, 1, 2, 3, 4), _world),
    Track("tennis-full-3d", _FULL + _DEEP, "tennis", (0, 1, 2, 3, 4), partial(_deep, _tennis)),
    Track("tennis-30-3d", _FEW + _DEEP, "tennis", (0, 1, 2, 3, 4), partial(_deep, _tennis_30)),
    Track("home-3d", _ROOMS + _DEEP, "home", (0, 1, 2, 3), partial(_deep, _home)),
    Track("tennis-full-video", _FULL + _PRETRAINED, "tennis", (0, 1, 2, 3, 4), partial(_video, _tennis), VIDEO_WEIGHTS),
    Track("tennis-30-video", _FEW + _PRETRAINED, "tennis", (0, 1, 2, 3, 4), partial(_video, _tennis_30), VIDEO_WEIGHTS),
)


def track_of(name: str) -> Track:
    """The track of that name."""
    for track in TRACKS:
        if track.name == name:
            return track
    raise UserError(f"no track '{name}'; tracks are: {', '.join(track.name for track in TRACKS)}")
