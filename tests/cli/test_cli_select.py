"""`select --what-if`, and words of the user, as a person sees them."""

import subprocess
import sys

from rich.console import Console

from omnisource.cli.select import funnels
from omnisource.curate.select import Share


def test_what_if_fits_a_narrow_terminal() -> None:
    shares = [Share("untrimmed", "window", "teacher", t / 10, 12_345 - t, 99_999) for t in range(1, 10)]
    console = Console(width=80)
    with console.capture() as shown:
        console.print(*funnels(shares))
    text = " ".join(shown.get().split())
    assert all(word in text for word in ("untrimmed: kept of 99,999 units (window)", "teacher", "12,336", "0.9"))
    assert "\u2026" not in text  # nothing was cut off


def test_what_a_user_wrote_is_shown_as_it_was_written() -> None:
    command = [sys.executable, "-m", "omnisource", "plan", "r.yaml", "--out", "p", "--steps", "0:x"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2 and "--steps 0:x: write it as" in found.stderr
