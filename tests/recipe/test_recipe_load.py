"""A recipe says what is wrong with it: file, line, key, cure."""

from pathlib import Path

import pytest

from omnisource.errors import UserError
from omnisource.recipe import load_recipe
from omnisource.recipe.training import Consistency

GOOD = """\
name: tiny
data: media
classes: [jump, wave]
sources:
  target: {role: target, path: target.csv, test: {fold: 0}}
  images: {role: web, format: image, path: images.csv, columns: {label: query}}
  clips: {role: web, path: clips, where: {rank: {below: 0.3}}}
teachers:
  image: {network: {name: tsn_r18}}
  video: {network: {name: slowonly_r18}}
student:
  network: {name: slowonly_r18}
  batch:
    ratio: {images: 0.5}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_short_recipe_is_enough(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.data == (tmp_path / "media").resolve()
    assert list(recipe.planned_runs()) == ["target-only", "+images", "+clips", "all"]
    assert recipe.student_of("all").batch.ratio == {"images": 0.5}
    assert recipe.class_list() == ["jump", "wave"]


def test_overrides_win_and_are_typed(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["student.epochs=2", f"data={tmp_path}", "seeds=[1, 2]"])
    assert recipe.student.epochs == 2
    assert recipe.data == tmp_path.resolve()
    assert recipe.seeds == [1, 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("  batch:", "  bacth:"), "recipe.yaml:13: unknown key 'student.bacth'; did you mean 'batch'?"),
        (("ratio:", "ration:"), "recipe.yaml:14: unknown key 'student.batch.ration'; did you mean 'ratio'?"),
        (("{images: 0.5}", "{images: -1}"), "recipe.yaml:14: 'student.batch.ratio.images'"),
        (("{images: 0.5}", "{photos: 1}"), "student names the source 'photos', sources are: target, images, clips"),
        (("role: target", "role: web"), "web sources have no split"),
        (("web, path: clips", "web, path: clips, val: {fold: 1}"), "web sources have no split"),
        (("web, path: clips", "web, path: clips, split: train"), "web sources have no split"),
        (("web, path: clips", "web, path: clips, test_share: 0.1"), "web sources have no split"),
        (("name: tiny\n", ""), "recipe.yaml:1: 'name' is missing"),
        (("name: tiny", "name: tiny\nnam: a\nnme: b"), "recipe.yaml:2: unknown key 'nam'; did you mean 'name'? (and 1"),
        (("images: {role: web", "Images: {rolle: web"), "recipe.yaml:6: unknown key 'sources.Images.rolle'"),
        (("[jump, wave]", "\n  - jump\n  - wave\n  - [3]"), "recipe.yaml:6: 'classes"),
        (("name: tiny", "name: ../x"), "recipe.yaml:1: 'name'"),
        (("classes: [jump, wave]", "classes: [jump, *w]"), "recipe.yaml:3: YAML aliases"),
        (("classes: [jump, wave]", "classes: [jump, wave"), "recipe.yaml:4: not valid YAML"),
        (("classes: [jump, wave]", "name: twice"), "recipe.yaml:3: 'name' is given twice"),
        (("rank: {below: 0.3}", "rank: {belov: 0.3}"), "recipe.yaml:7: unknown key"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, GOOD.replace(*change)))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_override_names_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set student.epoch=3: unknown key 'student.epoch'; did you mean 'epochs'"):
        load_recipe(write(tmp_path, GOOD), ["student.epoch=3"])
    with pytest.raises(UserError, match="key=value"):
        load_recipe(write(tmp_path, GOOD), ["student.epochs"])
    with pytest.raises(UserError, match="temperature': input should be less than or equal to 50"):
        load_recipe(write(tmp_path, GOOD), ["select.calibrate.temperature=60"])
    with pytest.raises(UserError, match="threshold': input should be 'auto'"):
        load_recipe(write(tmp_path, GOOD), ["dedupe.threshold=high"])


def test_a_missing_or_binary_recipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder, not a recipe; do you mean"):
        load_recipe(tmp_path)
    with pytest.raises(UserError, match="omnisource init"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="nested too deeply"):
        load_recipe(write(tmp_path, "a: " + "[" * 5000 + "]" * 5000))


def test_students_of_a_run_as_teachers(tmp_path: Path) -> None:
    runs = "runs:\n  all: {sources: [target, images]}\n  again: {sources: [target, images], teacher: all}\n"
    recipe = load_recipe(write(tmp_path, GOOD + runs), ["seeds=[0, 1]"])
    assert recipe.rounds() == {None: ["all"], "all": ["again"]}
    assert recipe.seen_by("all") is recipe
    seen = recipe.seen_by("again")
    assert seen.score.image == seen.score.window == ["all-0", "all-1"]
    assert [seen.training_of(name) for name in seen.teachers] == ["all-0", "all-1"]
    assert (seen.scored_by("scores"), seen.select.stage) == ("scores-all", "select-default.all")
    assert recipe.scored_by("scores") == "scores"
    assert recipe.training_of("image") == "teacher-image"
    for wrong, why in (
        (("teacher: all", "teacher: none"), "no run above"),
        (("[target, images], t", "[target], t"), "no web source"),
        (("[target, images]}", "[target], set: {input.modality: flow}}"), "students of 'all' see optical flow"),
    ):
        with pytest.raises(UserError, match=why):
            load_recipe(write(tmp_path, GOOD + runs.replace(*wrong, 1)))


def test_a_teacher_of_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score\.image: teacher 'image' sees optical flow"):
        load_recipe(write(tmp_path, GOOD), ["teachers.image.input.modality=flow"])


def test_unanimous_teachers_are_several(tmp_path: Path) -> None:
    runs = "runs:\n  all: {sources: [target, images]}\n  again: {sources: [target, images], teacher: all}\n"
    for text, overrides in (
        (GOOD, []),
        (GOOD, ["score.clip=[video, video]"]),
        (GOOD, ["seeds=[0, 1]"]),  # no student teaches
        (GOOD + runs, []),  # a single student teaches
    ):
        with pytest.raises(UserError, match=r"select.unanimous: no unit has several teachers"):
            load_recipe(write(tmp_path, text), ["select.unanimous=true", *overrides])
    for text, overrides in ((GOOD, ["score.clip=[image, video]"]), (GOOD + runs, ["seeds=[0, 1]"])):
        assert load_recipe(write(tmp_path, text), ["select.unanimous=true", *overrides]).select.unanimous


def test_what_goes_with_nothing_else_is_refused(tmp_path: Path) -> None:
    init, given = "student.network.init", "student.input"
    for settings, why in (
        ([f"{init}.imagenet=a.pth", f"{init}.checkpoint=b.pth"], "imagenet or checkpoint, not both"),
        ([f"{given}.prepared=true", f"{given}.modality=flow"], "prepared media have no flow"),
    ):
        with pytest.raises(UserError, match=why):
            load_recipe(write(tmp_path, GOOD), settings)
        for alone in settings:
            load_recipe(write(tmp_path, GOOD), [alone])


def test_templates_of_queries_hold_the_name_and_no_other_braces(tmp_path: Path) -> None:
    good = load_recipe(write(tmp_path, GOOD), ["collect.templates=['{name}', 'a {name} in {name}']"])
    assert good.collect.templates == ["{name}", "a {name} in {name}"]
    for wrong in ("a name", "{name} {", "{name} }", "{name} {place}", "{}"):
        with pytest.raises(UserError, match=r"must hold \{name\} and no other braces"):
            load_recipe(write(tmp_path, GOOD), [f"collect.templates=['{wrong}']"])


def test_a_source_of_files_may_be_written_in_short(tmp_path: Path) -> None:
    (short,) = load_recipe(write(tmp_path, GOOD), ["collect.sources=['urls : lists/a:b.txt ']"]).collect.sources
    assert (short.name, short.argument) == ("urls", "lists/a:b.txt")
    assert [short] == load_recipe(
        write(tmp_path, GOOD), ["collect.sources=[{name: urls, argument: 'lists/a:b.txt'}]"]
    ).collect.sources


def test_class_names_stand_in_a_file_one_a_line(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["classes=names.txt", f"data={tmp_path}"])
    (tmp_path / "names.txt").write_text(" jump \n\nwave\n")
    assert recipe.class_list() == ["jump", "wave"]
    (tmp_path / "names.txt").write_text("\n \n")
    with pytest.raises(UserError, match="names no class"):
        recipe.class_list()


def test_names_lead_nowhere(tmp_path: Path) -> None:
    for name in ("../x", "a/b", "", ".hidden", "x" * 99):
        with pytest.raises(UserError, match="is no name"):
            load_recipe(write(tmp_path, GOOD + f"runs:\n  '{name}': {{sources: [target]}}\n"))


def test_a_run_changes_the_student(tmp_path: Path) -> None:
    runs = "runs:\n  mixed: {sources: [target], set: {mixup.kind: cross}}\n"
    assert load_recipe(write(tmp_path, GOOD + runs)).student_of("mixed").mixup.kind == "cross"
    with pytest.raises(UserError, match=r"runs.mixed.set: unknown key 'mixup.knid'; did you mean 'kind'"):
        load_recipe(write(tmp_path, GOOD + runs.replace("mixup.kind", "mixup.knid")))
    for key in ("camera.pairs: 9", "camera: {pairs: 9}"):
        with pytest.raises(UserError, match=r"runs\.mixed\.set: camera\.pairs is of the one camera.*student\.camera"):
            load_recipe(write(tmp_path, GOOD + runs.replace("mixup.kind: cross", key)))


NONSENSE = {
    "student.epochs": ("0", "-1", ".nan", ".inf", "1e9"),
    "student.input.size": ("0", "-8", "1e9", "1.5"),
    "student.input.frames": ("0", "1000000000"),
    "student.batch.target": ("0", "1000000000"),
    "student.input.std": ("[0, 1, 1]", "[1, .inf, 1]"),
    "student.optimiser.lr": ("0", ".nan", "-0.1"),
    "student.mixup.alpha": ("0", "1e4", "1e-20"),
    "student.workers": ("-1", "1000000"),
    "student.threads": ("0", "1000000"),
    "score.window_s": ("0", "1e-9", ".inf"),
    "score.hop_s": ("-1", "1e-9"),
    "select.threshold": ("-0.1", "1.1", ".nan"),
    "select.calibrate.temperature": ("-1", "1e-300", "1e9"),
    "dedupe.threshold": ("2", ".nan"),
    "dedupe.frames": ("0", "1000000000"),
    "test.clips": ("0", "1000000000"),
    "test.bootstrap": ("-1", "1000000000"),
    "probe.limits.timeout_s": ("0", ".inf"),
    "seeds": ("[0, 0]", "[-1]", "[]"),
    "seed": ("0x" + "f" * 5000,),
    "data": ("[]", "~nobody-of-this-name", '"\\0"'),
}


@pytest.mark.parametrize("key", NONSENSE)
def test_numbers_that_make_no_sense_are_refused_by_name(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, GOOD)
    for value in NONSENSE[key]:
        with pytest.raises(UserError) as caught:
            load_recipe(path, [f"{key}={value}"])
        said = str(caught.value)
        assert f"'{key}" in said and "constrained" not in said and "\n" not in said and len(said) < 600


def test_a_section_that_is_null_can_be_set_by_key(tmp_path: Path) -> None:
    runs = "runs: {sure: {sources: [target], set: {consistency.weight: 2}}, plain: {sources: [target]}}\n"
    recipe = load_recipe(write(tmp_path, GOOD + runs))
    assert recipe.student_of("sure").consistency == Consistency(weight=2)
    assert recipe.student_of("plain").consistency is None
    runs = "runs: {both: {sources: [target], set: {consistency.weight: 2, mixup.kind: cross}}}\n"
    with pytest.raises(UserError, match=r"consistency with mixup: .*; set mixup.kind to off, or consistency to null"):
        load_recipe(write(tmp_path, GOOD + runs))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("? [a, b]\n: 1\n", "unhashable key"),
        ("1: 2\n", "keys should be strings"),
        ("\tx: 2\n", "cannot start any token"),
        ("x: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("? " * 5000, "nested too deeply"),
        ("x: " + "[" * 100_000, "nested too deeply"),
        ("x: &a [1]\ny: &a [2]\n", "not valid YAML"),
        ("---\nname: other\n", "another document"),
        ("seed: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_odd_yaml_is_refused_in_a_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, GOOD + text))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
