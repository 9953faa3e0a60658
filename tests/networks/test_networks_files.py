"""Files of weights: ours and foreign, whole and hostile; the command line over them."""

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import foreign
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from omnisource import networks
from omnisource.cli import app
from omnisource.errors import UserError
from omnisource.networks.checkpoint import read_header
from omnisource.networks.files import read_weights

META = networks.Meta(classes=("run", "walk"), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), frames=4, stride=16, size=64)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    network = networks.create("slowonly_r18", 2, base_width=8, dropout=0.25)
    networks.save_checkpoint(tmp_path / "ours.safetensors", network, META)
    return tmp_path / "ours.safetensors"


def test_a_checkpoint_comes_back_as_it_was(ours: Path) -> None:
    network, meta = networks.load_checkpoint(ours)
    assert (network.name, network.num_classes, network.dropout.p, meta) == ("slowonly_r18", 2, 0.25, META)
    assert not network.training and all(p.requires_grad for p in network.parameters())
    again = ours.with_name("again.safetensors")
    networks.save_checkpoint(again, network, meta)
    assert read_header(again) == read_header(ours)
    assert again.read_bytes() == ours.read_bytes()  # recipes know weights by their content
    first, second = network.state_dict(), networks.load_checkpoint(again)[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first) and first.keys() == second.keys()
    assert [p.name for p in ours.parent.iterdir() if p.suffix == ".part"] == []


def test_class_names_must_match(tmp_path: Path) -> None:
    network = networks.create("slowonly_r18", 3, base_width=8)
    with pytest.raises(UserError, match="2 class names for a network of 3 classes"):
        networks.save_checkpoint(tmp_path / "x.safetensors", network, META)
    assert not (tmp_path / "x.safetensors").exists()


def test_checkpoints_that_are_damaged_or_foreign_are_refused(ours: Path) -> None:
    whole, bad = ours.read_bytes(), ours.with_name("bad.safetensors")
    header, state = read_header(ours), {k: v.clone() for k, v in networks.load_checkpoint(ours)[0].state_dict().items()}
    state = {key: value.contiguous() for key, value in state.items()}
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04", os.urandom(4096)):
        bad.write_bytes(content)
        with pytest.raises(UserError, match="not a whole safetensors file"):
            networks.load_checkpoint(bad)
    with pytest.raises(UserError, match="no such file"):
        networks.load_checkpoint(ours.with_name("none.safetensors"))
    save_file(state, bad)
    with pytest.raises(UserError, match="omnisource weights convert"):
        networks.load_checkpoint(bad)
    for change in (
        {"network": "slowonly_r19"},
        {"num_classes": "many"},
        {"options": '{"base_width": 1000000000000}'},
        {"options": '{"recompute": true}'},
        {"meta": '{"std": [0, 0, 0]}'},
        {"meta": "[]"},
        {"meta": '{"classes": ["run"]}'},
    ):
        save_file(state, bad, {**header, **change})
        with pytest.raises(UserError, match="the header is damaged"):
            networks.load_checkpoint(bad)
    save_file(state, bad, {**header, "num_classes": "3", "meta": "{}"})
    with pytest.raises(UserError, match=r"head\.(bias|weight) is \(2,"):
        networks.load_checkpoint(bad)
    state["head.bias"][0] = float("inf")
    save_file(state, bad, header)
    with pytest.raises(UserError, match="not finite"):
        networks.load_checkpoint(bad)


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state", "module"])
def test_foreign_files_are_unwrapped(tmp_path: Path, wrapper: str) -> None:
    state = {"conv1.weight": torch.ones(2)}
    if wrapper == "module":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "x.pth")
    else:
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "x.pth")
    assert torch.equal(read_weights(tmp_path / "x.pth")["conv1.weight"], torch.ones(2))


@pytest.mark.parametrize("prefix", ["module.", "model.", "module._orig_mod."])
def test_prefixes_and_averages_are_taken_off(tmp_path: Path, prefix: str) -> None:
    last, mean = torch.zeros(2), torch.ones(2)
    averaged = {"n_averaged": torch.tensor(5), f"{prefix}conv1.weight": mean}
    torch.save({"model": {"conv1.weight": last}, "model_ema": averaged}, tmp_path / "torchvision.pth")
    torch.save({"state_dict": {"conv1.weight": last}, "state_dict_ema": averaged}, tmp_path / "timm.pth")
    torch.save(averaged, tmp_path / "alone.pth")
    for name in ("torchvision.pth", "timm.pth", "alone.pth"):
        found = read_weights(tmp_path / name)
        assert found.keys() == {"conv1.weight"} and torch.equal(found["conv1.weight"], mean)


def test_mmaction_keeps_the_average_under_state_dict(tmp_path: Path) -> None:
    swapped = {"steps": torch.tensor(3), "module.backbone.conv1.conv.weight": torch.zeros(2)}  # those of the last step
    torch.save(
        {"state_dict": {"backbone.conv1.conv.weight": torch.ones(2)}, "ema_state_dict": swapped}, tmp_path / "m.pth"
    )
    assert torch.equal(read_weights(tmp_path / "m.pth")["backbone.conv1.conv.weight"], torch.ones(2))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_a_file_that_wants_to_run_code_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"conv1.weight": _Bomb()}}, "bomb.pth")
    Path("bomb.pkl").write_bytes(pickle.dumps({"blobs": _Bomb()}))
    for name in ("bomb.pth", "bomb.pkl"):
        with pytest.raises(UserError, match="refused"):
            read_weights(Path(name))
    assert not Path("ran").exists()


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for content in (whole[:700], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_weights(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(UserError, match="would unpack"):
        read_weights(path)
    for content, says in (
        ([1, 2], "holds no weights"),
        ({"a": 3}, "is a int"),
        ({}, "holds no weights"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is sparse or has no numbers"),
        ({"a": torch.zeros(2, device="meta")}, "'a' is sparse or has no numbers"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=says):
            read_weights(path)
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "none.pth")


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    weights = {"a": torch.arange(3.0)}
    save_file(weights, tmp_path / "safe.pth")
    torch.save(weights, tmp_path / "zip.safetensors")
    torch.save(weights, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("safe.pth", "zip.safetensors", "old.safetensors"):
        assert torch.equal(read_weights(tmp_path / name)["a"], weights["a"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    makers = {
        "a folder": path.mkdir,
        "no plain file": lambda: os.mkfifo(path),
        "cannot be read": lambda: path.symlink_to(path),
        "use another": path.touch,
    }
    for says, make in makers.items():
        make()
        for read in (read_weights, networks.load_checkpoint):
            with pytest.raises(UserError, match=says):
                read(path)
        path.rmdir() if says == "a folder" else path.unlink()
    with path.open("wb") as file:
        file.truncate(5 * 2**30)  # of holes
    for read in (read_weights, networks.load_checkpoint):
        with pytest.raises(UserError, match="use another"):
            read(path)


def test_convert_and_show_on_the_command_line(tmp_path: Path) -> None:
    run = CliRunner()
    source, target = tmp_path / "r18.pth", tmp_path / "r18.safetensors"
    torch.save({"state_dict": foreign.torchvision_resnet(18, 10)}, source)
    shown = run.invoke(app, ["weights", "show", str(source)])
    assert shown.exit_code == 0 and "tsn_r18 (layout torchvision-resnet)" in shown.output
    done = run.invoke(app, ["weights", "convert", str(source), str(target), "--network", "tsn_r18"])
    assert done.exit_code == 0 and "layout torchvision-resnet" in done.output
    network, meta = networks.load_checkpoint(target)
    assert (network.num_classes, meta.frames, meta.origin) == (10, 3, "r18.pth")
    shown = run.invoke(app, ["weights", "show", str(target)])
    assert shown.exit_code == 0 and "10 (names unknown)" in shown.output and "r18.pth" in shown.output
    args = ["weights", "convert", str(source), str(target), "--network", "tsn_r18", "--new-classes", "4"]
    assert "started anew" in run.invoke(app, args).output
    assert networks.load_checkpoint(target)[0].num_classes == 4


def test_a_conversion_states_normalisation_origin_and_licence(tmp_path: Path) -> None:
    source, target = tmp_path / "r18.pth", tmp_path / "r18.safetensors"
    torch.save(foreign.torchvision_resnet(18, 10), source)
    given = ["--network", "tsn_r18", "--origin", "https://example.org/r18.pth", "--licence", "CC-BY-4.0"]
    (tmp_path / "names.txt").write_text("".join(f"action {n}\n" for n in range(10)) + "\n")
    given += ["--classes", str(tmp_path / "names.txt")]
    given += ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--white", "1"]
    done = CliRunner().invoke(app, ["weights", "convert", str(source), str(target), *given])
    assert done.exit_code == 0, done.output
    meta = networks.load_checkpoint(target)[1]
    assert meta.mean == pytest.approx((123.675, 116.28, 103.53)) and meta.std == pytest.approx((58.395, 57.12, 57.375))
    assert (meta.origin, meta.licence) == ("https://example.org/r18.pth", "CC-BY-4.0")
    assert meta.classes[::9] == ("action 0", "action 9")
    networks.convert_file(source, target, "tsn_r18", mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0))
    meta = networks.load_checkpoint(target)[1]
    assert (meta.mean, meta.std, meta.origin) == ((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "r18.pth")


def test_one_of_ours_says_the_same_of_itself_when_its_classes_are_named(tmp_path: Path) -> None:
    """The layout's normalisation and the network's default options are not its own."""
    source, named, fresh = (tmp_path / f"{name}.safetensors" for name in ("source", "named", "fresh"))
    network = networks.create("ircsn_r50", 2, base_width=8, norm_eps=1e-5, dropout=0.25)
    meta = replace(META, classes=(), licence="MIT", notes={"short_side": 70})
    networks.save_checkpoint(source, network, meta)
    networks.convert_file(source, named, "ircsn_r50", classes=META.classes)
    again, found = networks.load_checkpoint(named)
    assert again.options["norm_eps"] == 1e-5
    assert found == replace(meta, classes=META.classes, origin="source.safetensors")
    networks.convert_file(named, fresh, "ircsn_r50", new_classes=3, licence="CC0")
    assert networks.load_checkpoint(fresh)[1] == replace(found, classes=(), licence="CC0")
    with pytest.raises(UserError, match="names 'run' twice"):
        networks.convert_file(source, fresh, "ircsn_r50", classes=("run", "run"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--network", "tsn_r81"], "tsn_r18"),
        (["--network", "tsn_r50"], "are missing from the file"),
        (["--network", "tsn_r18", "--layout", "vmz"], "keys are unknown"),
        (["--network", "tsn_r18", "--option", "width"], "KEY=VALUE"),
        (["--network", "tsn_r18", "--option", "base_width=32"], "not"),
        (["--network", "tsn_r18", "--option", "mean=1"], "KEY=VALUE"),
        (["--network", "tsn_r18", "--classes", __file__], "the network has 10"),
        (["--network", "tsn_r18", "--classes", os.devnull], "names no class; write one a line"),
        (["--network", "tsn_r18", "--classes", "none.txt"], "none.txt: the file of --classes cannot be read"),
        (["--network", "tsn_r18", "--mean", "1,2,3"], "give --mean and --std both"),
        (["--network", "tsn_r18", "--white", "1"], "give --mean and --std both"),
        (["--network", "tsn_r18", "--mean", "1,2,three", "--std", "1,1,1"], "a number per channel"),
        (["--network", "tsn_r18", "--mean", "1,2", "--std", "1,1,1"], "--mean has 2 numbers, but the network takes 3"),
        (["--network", "tsn_r18", "--mean", "1,nan,2", "--std", "1,1,1"], "not finite"),
        (["--network", "tsn_r18", "--mean", "1,2,3", "--std", "1,0,1"], "--std must be positive"),
        (["--network", "tsn_r18", "--mean", "0.5,0.5,0.4", "--std", "0.2,0.2,0.2"], "add --white 1"),
        (
            ["--network", "tsn_r18", "--mean", "123,116,103", "--std", "0.2,0.2,0.2", "--white", "1"],
            "leave out --white",
        ),
        (["--network", "tsn_r18", "--mean", "1,2,3", "--std", "1,1,1", "--white", "128"], "1 or 255, not 128"),
    ],
)
def test_a_conversion_that_fails_writes_nothing(tmp_path: Path, arguments: list[str], says: str) -> None:
    source, target = tmp_path / "r18.pth", tmp_path / "out.safetensors"
    torch.save(foreign.torchvision_resnet(18, 10), source)
    done = CliRunner().invoke(app, ["weights", "convert", str(source), str(target), *arguments])
    assert isinstance(done.exception, UserError) and says in str(done.exception)
    assert "\n" not in str(done.exception) and not target.exists()


def test_a_conversion_writes_only_where_it_may(tmp_path: Path) -> None:
    source, file = tmp_path / "flow.safetensors", tmp_path / "file"
    save_file({"a": torch.zeros(1)}, source)
    file.touch()
    for target, says in ((source, "is the file to convert"), (tmp_path / "out.pth", "name it out.safetensors")):
        with pytest.raises(UserError, match=says):
            networks.convert_file(source, target, "tsn_r18")
    with pytest.raises(UserError, match="can't be written"):
        networks.save_checkpoint(file / "x.safetensors", networks.create("tsn_r18", 2, base_width=8), networks.Meta())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "flow.safetensors"]


def test_flow_weights_keep_their_two_channels(tmp_path: Path) -> None:
    torch.save(foreign.pytorch_i3d(2), tmp_path / "flow.pt")
    networks.convert_file(tmp_path / "flow.pt", tmp_path / "flow.safetensors", "i3d_inception")
    network, meta = networks.load_checkpoint(tmp_path / "flow.safetensors")
    assert (network.in_channels, meta.mean, meta.frames) == (2, (127.5, 127.5), 64)
