"""What a run would stumble over hours later is said before its first stage, all of it at once."""

from pathlib import Path

import pytest

from omnisource import cli
from omnisource.ahead import check_ahead, check_listed
from omnisource.errors import UserErrors
from omnisource.ingest import ingest
from omnisource.networks import Meta, create, save_checkpoint
from omnisource.recipe import Recipe, load_recipe
from omnisource.workspace import Workspace, open_workspace

RECIPE = """\
name: tiny
sources:
  target: {role: target, path: target, test_share: 0.5}
  images: {role: web, format: image, path: images}
dedupe: {against_test: false}
teachers:
  image: {network: {name: tsn_r18, options: {base_width: 8}}, batch: {target: 2}}
score: {clip: [image], window: [image]}
student: {network: {name: slowonly_r18, options: {base_width: 8}}, batch: {target: 2}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("target/jump/1", "target/jump/2", "target/wave/1", "target/wave/2", "images/jump/1"):
        file = tmp_path / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no picture, but a file")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def ahead(recipe: Recipe, folder: Path) -> list[str]:
    try:
        check_ahead(recipe, Workspace(folder / "ws"))
    except UserErrors as error:
        return list(error.problems)
    return []


MISTAKES = {
    "sources.images.path=nowhere": "nowhere: missing (sources.images.path)",
    "sources.target.layout=json": "sources.target has layout 'json', which needs a list file",
    "teachers.image.network.name=tsn_r19": "teachers.image.network: unknown network 'tsn_r19': did you mean",
    "teachers.image.device=cuda:99": "teachers.image.device: ",
    "student.network.options.base_width=wide": "student.network: slowonly_r18 cannot be built with base_width='wide'",
    "student.network.init.checkpoint=none.pth": "none.pth: no such file",
    "student.input.size=8": "student.network: slowonly_r18 takes clips of at least 1 frames and 32 pixels a side",
    "student.network.options.base_width=20000": "GiB of memory, more than there is",
    "student.camera.fitted=camera.json": "student.camera: ",
    "test.size=999": "test.size: a crop of 999 does not fit",
    "select.per_class={run: 0.5}": "select.per_class names 'run'",
    "select.overrides=decisions.csv": "overrides cannot be read",
    "truth={files: [target/jump/1.jpg]}": "no column 'path' (truth.files)",
    "runs={f: {sources: [target, images], set: {input.modality: flow}}}": "`modality: flow` trains on target",
}


def test_a_sound_recipe_passes(path: Path, tmp_path: Path) -> None:
    assert ahead(load_recipe(path), tmp_path) == []


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_seen_ahead(override: str, path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, ["classes=[jump, wave]", override])
    problems = ahead(recipe, tmp_path)
    assert len(problems) == 1 and MISTAKES[override] in problems[0]


def test_a_teacher_from_elsewhere_is_tried(path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.ts").write_text("no network")
    given = "foreign_teachers={other: {file: FILE, classes: [jump, wave]}}"
    for file, says in (("bad.ts", "not a TorchScript file"), ("none.onnx", "cannot be read")):
        recipe = load_recipe(path, ["score.image=[other]", given.replace("FILE", file)])
        (problem,) = ahead(recipe, tmp_path)
        assert problem.startswith("foreign_teachers.other: ") and says in problem


def test_all_mistakes_are_listed_at_once_and_leave_no_workspace(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [word for override in list(MISTAKES)[:5] for word in ("--set", override)]
    place = tmp_path / "new" / "ws"
    monkeypatch.setattr("sys.argv", ["omnisource", "run", str(path), *wrong, "--workspace", str(place)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and all(part in "\n".join(said) for part in list(MISTAKES.values())[:5])
    assert not (tmp_path / "new").exists()


def test_what_ingest_lists_is_checked_too(path: Path, tmp_path: Path) -> None:
    wrong = ["student.batch.target=3", "teachers.image.validate_every=1", "test.split=val", "select.per_class={run: 1}"]
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = load_recipe(path)
        ingest(recipe, workspace)
        check_listed(recipe, workspace)
        with pytest.raises(UserErrors) as caught:
            check_listed(load_recipe(path, wrong), workspace)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "test.split",
        "teachers.image.validate_every",
        "student.batch.target is 3, but only 2 target samples train; lower it",
        "select.per_class names 'run', which is not in the class list",
    ]


@pytest.mark.parametrize(
    ("override", "noted"),
    [
        ("select={}", "select.rule is 'agree'"),
        ("select={rule: all}", "select.label is 'query'"),
        ("select={rule: teacher, label: teacher}", ""),
        ("select={rule: all, label: soft}", ""),
        ("select={rule: all, label: soft, query_evidence: true}", "if a column of its list says it"),
    ],
)
def test_files_that_nobody_searched_are_pointed_out(
    override: str, noted: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("\n".join(["path", *map(str, sorted((tmp_path / "images").rglob("*.*")))]))
    sources = {"{role: web, format: image, path: list.csv}": noted, "{role: web, path: images}": ""}
    if "query_evidence" in override:  # whoever gives files without a list knows that nobody searched
        sources["{role: web, path: images, layout: files}"] = ""
    for source, said in sources.items():
        recipe = load_recipe(path, [f"sources.images={source}", override])
        with open_workspace(tmp_path / "ws") as workspace:
            ingest(recipe, workspace)
            capsys.readouterr()
            check_listed(recipe, workspace)
        found = " ".join(capsys.readouterr().err.split())
        assert said in found and bool(said) == ("no row of sources.images says what was asked for" in found)


@pytest.mark.parametrize(("given", "noted"), [("", True), (", norm_eps: 1.0e-5", False)])
def test_weights_of_other_norms_are_pointed_out(
    given: str, noted: bool, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "csn.safetensors", create("ircsn_r50", 2, base_width=8, norm_eps=1e-5), Meta())
    network = f"{{name: ircsn_r50, options: {{base_width: 8{given}}}, init: {{checkpoint: csn.safetensors}}}}"
    assert ahead(load_recipe(path, ["classes=[jump, wave]", f"student.network={network}"]), tmp_path) == []
    said = " ".join(capsys.readouterr().err.split())
    assert ("note: student.network has other norms than the ircsn_r50 whose weights" in said) == noted
    assert ("norm_eps: 1e-05}" in said) == noted


def test_weights_of_another_normalisation_are_pointed_out(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = create("tsn_r18", 2, base_width=8)
    save_checkpoint(tmp_path / "start.safetensors", network, Meta(mean=(127.5,) * 3, std=(127.5,) * 3))
    start = ["classes=[jump, wave]", "teachers.image.network.init.checkpoint=start.safetensors"]
    assert ahead(load_recipe(path, start), tmp_path) == []
    said = " ".join(capsys.readouterr().err.split())
    assert "note: teachers.image.input has mean [123.675, 116.28, 103.53]" in said
    assert "in start.safetensors were trained with [127.5, 127.5, 127.5] and [127.5, 127.5, 127.5]" in said
    same = ["teachers.image.input.mean=[127.5, 127.5, 127.5]", "teachers.image.input.std=[127.5, 127.5, 127.5]"]
    assert ahead(load_recipe(path, start + same), tmp_path) == []
    assert "note" not in capsys.readouterr().err
