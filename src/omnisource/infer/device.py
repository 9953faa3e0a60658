"""Where to compute, and with how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from omnisource.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name` (`cpu`, `cuda`, `cuda:1` ...); `auto` is the first GPU, or the CPU where there is none.

    Raises:
        UserError: no such device, or this build of torch can't use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device: '{name}' can't be used here ({reason}); try device=auto") from None
    return device


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """PyTorch has `count` threads inside of it, and before and after it what it had; None changes nothing."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
