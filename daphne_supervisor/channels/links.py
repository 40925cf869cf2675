"""The links of a channel layer, one for each event loop; and which of them is the home.

Theory. What comes for this process unasked comes over one link, its home: that of a loop that
receives, and runs. When that loop runs no more, as those of `async_to_sync` and of a test suite do,
the next that uses the layer succeeds it; what has come over the former home meanwhile is read there
as soon as the broker sends to the new one, so that nothing is lost and all stays in order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from daphne_supervisor.channels import in_process
from daphne_supervisor.channels.link import Link

if TYPE_CHECKING:
    import threading
    from asyncio import AbstractEventLoop

    from daphne_supervisor.channels.link import Owner

__all__ = ["Links"]


class Links:
    """Connects each loop that uses the layer."""

    def __init__(self, owner: Owner, lock: threading.RLock) -> None:
        """Have none yet; `lock` is the owner's, since loops may be in different threads."""
        self._owner = owner
        self._lock = lock
        self._links: dict[AbstractEventLoop, Link] = {}
        self._former: list[Link] = []
        self.home: Link | None = None

    def __len__(self) -> int:
        """Return how many loops are connected."""
        return len(self._links)

    def here(self) -> Link:
        """Return the link of the running loop; it succeeds a home whose loop has ended."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            link = self._new(loop)
        elif self.home is not link and self.home is not None and self.home.gone:
            self._settle(link)
        return link

    def claim(self) -> Link:
        """Return the link of the running loop, and let it be the home if nobody else is."""
        link = self.here()
        if self.home is None:
            self._settle(link)
        return link

    def greeted(self, link: Link) -> None:
        """Take what has come over former homes: the broker sends no more there."""
        if link is not self.home:
            return
        with self._lock:
            former, self._former = self._former, []
            for one in former:
                one.salvage()
                if one.loop.is_closed():
                    one.close()

    def close(self) -> None:
        """Disconnect all loops."""
        with self._lock:
            links = [*self._links.values(), *self._former]
            self._links, self._former, self.home = {}, [], None
            for link in links:
                link.close()

    def _new(self, loop: AbstractEventLoop) -> Link:
        with self._lock:
            link = self._links[loop] = Link(loop, in_process.broker_address(), self._owner)
            if self.home is not None and self.home.gone:
                self._settle(link)
            else:
                link.greet()
            for other in [one for one in self._links if one.is_closed()]:
                closed = self._links.pop(other)
                if closed not in self._former:
                    closed.close()
            return link

    def _settle(self, link: Link) -> None:
        """Let what is for this process come over `link`, from now on."""
        with self._lock:
            if self.home is not None:
                self._former.append(self.home)
            self.home = link
            link.greet()
