"""Text cards have like perceptual hashes: only what the hash does not see tells them apart."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from omnisource.curate import Engine, dedupe, probe
from omnisource.curate.detail import agree
from omnisource.ingest import ingest
from omnisource.media import probe_media
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import open_workspace

U8 = npt.NDArray[np.uint8]


def card(text: str) -> U8:
    """(240, 320, 3): a line of text on a ground that gets darker downwards."""
    picture = np.empty((240, 320, 3), np.uint8)
    picture[:] = np.linspace(190, 120, 240)[:, None, None]
    cv2.putText(picture, text, (110, 130), cv2.FONT_HERSHEY_DUPLEX, 1.0, (250, 250, 250), 1, cv2.LINE_AA)
    return picture


def photograph(seed: int) -> U8:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def small(picture: U8, side: int = 64) -> U8:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def encoded(picture: U8, quality: int) -> U8:
    _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)


def test_of_pictures_of_which_the_hash_says_little_the_details_must_agree() -> None:
    for text in ("best of", "easy!"):
        one = small(card(text))
        assert agree(one, small(encoded(card(text), 20)))
        assert agree(one, small(np.asarray(cv2.resize(card(text), (160, 120), interpolation=cv2.INTER_AREA))))
        assert not agree(one, small(card("wait...")))
    plain = np.full((64, 64), 200, np.uint8)
    assert agree(plain, plain - 1) and not agree(plain, small(card("easy!")))


def test_of_others_the_hash_is_enough() -> None:
    one = photograph(1)
    thumbnail = np.asarray(cv2.resize(one, (24, 18), interpolation=cv2.INTER_AREA), np.uint8)
    assert agree(small(one), small(np.asarray(cv2.resize(thumbnail, (320, 240)), np.uint8)))


def test_another_text_card_stays_and_the_copy_goes(tmp_path: Path) -> None:
    web = tmp_path / "web" / "jump"
    web.mkdir(parents=True)
    for name, text in (("one", "best of"), ("other", "easy!"), ("third", "wait...")):
        Image.fromarray(card(text)).save(web / f"{name}.png")
    Image.fromarray(card("easy!")).resize((240, 180)).save(web / "copy.jpg", quality=60)
    words = {path.stem: int(probe_media(path).phash, 16) for path in web.iterdir()}
    assert (words["one"] ^ words["other"]).bit_count() <= 4, "no test: their hashes tell them apart"
    for number in range(3):
        Image.fromarray(photograph(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "target.csv").write_text("path,label,split\n0.png,jump,train\n1.png,wave,train\n2.png,wave,test\n")
    training = {"network": {"name": "tsn_r18"}}
    recipe = Recipe.model_validate(
        {
            "name": "cards",
            "data": tmp_path,
            "sources": {
                "target": {"role": "target", "format": "image", "path": "target.csv"},
                "web": {"role": "web", "format": "image", "path": "web"},
            },
            "teachers": {"image": training, "video": training},
            "student": training,
            "dedupe": {"against_test": False},
        }
    )
    with open_workspace(tmp_path / "workspace") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        dedupe(recipe, workspace, Engine(workers=1))
        names = {row["sample_id"]: Path(row["uri"]).stem for row in read_table(workspace.table("samples")).to_pylist()}
        rows = read_table(workspace.table("duplicates")).to_pylist()
    assert {names[row["sample_id"]] for row in rows if row["status"] != "ok"} == {"copy"}
