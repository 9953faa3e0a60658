"""Any network as a teacher of any format: a 3D one for images, a 2D one for videos frame by frame.

Paper, section 1, stage 3: images want a 2D teacher, videos a 3D one; these functions let either do the other's work.
"""

from torch import Tensor

from omnisource.errors import UserError
from omnisource.networks.base import Network


def score_images(network: Network, images: Tensor, frames: int | None = None) -> Tensor:
    """Logits of images: float (N, C, H, W), normalised -> (N, classes).

    A 3D network sees each image as a still clip of `frames` frames (by default the fewest that it takes, but at
    least 4, so that its temporal kernels lie inside the clip somewhere); a 2D one as a single snippet.
    """
    if images.ndim != 4:
        raise UserError(f"images are (N, C, H, W), got {tuple(images.shape)}")
    length = 1 if network.spatial else frames or max(4, network.min_frames)
    clips = images.unsqueeze(2).expand(-1, -1, length, -1, -1)
    logits: Tensor = network(clips)
    return logits


def score_frames(network: Network, clips: Tensor) -> Tensor:
    """Logits of each frame by a 2D network: float (N, C, T, H, W), normalised -> (N, T, classes).

    Their mean over T is what the network gives for the clip (by the consensus `mean`; by another each frame is a clip
    of its own). Raises UserError for a 3D network, which has no opinion on a single frame; use `score_images` there.
    """
    if not network.spatial:
        raise UserError(f"{network.name} is a 3D network: it scores clips, not frames; use a tsn network for frames")
    features = network.features(clips)
    single = network.agree(features.flatten(0, 1).unsqueeze(1))
    logits: Tensor = network.head(network.dropout(single)).view(*features.shape[:2], -1)
    return logits
