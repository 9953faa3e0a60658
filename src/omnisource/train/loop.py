"""The training loop: one optimiser step per iteration over the summed losses of all sources (objective.py).

Everything random follows from (seed, step), so a training that continues from a checkpoint does what it would have
done without the break.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from omnisource.clips import FLOW_MEAN, FLOW_STD, Camera
from omnisource.errors import UserError
from omnisource.media import Failure, Limits
from omnisource.networks import Meta, create, is_spatial, save_checkpoint
from omnisource.progress import meter
from omnisource.recipe import Training
from omnisource.tables import write_json
from omnisource.train import keys
from omnisource.train.board import open_board
from omnisource.train.decode import F32, Reading
from omnisource.train.distributed import Parallel, Ranks
from omnisource.train.frozen import FrozenLoader, Standard, trunk_features
from omnisource.train.inputs import make_inputs
from omnisource.train.loader import Batch, Loader, Quarantine
from omnisource.train.objective import Objective
from omnisource.train.optimise import Average, build_optimiser, rate, set_rate
from omnisource.train.plan import Plan
from omnisource.train.pool import Pool
from omnisource.train.precision import check_precision
from omnisource.train.record import Log, State, save_state
from omnisource.train.start import essential_settings_of, start_network
from omnisource.train.stop import stop_signals
from omnisource.train.tally import Progress, Tally, new_tally, replaced_row, speed_row, train_row
from omnisource.train.validate import validate
from omnisource.workspace import fingerprint

_WEIGHTS, _DROPOUT = 1, 2  # what a key is drawn for
_LOGS_PER_EPOCH = 10
_EXPLODED = 50.0  # mean loss, in units of that of guessing


@dataclass(frozen=True)
class TrainResult:
    """What a finished training is known by."""

    checkpoint: Path  # the network after the last step
    steps: int
    epochs: float
    units: dict[str, int]  # of each source
    batch: dict[str, int]  # slots of each source in a step
    loss: float  # of the last logged steps
    best: float | None  # top-1 of the best validation; its network is best.safetensors
    quarantined: int


class Trainer:
    """A training that is under way: `run` takes it to its end. Use `train`, which also decides where it begins."""

    def __init__(
        self,
        training: Training,
        pool: Pool,
        folder: Path,
        seed: int,
        ranks: Ranks,
        *,
        validation: Pool | None,
        camera: Camera | None,
        limits: Limits,
    ) -> None:
        self.training, self.pool, self.folder, self.seed, self.ranks = training, pool, folder, seed, ranks
        self.validation = validation
        self.spatial = is_spatial(training.network.name)
        self.plan = Plan(pool, training, seed)
        if self.plan.sizes and sum(self.plan.sizes) < ranks.world:
            raise UserError(f"{ranks.world} processes can't share a batch of {sum(self.plan.sizes)}; start fewer")
        self.recipe_hash = fingerprint(essential_settings_of(training))
        self.reading = Reading(training, self.spatial, camera, pool.frames, pool.classes, limits)
        self.network = start_network(training, pool.classes, _torch_seed(seed, _WEIGHTS), ranks)
        self.parallel = Parallel(self.network, ranks, training.parallel)
        if self.parallel.sharded and training.ema:
            raise UserError("ema needs the whole network in every process; use `parallel: ddp` or `ema: 0`")
        self.optimiser = build_optimiser(self.network, training.optimiser)
        self.average = Average(self.network, training.ema) if training.ema else None
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=training.precision == "fp16")
        self.objective = Objective(training, self.plan, self.network, self.parallel, ranks)
        self.standard: Standard | None = None  # of a fixed trunk's features
        self.at = Progress(0, new_tally(pool))
        self.log = Log(folder / "log.jsonl") if ranks.first else None
        self.speed = Log(folder / "speed.jsonl") if ranks.first else None
        self.board = open_board(folder) if ranks.first else None

    # One step.

    def take_step(self, batch: Batch) -> tuple[Tensor, float]:
        """One optimiser step. Returns the sums of a tally, and the gradient's norm."""
        inputs = make_inputs(batch, self.pool, self.training, self.spatial, self.ranks.device)
        torch.manual_seed(_torch_seed(self.seed, _DROPOUT, batch.slots.step, self.ranks.rank))
        epoch = batch.slots.step / self.plan.steps_per_epoch
        set_rate(self.optimiser, rate(self.training.optimiser, epoch, self.training.epochs))
        self.optimiser.zero_grad(set_to_none=True)
        sums = self.objective.backward(inputs, self.scaler)
        self.scaler.unscale_(self.optimiser)
        trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        limit = self.training.optimiser.clip_grad
        norm = nn.utils.clip_grad_norm_(trained, limit if limit is not None else math.inf)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, batch.slots.step)
        return sums, float(norm)

    # All steps.

    def run(self) -> TrainResult:
        """Takes every step that is left."""
        plan = self.plan
        every = max(1, round(plan.steps_per_epoch / _LOGS_PER_EPOCH))
        checkpoint_every = self._steps(self.training.checkpoint_every)
        validate_every = self._steps(self.training.validate_every) if self.validation is not None else None
        quarantine = Quarantine(self.folder, self.ranks.rank)
        loader = self._loader(quarantine)
        at, saved_at = self.at, time.monotonic()
        with stop_signals() as stop, loader, meter(f"train {self.folder.name}", plan.steps - at.step) as bar:
            batches = loader.batches(at.step, plan.steps)
            while at.step < plan.steps:
                began = time.monotonic()
                batch = next(batches)
                at.waited += time.monotonic() - began
                if at.step == 0 and self.training.precision != "fp32":
                    self._check_precision(batch)
                sums, norm = self.take_step(batch)
                old = time.monotonic() - saved_at >= self.training.checkpoint_seconds
                stopping, old = self._account(batch, sums, norm, stop.is_set(), old)
                at.seconds += time.monotonic() - began
                at.step += 1
                last = at.step == plan.steps
                if at.step % every == 0 or last:
                    self._write_line()
                    bar.advance(0, note=f"loss {at.loss:.3f}")
                if validate_every and (at.step % validate_every == 0 or last):
                    self._validate()
                if not last and (stopping or (old and at.step % checkpoint_every == 0)):
                    self.checkpoint()
                    saved_at = time.monotonic()
                    if stopping:
                        raise KeyboardInterrupt
                bar.advance()
        self._save_network("last.safetensors")
        return TrainResult(
            checkpoint=self.folder / "last.safetensors",
            steps=plan.steps,
            epochs=self.training.epochs,
            units=self.pool.counts(),
            batch={deck.name: size for deck, size in zip(plan.decks, plan.sizes, strict=True)},
            loss=at.loss,
            best=at.best,
            quarantined=len({unit for units in self.ranks.gather(quarantine.units) for unit in units}),
        )

    def _loader(self, quarantine: Quarantine) -> Loader | FrozenLoader:
        training = self.training
        if training.trunk_views:
            if self.ranks.world > 1:
                raise UserError("trunk_views: with a fixed trunk one process does all; start it without torchrun")
            # Below the folder of all runs, which share them.
            store = self.folder.parent / ".features"
            features, failures = trunk_features(
                self.network, self.pool, self.reading, training, self.ranks.device, store
            )
            self.network.train()
            self._standardise(features, failures)
            return FrozenLoader(self.plan, features, failures, quarantine)
        return Loader(
            self.plan,
            self.reading,
            quarantine,
            workers=training.workers,
            timeout_s=self.reading.limits.timeout_s,
            cache_bytes=training.cache_bytes,
            rank=self.ranks.rank,
            world=self.ranks.world,
        )

    def _check_precision(self, batch: Batch) -> None:
        inputs = make_inputs(batch, self.pool, self.training, self.spatial, self.ranks.device)
        check_precision(self.network, inputs.clips[0], inputs.labels[inputs.rows[0]], self.training.precision)

    def _standardise(self, features: F32, failures: Mapping[int, Failure]) -> None:
        """Changes features, and the classifier with them, to the coordinates in which it trains."""
        if self.standard is None:  # else the classifier was restored in its coordinates, whatever the pool is now
            roles = np.array([role == "target" for role in self.pool.roles])
            known = ~np.isin(np.arange(len(self.pool)), list(failures))
            self.standard = Standard.of(features, roles[self.pool.source] & known, self.network.consensus_parts)
            self.standard.enter(self.network.head)
            self.average = Average(self.network, self.training.ema) if self.training.ema else None
        self.standard.apply(features)

    def _steps(self, epochs: float | None) -> int:
        return max(1, round(epochs * self.plan.steps_per_epoch)) if epochs else 0

    def _account(self, batch: Batch, sums: Tensor, norm: float, stop: bool, old: bool) -> tuple[bool, bool]:
        """Adds a step to the tally of all processes, and checks its loss; what it finds is the same in all of them.

        Returns whether some process was asked to stop, and whether the first one finds the last checkpoint old.
        """
        flags = [float(stop), float(old and self.ranks.first), float(len(batch.replaced))]
        packed = torch.cat([sums.flatten(), torch.tensor(flags, dtype=torch.float64, device=sums.device)])
        found = self.ranks.sum(packed).cpu()
        sums, tally = found[:-3].view_as(sums), self.at.tally
        loss = self.objective.value(sums)
        mean = float(sums[:, 0].sum() / sums[:, 2].sum())
        broken = not math.isfinite(loss) or (not math.isfinite(norm) and not self.scaler.is_enabled())
        if broken or mean > _EXPLODED * math.log(max(len(self.pool.classes), 2)):
            self._diverged(batch, loss, norm)
        tally.sums += sums
        tally.steps += 1
        tally.loss += loss
        if math.isfinite(norm):
            tally.norm += norm
        else:  # of fp16: the scaler skips the step, and lowers its scale
            tally.skipped += 1
        if found[-1]:
            together = [one for some in self.ranks.gather(batch.replaced) for one in some]
            for replacement in sorted(together, key=lambda one: one.slot):
                self._write(replaced_row(replacement, self.pool))
        return bool(found[-3]), bool(found[-2])

    def _diverged(self, batch: Batch, loss: float, norm: float) -> NoReturn:
        step, own = batch.slots.step, slice(batch.own)
        shares = self.ranks.gather(list(zip(batch.slot[own].tolist(), batch.unit[own].tolist(), strict=True)))
        samples = [self.pool.unit(number) for _, number in sorted(one for share in shares for one in share)]
        rows = [{"source": unit.source, "sample_id": unit.sample_id, "uri": unit.uri} for unit in samples]
        report = self.folder / "diverged.json"
        if self.ranks.first:
            write_json(report, {"step": step, "loss": str(loss), "gradient_norm": str(norm), "samples": rows})
        good = self.folder / "state.pt"
        raise UserError(
            f"{self.folder}: the loss of step {step} is {loss:.4g} (gradient norm {norm:.4g}); its samples are in "
            f"{report}, the last good checkpoint is {good if good.exists() else 'none yet'}; lower optimiser.lr, "
            "clip gradients, or leave those samples out"
        )

    # What is written.

    def _write_line(self) -> None:
        at = self.at
        at.loss = at.tally.loss / at.tally.steps
        group = self.optimiser.param_groups[0]
        epoch, lr = at.step / self.plan.steps_per_epoch, group["lr"] / group["scale"]  # its own rate, without the scale
        row = train_row(at, self.pool, epoch, lr, self.training.consistency is not None)
        speed = speed_row(at, self.ranks.device)
        at.tally, at.seconds, at.waited = new_tally(self.pool), 0.0, 0.0
        self._write(row)
        if self.speed is not None:
            self.speed.write(speed)
        if self.board is not None:
            self.board.write(row, speed)

    def _write(self, row: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(row)

    def _validate(self) -> None:
        assert self.validation is not None
        with self._as_tested():
            self.parallel.share_statistics()
            with self.parallel.whole():
                found = validate(self.network, self.validation, self.reading, self.ranks, self.training.workers)
        row = {"kind": "validation", "step": self.at.step, "epoch": self.at.step / self.plan.steps_per_epoch}
        self._write(row | found)
        if self.at.best is None or found["top1"] > self.at.best:
            self.at.best = found["top1"]
            self._save_network("best.safetensors")

    def _save_network(self, name: str) -> None:
        given = self.training.input
        flow = given.modality == "flow"
        meta = Meta(
            classes=self.pool.classes,
            mean=FLOW_MEAN if flow else given.mean,
            std=FLOW_STD if flow else given.std,
            frames=given.frames,
            stride=given.stride,
            fps=given.fps,
            size=given.size,
            recipe_hash=self.recipe_hash,
            notes={
                "short_side": given.short_side,
                "modality": given.modality,
                "step": self.at.step,
                "best": self.at.best,
            },
        )
        with self._as_tested():
            weights, network = self.parallel.weights(), self.network
            if not self.ranks.first:
                return
            if self.parallel.sharded:
                network = create(network.name, network.num_classes, **network.options)
                network.load_state_dict(weights)
            save_checkpoint(self.folder / name, network, meta)

    @contextmanager
    def _as_tested(self) -> Iterator[None]:
        """The network in the form in which it is used: with averaged weights, for features as the trunk gives them."""
        if self.average is None and self.standard is None:
            yield
            return
        now = {name: value.clone() for name, value in self.network.state_dict().items()}
        if self.average is not None:
            self.network.load_state_dict(self.average.weights)
        if self.standard is not None:
            self.standard.leave(self.network)
        try:
            yield
        finally:
            self.network.load_state_dict(now)

    # The state from which a training continues.

    def checkpoint(self) -> None:
        """Writes the state. All processes must call it; the first one writes."""
        at, weights, optimiser = self.at, self.parallel.weights(), self.parallel.optimiser_state(self.optimiser)
        if self.log is None:
            return
        save_state(
            self.folder,
            {
                "step": at.step,
                "network": weights,
                "optimiser": optimiser,
                "average": self.average.weights if self.average is not None else None,
                "standard": vars(self.standard) if self.standard is not None else None,
                "scaler": self.scaler.state_dict(),
                "log": self.log.mark(),
                "tally": vars(at.tally),
                "loss": at.loss,
                "best": at.best,
            },
        )

    def restore(self, state: State) -> None:
        """Continues from a state."""
        self.parallel.load(state["network"], self.optimiser, state["optimiser"])
        if self.average is not None:
            self.average.load(state["average"])
        if state["standard"] is not None:
            self.standard = Standard(**state["standard"])
        self.scaler.load_state_dict(state["scaler"])
        if self.log is not None:
            self.log.cut(state["log"])
        tally = Tally(**state["tally"])
        if tally.sums.shape != self.at.tally.sums.shape:  # of other sources, or by an earlier version
            tally = new_tally(self.pool)
        self.at = Progress(state["step"], tally, state["loss"], state["best"])

    def close(self) -> None:
        """Closes the run's files."""
        for file in (self.log, self.speed, self.board):
            if file is not None:
                file.close()


def _torch_seed(*parts: int) -> int:
    return int(keys.mix(*parts)) >> 1
