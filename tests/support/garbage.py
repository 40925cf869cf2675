"""What is left to the garbage collector: of what clients send, nothing should be."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["no_garbage"]


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Fail if what is done meanwhile leaves something that only the collector can free.

    All else is kept from it, so that `gc.collect()` in between takes no time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
        assert gc.collect() == 0, "objects that hold each other"
    finally:
        gc.enable()
        gc.unfreeze()
