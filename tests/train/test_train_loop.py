"""The loop: Eq. 1, its options, and what it refuses."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_small import CLASSES, Small, settings

from omnisource.clips import Camera
from omnisource.clips.camera import Gaussian
from omnisource.errors import UserError
from omnisource.media import DEFAULT_LIMITS
from omnisource.networks import load_checkpoint, takes_frames
from omnisource.recipe import Training
from omnisource.train import Pool, build_pool, train
from omnisource.train.begin import identity_of
from omnisource.train.distributed import Ranks
from omnisource.train.inputs import make_inputs
from omnisource.train.loader import Batch, Loader, Quarantine
from omnisource.train.loop import Trainer
from omnisource.train.record import load_state, write_run

CPU = Ranks(0, 1, torch.device("cpu"))


def training_of(network: str = "slowonly_r18", **changes: Any) -> Training:
    return Training.model_validate(settings(network) | changes)


def pool_of(small: Small, training: Training, *sources: str) -> Pool:
    names = sources or tuple(small.recipe.sources)
    return build_pool(small.recipe, small.workspace, names, takes_frames(training))


def trainer_of(small: Small, folder: Path, training: Training, *sources: str) -> Trainer:
    pool = pool_of(small, training, *sources)
    return Trainer(training, pool, folder, 5, CPU, validation=None, camera=None, limits=DEFAULT_LIMITS)


def batch_of(trainer: Trainer, step: int = 0) -> Batch:
    loader = Loader(trainer.plan, trainer.reading, Quarantine(trainer.folder), workers=0)
    return next(loader.batches(step, step + 1))


def gradients(trainer: Trainer, batch: Batch) -> dict[str, torch.Tensor]:
    """The gradients of Eq. 1 on a batch, without a step."""
    trainer.optimiser.step = lambda closure=None: None  # type: ignore[method-assign]
    trainer.take_step(batch)
    return {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}


UNCLIPPED = {"kind": "sgd", "lr": 0.1, "clip_grad": None}


@pytest.mark.parametrize("network", ["slowonly_r18", "tsn_r18"])
@pytest.mark.parametrize("mixup", ["off", "cross"])
def test_accumulation_gives_the_gradients_of_one_forward_pass(
    small_tables: Small, tmp_path: Path, network: str, mixup: str
) -> None:
    values = settings(network) | {"optimiser": UNCLIPPED, "mixup": {"kind": mixup}}
    values["network"] |= {"norm": "frozen"}  # statistics of a batch depend on what stands in it
    found = []
    for accumulate in (False, True):
        training = Training.model_validate(values | {"accumulate": accumulate})
        trainer = trainer_of(small_tables, tmp_path / str(accumulate), training)
        found.append(gradients(trainer, batch_of(trainer)))
    together, apart = found
    assert together.keys() == apart.keys()
    for name in together:
        torch.testing.assert_close(together[name], apart[name], rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_sum_of_equation_1(small_tables: Small, tmp_path: Path) -> None:
    """Gradients against those of the formula, written out with torch alone."""
    values = settings("slowonly_r18") | {"optimiser": UNCLIPPED, "loss_weight": {"images": 0.25}}
    values["network"] |= {"norm": "frozen"}
    values["input"] |= {"flip": 0.0}
    training = Training.model_validate(values)
    trainer = trainer_of(small_tables, tmp_path, training)
    batch = batch_of(trainer)
    found = gradients(trainer, batch)

    mean, std = (torch.tensor(v) for v in (training.input.mean, training.input.std))
    clips = torch.zeros(len(batch.slot), 4, 32, 32, 3)
    for group in batch.groups:
        clips[group.rows] = torch.from_numpy(group.pixels).float()  # images stand still: they are repeated over time
    logits = trainer.network(((clips - mean) / std).permute(0, 4, 1, 2, 3))
    label = torch.from_numpy(trainer.pool.label[batch.unit]).long()
    each = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    source = np.array(trainer.pool.sources)[trainer.pool.source[batch.unit]]
    assert source.tolist() == ["clips"] * 4 + ["images"] * 2 + ["shorts"] * 2 + ["films"] * 2
    loss = (each[:4].sum() + 0.25 * each[4:6].sum() + each[6:].sum()) / 4
    trainer.network.zero_grad()
    loss.backward()
    for name, parameter in trainer.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_mixed_label_has_the_weight_of_its_own_source(small_tables: Small, tmp_path: Path) -> None:
    weights = {"images": 0.0, "shorts": 0.25}
    training = training_of(mixup={"kind": "cross", "alpha": 1.0}, loss_weight=weights)
    trainer = trainer_of(small_tables, tmp_path, training)
    batch = batch_of(trainer)
    found = make_inputs(batch, trainer.pool, training, False, CPU.device)
    source = np.array(trainer.pool.sources)[trainer.pool.source[batch.unit]]
    label = np.eye(len(CLASSES))[trainer.pool.label[batch.unit]]
    counts = label * np.array([weights.get(name, 1.0) for name in source])[:, None]
    share, partner = batch.slots.weight[:, None], batch.slots.partner
    wanted = share * counts + (1 - share) * counts[partner]
    got = found.labels * (found.sureness * found.weight)[:, None]
    torch.testing.assert_close(got, torch.from_numpy(wanted).float())
    assert {source[slot] for slot in partner[:4]} > {"images"} and (share < 1).all()


def log_of(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("slowonly_r18", {"norm_per_source": True}),
        ("slowonly_r18", {"checkpointing": True, "precision": "bf16"}),
        ("slowonly_r18", {"precision": "fp16"}),
        ("slowonly_r18", {"mixup": {"kind": "within"}, "label_smoothing": 0.1, "ema": 0.5}),
        (
            "slowonly_r18",
            {"optimiser": {"kind": "adamw", "decay_norms": False, "schedule": "step", "trunk_lr_scale": 0.1}},
        ),
        ("tsn_r18", {"optimiser": {"trunk_lr_scale": 0.0}}),
        ("tsn_r18", {"snippets": {"kind": "random"}, "accumulate": True}),
        ("tsn_r18", {"snippets": {"kind": "positives-only"}, "mixup": {"kind": "cross"}}),
        ("tsn_r18", {"snippets": {"kind": "window"}, "mixup": {"kind": "cross"}}),
    ],
)
def test_options_train(small_tables: Small, tmp_path: Path, network: str, changes: dict[str, Any]) -> None:
    training = training_of(network, **changes)
    result = train(training, pool_of(small_tables, training), tmp_path, 1)
    assert math.isfinite(result.loss) and result.steps == 8
    assert log_of(tmp_path)[0]["lr"] == pytest.approx(training.optimiser.lr)  # the rate itself, not the trunk's share
    assert load_checkpoint(result.checkpoint)[1].classes == tuple(CLASSES)


def test_steps_that_fp16_skips_are_counted(small_tables: Small, tmp_path: Path) -> None:
    """Their gradients are not finite: they stay out of the mean, and the log stays JSON."""
    trainer = trainer_of(small_tables, tmp_path, training_of(precision="fp16"))
    batch = batch_of(trainer)
    sums, _ = trainer.take_step(batch)
    for norms in ((math.inf, 2.0, 4.0), (math.nan,)):
        for norm in norms:
            trainer._account(batch, sums.clone(), norm, False, False)
        trainer.at.seconds = 1.0
        trainer._write_line()
    rows = log_of(tmp_path)
    assert [(row["gradient_norm"], row["skipped"]) for row in rows] == [(3.0, 1), (None, 1)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_to_about_the_same_loss(small_tables: Small, tmp_path: Path, precision: str) -> None:
    losses = []
    for name in ("fp32", precision):
        training = training_of(precision=name, optimiser={"lr": 0.005})
        losses.append(train(training, pool_of(small_tables, training), tmp_path / name, 1).loss)
    assert losses[0] != losses[1] and math.isclose(*losses, rel_tol=0.05)


@pytest.mark.slow  # the compiler takes half a minute
def test_a_compiled_network_trains_to_the_same_loss(small_tables: Small, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    losses = []
    for compiled in (False, True):
        training = training_of(compile=compiled, optimiser={"lr": 0.005})
        losses.append(train(training, pool_of(small_tables, training), tmp_path / str(compiled), 1).loss)
    assert math.isclose(*losses, rel_tol=1e-3)
    assert load_checkpoint(tmp_path / "True" / "last.safetensors")[0].name == "slowonly_r18"


def test_images_under_a_fitted_camera_are_moving_clips(small_tables: Small, tmp_path: Path) -> None:
    training = training_of(camera={"mode": "homography"}, input=settings("slowonly_r18")["input"] | {"flip": 0.0})
    pan = Camera(2, Gaussian(np.tile([0.06, 0.0], 4), np.zeros((8, 8)), 100))
    pool = pool_of(small_tables, training, "clips", "images")
    trainer = Trainer(training, pool, tmp_path, 5, CPU, validation=None, camera=pan, limits=DEFAULT_LIMITS)
    batch = batch_of(trainer)
    inputs = make_inputs(batch, pool, training, False, CPU.device)
    kinds = [pool.unit(int(number)).kind for number in batch.unit]
    assert kinds.count("image") == 2 and len(inputs.clips) == 1 and inputs.clips[0].shape == (6, 3, 4, 32, 32)
    for row, clip in zip(inputs.rows[0].tolist(), inputs.clips[0], strict=True):
        if kinds[row] != "image":
            continue
        # A steady pan: each frame is the one before, shifted; the best shift is the same all along, and not none.
        shifts = [best_shift(clip[:, number], clip[:, number + 1]) for number in range(3)]
        assert len(set(shifts)) == 1 and shifts[0] != 0


def best_shift(before: torch.Tensor, after: torch.Tensor) -> int:
    """By how many pixels to the left the picture moved between two frames (C, H, W)."""
    middle = after[..., 6:-6]
    errors = {by: (before[..., 6 + by : before.shape[2] - 6 + by] - middle).square().mean() for by in range(-5, 6)}
    return min(errors, key=lambda by: float(errors[by]))


def test_a_training_learns(small_tables: Small, tmp_path: Path) -> None:
    training = training_of(epochs=30, optimiser={"lr": 0.05}, batch={"target": 8}, validate_every=15)
    pool = pool_of(small_tables, training)
    validation = build_pool(small_tables.recipe, small_tables.workspace, ["clips"], False, "val")
    train(training, pool, tmp_path, 1, validation=validation)
    rows = log_of(tmp_path)
    assert rows[-1]["sources"]["clips"]["loss"] < 0.5 * rows[0]["sources"]["clips"]["loss"]
    assert [row["step"] for row in log_of(tmp_path, "validation")] == [30, 60]
    assert log_of(tmp_path, "validation")[-1]["samples"] == 4
    assert load_checkpoint(tmp_path / "best.safetensors")[1].notes["best"] is not None


def test_label_smoothing_raises_the_floor_of_the_loss(small_tables: Small, tmp_path: Path) -> None:
    plain, smooth = training_of(), training_of(label_smoothing=0.5)
    batches = []
    for name, training in (("plain", plain), ("smooth", smooth)):
        trainer = trainer_of(small_tables, tmp_path / name, training, "clips")
        with torch.no_grad():
            trainer.network.head.weight.mul_(200)  # sure of itself
        sums, _ = trainer.take_step(batch_of(trainer))
        batches.append(sums[0, 0])
    assert batches[0] != batches[1]


def test_norm_per_source_keeps_the_statistics_of_the_target(small_tables: Small, tmp_path: Path) -> None:
    """With it, running statistics after a step are those of the target's clips alone."""

    def statistics(name: str, per_source: bool, *sources: str) -> torch.Tensor:
        training = training_of(norm_per_source=per_source)
        trainer = trainer_of(small_tables, tmp_path / name, training, *sources)
        trainer.take_step(batch_of(trainer))
        return next(value for key, value in trainer.network.state_dict().items() if key.endswith("running_mean"))

    alone = statistics("alone", False, "clips")
    apart = statistics("apart", True)
    joint = statistics("joint", False)
    torch.testing.assert_close(alone, apart)
    assert not torch.allclose(joint, apart)


def test_soft_pseudo_labels_are_the_labels(small: Small, tmp_path: Path) -> None:
    import pyarrow as pa

    from omnisource.tables import read_table, write_table

    path = small.workspace.table("decisions-default")
    table = read_table(path)
    soft = [[0.5, 0.25, 0.25] if unit == "image" else None for unit in table["unit"].to_pylist()]
    column = table.schema.get_field_index("probs")
    write_table(path, table.set_column(column, "probs", pa.array(soft, pa.list_(pa.float32()))))
    trainer = trainer_of(small, tmp_path, training_of(), "clips", "images")
    inputs = make_inputs(batch_of(trainer), trainer.pool, trainer.training, False, torch.device("cpu"))
    assert inputs.labels[:4].max(1).values.tolist() == [1.0] * 4
    assert inputs.labels[4:].tolist() == [[0.5, 0.25, 0.25]] * 2
    assert inputs.sureness.tolist() == [1.0] * 6
    # Weighted by confidence, an image whose label is half sure counts half, in the loss and so in its gradient.
    sure = trainer_of(small, tmp_path / "sure", training_of(confidence_weighted=True), "clips", "images")
    weighted = make_inputs(batch_of(sure), sure.pool, sure.training, False, torch.device("cpu"))
    assert weighted.sureness.tolist() == [1.0] * 4 + [0.5] * 2 and torch.equal(weighted.labels, inputs.labels)
    plain, halved = (one.take_step(batch_of(one))[0] for one in (trainer, sure))
    torch.testing.assert_close(halved[0], plain[0])
    torch.testing.assert_close(halved[1, 0], plain[1, 0] / 2)
    assert not torch.allclose(trainer.network.head.weight, sure.network.head.weight)


def test_low_precision_that_computes_something_else_is_refused(small_tables: Small, tmp_path: Path) -> None:
    """A kernel that shifts its output in bf16 alone stands for the bugs that vendors' libraries have had."""

    def shifted(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output.roll(1, dims=-1) * 2 if torch.is_autocast_enabled("cpu") else output

    trainer = trainer_of(small_tables, tmp_path, training_of(precision="bf16"), "clips")
    trainer._check_precision(batch_of(trainer))
    trainer.network.get_submodule("stem").register_forward_hook(shifted)
    with pytest.raises(UserError, match="bf16 gives other gradients than fp32"):
        trainer._check_precision(batch_of(trainer))


def test_a_pass_too_small_for_norms_is_named(small_tables: Small, tmp_path: Path) -> None:
    trainer = trainer_of(small_tables, tmp_path, training_of(), "clips")
    clip = torch.zeros(1, 3, 1, 32, 32)
    with pytest.raises(UserError, match=r"network.norm: of one clip of 32 pixels alone"):
        trainer.objective._logits(clip)
    trainer.close()


def test_a_loss_that_is_not_finite_stops_with_the_step_and_its_samples(small_tables: Small, tmp_path: Path) -> None:
    training = training_of(optimiser={"clip_grad": None}, epochs=4)
    # No recipe may ask for that.
    training = training.model_copy(update={"optimiser": training.optimiser.model_copy(update={"lr": 1e30})})
    with pytest.raises(UserError, match=r"the loss of step \d+ is .*diverged.json, the last good checkpoint is"):
        train(training, pool_of(small_tables, training), tmp_path, 1)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert len(report["samples"]) == 10 and report["samples"][0]["source"] == "clips"


def test_a_shared_optimiser_is_kept_by_names_by_one_process_too(small_tables: Small, tmp_path: Path) -> None:
    """So that another number of processes can go on with it."""
    training = training_of(parallel="fsdp", optimiser={"kind": "adamw", "lr": 0.001, "trunk_lr_scale": 0.5})
    one, other = (trainer_of(small_tables, tmp_path / name, training, "clips") for name in ("one", "other"))
    one.take_step(batch_of(one))
    one.checkpoint()
    state = load_state(tmp_path / "one")
    assert state is not None
    assert state["optimiser"]["state"].keys() == dict(one.network.named_parameters()).keys()
    other.restore(state)
    for trainer in (one, other):
        trainer.take_step(batch_of(trainer, 1))
        trainer.close()
    wanted = one.network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in other.network.state_dict().items())


def test_a_finished_run_whose_files_are_damaged_is_named(small_tables: Small, tmp_path: Path) -> None:
    training = training_of()
    pool = pool_of(small_tables, training, "clips")
    trainer = trainer_of(small_tables, tmp_path / "run", training, "clips")
    trainer._save_network("last.safetensors")
    trainer.close()
    known = {"checkpoint": "x", "steps": 8, "epochs": 2, "units": {}, "batch": {}, "loss": 1.0, "best": None}
    identity = identity_of(training, pool, 1)
    write_run(tmp_path / "run", {"identity": identity, "finished": True, "result": known | {"quarantined": 0}})
    (tmp_path / "run" / "state.pt").touch()  # it was killed between its end and the last of its work
    last, log = (tmp_path / "run" / name for name in ("last.safetensors", "log.jsonl"))
    assert train(training, pool, tmp_path / "run", 1).steps == 8
    assert not (tmp_path / "run" / "state.pt").exists()
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"last.safetensors: damaged, though .* delete the run's folder"):
        train(training, pool, tmp_path / "run", 1)
    trainer._save_network("last.safetensors")
    log.unlink()
    with pytest.raises(UserError, match=r"log.jsonl: gone, though"):
        train(training, pool, tmp_path / "run", 1)


def test_a_changed_run_is_refused_with_what_changed(small_tables: Small, tmp_path: Path) -> None:
    pool, first = pool_of(small_tables, training_of()), training_of(epochs=50)
    trainer = trainer_of(small_tables, tmp_path / "run", first)
    write_run(tmp_path / "run", {"identity": identity_of(first, pool, 1), "finished": False})
    trainer.checkpoint()
    trainer.close()
    other = training_of("slowonly_r34", epochs=1)
    with pytest.raises(UserError, match=r'training.network.name: "slowonly_r18" -> "slowonly_r34".*--allow-changed'):
        train(other, pool, tmp_path / "run", 1)
    with pytest.raises(UserError, match=r"seed: 1 -> 2"):
        train(first, pool, tmp_path / "run", 2)
    fewer = pool_of(small_tables, first, "clips")
    with pytest.raises(UserError, match=r"units.digest"):
        train(first, fewer, tmp_path / "run", 1)
    with pytest.raises(UserError, match=r"checkpoint is of another network or optimiser"):
        train(other, pool, tmp_path / "run", 1, changed="continue")
    assert train(other, pool, tmp_path / "run", 1, changed="anew").steps == 4
    assert (tmp_path / "run.replaced" / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "torch sees no GPU"),
        ({"device": "tpu!"}, "not a device"),
        ({"validate_every": 1}, "no val split"),
        ({"camera": {"mode": "homography"}}, "no camera was fitted"),
        ({"batch": {"target": 17}}, "only 16 units"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    small_tables: Small, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "cuda" in str(changes.get("device")) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    training = training_of(**changes)
    with pytest.raises(UserError, match=message):
        train(training, pool_of(small_tables, training_of()), tmp_path, 1)
