"""Pieces of an untrimmed video: 10-second windows for 3D networks, 1-FPS frames for 2D ones (paper, section 3.3.2)."""

import math


def windows(duration_s: float, window_s: float = 10.0, hop_s: float = 10.0) -> list[tuple[float, float]]:
    """Cuts [0, duration_s) into windows of `window_s` seconds that start `hop_s` apart.

    What is left at the end becomes a shorter window when it is at least half a window long, else it belongs to the
    last window. So every window is between half and one and a half `window_s` long, except that a video shorter than
    that is one window, and with hop_s <= window_s every second lies in a window.

    Returns:
        [(start_s, end_s), ...], ascending.
    """
    _check(duration_s, window_s, hop_s)
    count = 1 + max(0, math.floor((duration_s - window_s) / hop_s + 1e-9))
    cuts = [(i * hop_s, min(i * hop_s + window_s, duration_s)) for i in range(count)]
    last_start, last_end = cuts[-1]
    rest_start = max(last_end, count * hop_s)  # nothing is seen twice because of the rest
    if duration_s - rest_start >= window_s / 2:
        cuts.append((rest_start, duration_s))
    elif hop_s <= window_s:
        cuts[-1] = (last_start, duration_s)
    return cuts


def frame_times(duration_s: float, fps: float = 1.0) -> list[float]:
    """Times of frames taken `fps` a second: the middle of every 1 / fps seconds; at least one.

    Returns:
        Seconds from the first frame, ascending.
    """
    _check(duration_s, fps)
    count = math.floor(duration_s * fps + 1e-9)
    return [(i + 0.5) / fps for i in range(count)] or [duration_s / 2]


def _check(*numbers: float) -> None:
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"durations, windows, hops and rates must be positive numbers, got {numbers}")
