"""Freed memory stays inside of the block and goes back afterwards."""

import ctypes
import resource

import psutil
import pytest
import torch

from omnisource.train.memory import freed_memory_kept

MIB = 1024**2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_big_blocks_are_cleared_once_and_given_back_in_the_end() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 * MIB // 4)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages = 64 * MIB // resource.getpagesize()
    faults()
    if faults() < pages // 2:
        pytest.skip("huge pages: a block costs a few faults anyway")
    with freed_memory_kept():
        for _ in range(30):  # blocks come to lie between others until there is a hole for the next
            faults()
        assert faults() < pages // 100
        held = psutil.Process().memory_info().rss
    assert held - psutil.Process().memory_info().rss > 32 * MIB
    faults()
    assert faults() > pages // 2
