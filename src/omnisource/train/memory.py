"""What the C library does with memory that a training on a CPU frees."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MOST = 2**31 - 1  # mallopt takes an int
# What glibc comes to by itself once big blocks were freed; it stops adapting when it is told anything.
_USUAL = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 * 1024**2, _TRIM_THRESHOLD: 64 * 1024**2}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside of it freed memory stays with this process, for what is allocated next; afterwards it is given back.

    glibc gives big blocks back to the system at once. A training step allocates the same ones again and again, and the
    system has to clear every page of them: up to a quarter of the step's time (docs/measured.md). The price is
    memory: an eighth more in SlowOnly R50's steps; several times its size for a single block of 1 GiB and more, which
    does not fit into the hole that it left. Where the C library is another, nothing changes.
    """
    library: Any = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        for setting, value in _USUAL.items():
            library.mallopt(setting, value)
        library.malloc_trim(0)
