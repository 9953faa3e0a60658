"""RAFT (Teed and Deng, 2020) as torchvision builds it, with weights that the user gives."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.infer import pick_device
from omnisource.networks import read_weights

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_STEP = 8  # its features are an eighth as large as the frame
_SMALLEST = 128  # pixels: a smaller side leaves nothing of the coarsest of its four correlations
_UPDATES = 12  # refinements, as in its training
_ONLY_LARGE = "mask_predictor.conv.weight"  # the small one enlarges its flow without learned weights


class Raft:
    """Flow between two frames by a RAFT network.

    Args:
        weights: safetensors, or a PyTorch state dict (read without running code), of torchvision's `raft_large` or
            `raft_small`; which of them is seen from the keys.
        device: `auto`, `cpu`, `cuda` ...

    Raises:
        UserError: torchvision is missing or does not fit this torch, or the weights are none of its RAFT networks'.
    """

    def __init__(self, weights: Path, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.network = _network(weights).to(self.device).eval()

    def prepare(self, frame: U8) -> Tensor:
        """uint8 (H, W, 3) RGB -> float (1, 3, H', W') in [-1, 1], its edge repeated up to a size that is taken."""
        pixels = torch.from_numpy(frame.copy()).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
        height, width = (max(_SMALLEST, -(-side // _STEP) * _STEP) for side in frame.shape[:2])
        return F.pad(pixels, (0, width - frame.shape[1], 0, height - frame.shape[0]), mode="replicate")

    @torch.inference_mode()
    def estimate(self, before: Tensor, after: Tensor) -> F32:
        """Two prepared frames -> float32 (H', W', 2): displacement in pixels, x then y."""
        field: Tensor = self.network(before, after, num_flow_updates=_UPDATES)[-1]
        found: F32 = field[0].permute(1, 2, 0).float().cpu().numpy()
        return found


@cache
def load_raft(weights: Path, device: str = "auto") -> Raft:
    """`Raft`, read once a process."""
    return Raft(weights, device)


def _network(path: Path) -> nn.Module:
    try:
        from torchvision.models.optical_flow import raft_large, raft_small
    except ImportError:
        raise UserError("flow.method raft: needs torchvision; `pip install 'omnisource[raft]'`, or use dis") from None
    except (RuntimeError, OSError) as error:  # what it raises where its operators were built for another torch
        raise UserError(
            f"flow.method raft: torchvision was made for another PyTorch than {torch.__version__} "
            f"({str(error).splitlines()[0]}); install the two from one place"
        ) from None
    state = read_weights(path)
    build = raft_large if _ONLY_LARGE in state else raft_small
    network: nn.Module = build(weights=None)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        wanted = network.state_dict()
        fit = sum(key in wanted and wanted[key].shape == value.shape for key, value in state.items())
        raise UserError(
            f"{path}: not weights of torchvision's {build.__name__}: {fit} of its {len(wanted)} tensors fit, "
            f"the file holds {len(state)}"
        ) from None
    if not all(value.isfinite().all() for value in state.values()):
        raise UserError(f"{path}: holds weights that are not finite; use another copy")
    return network
