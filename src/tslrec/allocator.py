"""Tells the C library to keep the memory that a training step frees, for the next one.

By default glibc hands the blocks of large tensors back to the system at once, and every step gets them anew, page by
page: a fifth of the time of a training on a CPU. Blocks too large for glibc to keep, the gradient of a million items'
vectors say, at least come in large pages.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""Bytes; glibc takes no larger one. Bigger blocks, a language model's weights say, still go back at once."""
NEVER = 2**31 - 1
USUAL_THRESHOLD = 128 * 2**10
"""Bytes; glibc's own, of both."""


def keep_freed_memory() -> None:
    """From now on; does nothing where the C library is another."""
    set_thresholds(LARGEST_MMAP_THRESHOLD, NEVER)


@contextmanager
def freed_memory_goes_back() -> Iterator[None]:
    """For its time: where more passes through a process than stays in it. What follows keeps it."""
    set_thresholds(USUAL_THRESHOLD, USUAL_THRESHOLD)
    try:
        yield
    finally:
        keep_freed_memory()


def set_thresholds(mmap: int, trim: int) -> None:
    """From how many bytes a block is the system's own, and from how many free ones the heap shrinks."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, mmap)
        library.mallopt(M_TRIM_THRESHOLD, trim)


def use_large_pages() -> None:
    """Has torch ask the kernel for large pages, where it lends them; to be called before torch's first array."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_freed_memory() -> None:
    """Hands back what is free now, so that what is measured next is not what was used before."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
