"""Tells the C library to keep the memory that a training step frees, and to reuse it in the next step.

By default glibc returns the blocks of large tensors to the operating system at once, and every step gets them again,
page by page: a fifth of the time of training on a CPU. Blocks that are too large for glibc to keep (for example the
gradient of a million items' vectors) can at least use large pages.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD = -1
"""`mallopt`'s option: the heap shrinks when more bytes than this are free at its end."""
M_MMAP_THRESHOLD = -3
"""`mallopt`'s option: a block of at least so many bytes is mapped, and returned when it is freed."""
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""Bytes; the largest that glibc accepts. Larger blocks (a language model's weights, say) are still returned at once."""
NEVER_TRIM = 2**31 - 1
"""Bytes; the largest C int. As a trim threshold it means that the heap practically never shrinks."""
DEFAULT_THRESHOLD = 128 * 2**10
"""Bytes; glibc's default of both thresholds."""


def keep_freed_memory() -> None:
    """From now on glibc keeps freed blocks for reuse. Does nothing with another C library."""
    set_thresholds(LARGEST_MMAP_THRESHOLD, NEVER_TRIM)


@contextmanager
def freed_memory_goes_back() -> Iterator[None]:
    """While active, glibc returns freed blocks to the system; for loading that allocates far more than it keeps.

    Afterwards freed memory is kept again, as after `keep_freed_memory`.
    """
    set_thresholds(DEFAULT_THRESHOLD, DEFAULT_THRESHOLD)
    try:
        yield
    finally:
        keep_freed_memory()


def set_thresholds(mmap: int, trim: int) -> None:
    """Sets glibc's two thresholds, both in bytes.

    Args:
        mmap: a block of at least this size is mapped, and returned when it is freed.
        trim: the heap shrinks when more than this is free at its end.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, mmap)
        library.mallopt(M_TRIM_THRESHOLD, trim)


def use_large_pages() -> None:
    """Makes torch ask the kernel for large pages, where it offers them. Call it before the first tensor is made."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_freed_memory() -> None:
    """Returns all free memory to the system once, so that a measurement that follows does not include it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
