"""The small workspace of the training tests."""

from pathlib import Path

import pytest
import torch
from train_small import Small, make_small


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny networks get slower with more


@pytest.fixture(scope="session")
def small_tables(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small workspace, to be read only."""
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """A small workspace of one's own."""
    return make_small(tmp_path)
