"""The small workspace of the training tests."""

from pathlib import Path

import pytest
import torch
from train_small import CLASSES, Small, make_small, settings

from omnisource.networks import Meta, create, save_checkpoint


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


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of a 2D network to start from."""
    torch.manual_seed(3)
    path = tmp_path / "start.safetensors"
    options = settings("tsn_r18")["network"].get("options", {})
    save_checkpoint(path, create("tsn_r18", len(CLASSES), **options), Meta(classes=tuple(CLASSES)))
    return path
