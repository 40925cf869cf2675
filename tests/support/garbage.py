"""What is left to the garbage collector: of what clients send, nothing should be."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["no_garbage"]


@contextlib.contextmanager
def no_garbage() -> Iterator[Callable[[str], None]]:
    """Fail if what is done meanwhile leaves something that only the collector can free.

    What is given checks that in between, for what it is told the name of. All that was there before
    is kept from the collector, so that it takes no time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield _check
        _check("the last")
    finally:
        gc.enable()
        gc.unfreeze()


def _check(name: str) -> None:
    assert gc.collect() == 0, f"{name}: objects that hold each other"
    gc.freeze()
