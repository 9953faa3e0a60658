"""Several processes, one training: started by torchrun, joined by gloo on CPUs and NCCL on GPUs."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from omnisource.errors import UserError
from omnisource.networks import Network

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def range(self, value: int) -> tuple[int, int]:
        """The least and the greatest value of all processes."""
        if self.world == 1:
            return value, value
        found = torch.tensor([-value, value], device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        least, most = found.tolist()
        return -least, most

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return cast(list[T], found)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


class Parallel:
    """A network whose gradients are averaged over all processes, and what that changes about its states.

    `ddp`: every process holds the whole network (DistributedDataParallel). `fsdp`: each holds a share of weights and
    optimiser (fully_shard). With one process: the network itself.
    """

    def __init__(self, network: Network, ranks: Ranks, kind: Literal["ddp", "fsdp"]) -> None:
        self.network, self.ranks = network, ranks
        self.sharded = kind == "fsdp" and ranks.world > 1
        # Whoever shares the optimiser out asks for its state by parameters' names; alone it is kept alike, so that
        # another number of processes can go on with it.
        self._by_name = kind == "fsdp"
        self.module: nn.Module = network
        if self.sharded:
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            fully_shard(network, mesh=init_device_mesh(ranks.device.type, (ranks.world,)))
        elif ranks.world > 1:
            # Statistics are those of the first process's share, as is the field's habit; `norm: sync` syncs them.
            ids = [ranks.device.index] if ranks.device.type == "cuda" else None
            with warnings.catch_warnings():
                # The option's new name is unknown to the oldest torch that will do.
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                self.module = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    @contextmanager
    def synced(self, now: bool) -> Iterator[None]:
        """A backward pass inside of it averages gradients over the processes, or only adds to those of this one."""
        if isinstance(self.module, DistributedDataParallel):
            with nullcontext() if now else self.module.no_sync():
                yield
            return
        if self.sharded:
            cast(FSDPModule, self.network).set_requires_gradient_sync(now)
        yield

    def share_statistics(self) -> None:
        """Gives every process the first one's norm statistics: those that are saved. All processes must call it."""
        if self.ranks.world > 1:
            for buffer in self.network.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside of it every process holds the whole network, and can use it alone. All processes must call it."""
        if not self.sharded:
            yield
            return
        module = cast(FSDPModule, self.network)
        module.unshard()
        try:
            yield
        finally:
            module.reshard()

    def weights(self) -> dict[str, Tensor]:
        """The whole state of the network; of a sharded one only in the first process. All processes must ask."""
        if self.sharded:
            return cast(dict[str, Tensor], get_model_state_dict(self.network, options=_WHOLE))
        return self.network.state_dict()

    def optimiser_state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of the optimiser; of a sharded one only in the first process. All processes must ask."""
        if self._by_name:
            return get_optimizer_state_dict(self.network, optimiser, options=_WHOLE)
        return optimiser.state_dict()

    def load(self, weights: dict[str, Any], optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Puts back what `weights` and `optimiser_state` gave."""
        whole = StateDictOptions(full_state_dict=True)
        if self.sharded:
            set_model_state_dict(self.network, weights, options=whole)
        else:
            self.network.load_state_dict(weights)
        if self._by_name:
            set_optimizer_state_dict(self.network, optimiser, optim_state_dict=state, options=whole)
        else:
            optimiser.load_state_dict(state)


_GLOO = "gloo/transport"  # stands in what gloo says when the others do not answer; it has no errors of its own
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


_trainings = count()  # of this process, as of the others


@cache
def _meeting_point() -> Any:
    """The store in which torchrun's processes tell one another how they are reached."""
    store, _, _ = next(rendezvous("env://"))
    return store


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the other processes that torchrun started, if any.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: no such device; or another process ended while this one waited for it.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"device: '{device}' is not a device; use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device: '{device}' asked for, but torch sees no GPU; use `device: cpu`")
        chosen = torch.device("cuda", local if world > 1 or chosen.index is None else chosen.index)
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    # In one place for all trainings of this process, a process would find where another was in the training before.
    place = dist.PrefixStore(f"training {next(_trainings)}", _meeting_point())  # type: ignore[attr-defined]
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=place, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, chosen)
    except RuntimeError as error:
        if _GLOO not in str(error):
            raise
        raise UserError(
            f"process {rank} of {world}: another process of this training has ended, or answers no more; its message "
            "says why, the same command resumes"
        ) from error
    finally:
        dist.destroy_process_group()
