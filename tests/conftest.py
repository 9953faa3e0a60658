"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The suite's processes fill the cores already. With threads of their own on top, these wait for each other inside every
# operator, and on a busy machine the suite takes many times as long. Set before torch is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Deadlines measure the machine's load, not the code; fewer examples keep the suite short.
settings.register_profile("omnisource", deadline=None, max_examples=25)
settings.load_profile("omnisource")

# A suite that a shell runs in the background starts with Ctrl-C ignored, and so would every process that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SHARED = Path(os.environ.get("OMNISOURCE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real media and golden outputs beside the checkout; tests that need them are skipped without."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"no development media at {_SHARED} (set OMNISOURCE_SHARED)")
    return _SHARED
