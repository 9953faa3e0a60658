"""OmniSource: train video recognisers with the help of the web."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnisource.predict import Recogniser

__version__ = "0.1.0"


def load(path: str | Path, **settings: Any) -> "Recogniser":
    """A trained network as a function of files: `omnisource.load("last.safetensors")("video.mp4").top`.

    See `omnisource.predict.load` for the settings.
    """
    from omnisource.predict import load as load_recogniser

    return load_recogniser(path, **settings)
