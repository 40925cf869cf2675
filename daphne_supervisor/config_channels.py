"""The section of the configuration that is about the channel layer's broker.

What holds for messages themselves (capacity, expiry, size) is the project's own, in the `CONFIG` of
its `CHANNEL_LAYERS`: it belongs to the code that sends and receives.
"""

from __future__ import annotations

from dataclasses import dataclass

from daphne_supervisor.options import duration, size

__all__ = ["Channels"]

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The channel layer."""

    max_queue: int = size(
        "--channels-max-queue",
        default=64 * _MEBIBYTE,
        help="Bytes of messages that may wait in channels that belong to no worker, all together;"
        " beyond them sending raises ChannelFull. 64 MiB are 6500 messages of 10 kB.",
    )
    max_unread: int = size(
        "--channels-max-unread",
        default=32 * _MEBIBYTE,
        help="Bytes that the broker keeps for one worker that does not read them; beyond them it is"
        " stuck at once. Above 1 MiB who sends to it waits, so only many at once come so far.",
    )
    stuck_after: float = duration(
        "--channels-stuck-after",
        default=1.0,
        help="Time for which a worker may leave 1 MiB of messages unread; then it is stuck: nobody"
        " waits for it, and what is sent to it is lost until it reads. An event loop that is"
        " blocked for longer is ill, and should not make others ill.",
    )
