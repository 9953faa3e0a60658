"""Which 1-FPS frames of an untrimmed video stand in one input of a 2D network (paper, section 3.3.2)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Kind = Literal["positive-negative", "positives-only", "random"]


def snippet_times(
    kind: Kind,
    positive_s: float,
    positives: Sequence[float],
    negatives: Sequence[float],
    segments: int,
    rng: np.random.Generator,
) -> list[float]:
    """Times of the frames that join the positive frame at `positive_s` in an input of `segments` snippets.

    Args:
        kind: `positive-negative`: the other frames are negatives (the paper's 1 + 2); `positives-only`: they are
            other positives; `random`: any other frames.
        positive_s: the positive frame that this training sample stands for; always among the result.
        positives, negatives: times in seconds of all frames of the video that the teacher put on each side; their
            order does not matter.
        segments: length of the result; ValueError below 1.

    Frames are drawn without replacement; when a pool is too small each of its frames is taken once before any is
    taken again. Fallbacks: without negatives the other frames are positives, without other positives they are
    negatives, and a video with no other frame repeats `positive_s`.

    Returns:
        (segments,) seconds, ascending: snippets are in the order of the video.
    """
    if segments < 1:
        raise ValueError(f"segments must be at least 1, got {segments}")
    others = sorted(set(positives) - {positive_s})
    pools = {
        "positive-negative": (sorted(set(negatives)), others),
        "positives-only": (others, sorted(set(negatives))),
        "random": (sorted({*others, *negatives} - {positive_s}), []),
    }[kind]
    pool = next((pool for pool in pools if pool), [positive_s])
    rounds = -(-(segments - 1) // len(pool))
    drawn = [pool[i] for _ in range(rounds) for i in rng.permutation(len(pool))]
    return sorted([positive_s, *drawn[: segments - 1]])
