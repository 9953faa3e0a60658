"""Random draws that follow from an integer key alone, so that any process can repeat them."""

import numpy as np

_MASK = (1 << 64) - 1


def rng(key: int, stream: int = 0) -> np.random.Generator:
    """A generator for one sample.

    Args:
        key: 64-bit key of the sample in its step, from the plan.
        stream: what the draw is for; draws of different streams are independent, so adding a draw to one leaves
            the others as they were.
    """
    # Philox is counter-based: its state is the key itself, so making one costs microseconds.
    return np.random.Generator(np.random.Philox(key=((stream & _MASK) << 64) | (key & _MASK)))
