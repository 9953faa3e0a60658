"""Parameters and multiply-accumulates against the published ones.

The literature gives the cost of SlowOnly and CSN for crops of 256 (its test crops), not 224: at 224 it is
(224 / 256)^2 = 0.77 of that. Its counts may include the norms, hence a percent of room.
"""

import pytest

from omnisource import networks

PUBLISHED = [  # name, classes, frames, size, M parameters, GMACs
    ("slowonly_r50", 400, 8, 256, 32.45, 54.75),
    ("slowonly_r50", 400, 4, 256, 32.45, 27.38),
    ("slowonly_r101", 400, 8, 256, 60.36, 112.0),
    ("ircsn_r152", 400, 32, 256, 29.70, 97.63),
    ("i3d_r50", 400, 32, 256, 28.04, 43.5),
    ("tsn_r50", 400, 1, 224, 24.33, 4.10),
    ("tsn_efficientnet_b0", 1000, 1, 224, 5.29, 0.39),
    ("tsn_efficientnet_b4", 1000, 1, 380, 19.34, 4.39),
    ("tsn_efficientnet_lite0", 1000, 1, 224, 4.65, 0.39),
]


@pytest.mark.parametrize(("name", "classes", "frames", "size", "parameters", "macs"), PUBLISHED)
def test_published_costs(name: str, classes: int, frames: int, size: int, parameters: float, macs: float) -> None:
    found = networks.cost(name, classes, frames, size)
    assert found.parameters / 1e6 == pytest.approx(parameters, abs=0.006)
    assert found.macs / 1e9 == pytest.approx(macs, rel=0.015)


def test_the_size_for_which_the_literature_speaks() -> None:
    assert networks.cost("slowonly_r50", 400, 8, 224).macs / 1e9 == pytest.approx(41.74, abs=0.01)
    assert networks.cost("slowonly_r50", 400, 8, 256).macs / 1e9 == pytest.approx(54.52, abs=0.01)
