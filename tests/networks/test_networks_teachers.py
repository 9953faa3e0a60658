"""A 3D network on images, a 2D one on frames."""

import pytest
import torch

from omnisource import networks
from omnisource.errors import UserError


def test_a_3d_network_scores_an_image_as_a_still_clip() -> None:
    network = networks.create("i3d_r50", 3, base_width=8).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        scores = networks.score_images(network, images, frames=8)
        clips = torch.stack([torch.stack([image] * 8, 1) for image in images])
        torch.testing.assert_close(scores, network(clips))
        assert networks.score_images(network, images).shape == (2, 3)


def test_a_2d_network_scores_frames_and_their_mean_is_the_clip() -> None:
    network = networks.create("tsn_r18", 3, base_width=8).eval()
    clips = torch.randn(2, 3, 5, 32, 32)
    with torch.no_grad():
        scores = networks.score_frames(network, clips)
        assert scores.shape == (2, 5, 3)
        torch.testing.assert_close(scores.mean(1), network(clips))
        torch.testing.assert_close(networks.score_images(network, clips[:, :, 3]), scores[:, 3])


def test_wrong_shapes_and_networks_are_refused() -> None:
    network = networks.create("slowonly_r18", 3, base_width=8)
    with pytest.raises(UserError, match="is a 3D network"):
        networks.score_frames(network, torch.randn(1, 3, 4, 32, 32))
    with pytest.raises(UserError, match="images are"):
        networks.score_images(network, torch.randn(1, 3, 4, 32, 32))
