"""How fast a message reaches a group: our channel layer beside those of channels_redis.

Run `.venv-bench/bin/python -m benchmarks.channel_layers`; it needs `redis-server` (Debian: the
package of that name), which is started for the run, on a unix socket and without persistence.

One process sends to a group of 1000 receivers in the four workers of a real master. First as fast
as they receive: at most so many messages are under way (`UNDER_WAY`), so that none is lost. Then at
a pace that every layer can keep (`PACE`), for the latency that a quiet service sees. The layers
take turns, `ROUNDS` times; the medians are printed, and the median, lowest and highest of what each
received in a round of what ours did in that round. Every message must arrive, once.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import mmap
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.channel_application import GROUP, RECEIVERS, make_layer
from daphne_supervisor.broker.address import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 4
UNDER_WAY = 8
PACE = 5
"""Messages a second."""
MESSAGES, PACED = 300, 20
"""In a round."""
ROUNDS = 7
PATIENCE = 60.0
"""Seconds for anything at all."""

LAYERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "LocalChannelLayer": ("daphne_supervisor.channels", "LocalChannelLayer", {}),
    "channels_redis core": ("channels_redis.core", "RedisChannelLayer", {"hosts": ["REDIS"]}),
    "channels_redis pubsub": (
        "channels_redis.pubsub",
        "RedisPubSubChannelLayer",
        {"hosts": ["REDIS"]},
    ),
}


@dataclass
class Figures:
    """Of one layer: messages received a second, and latencies in milliseconds, by round."""

    throughput: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)
    paced: list[float] = field(default_factory=list)


class Service:
    """A master with four workers that receive, and the layer to send with."""

    def __init__(self, place: str, name: str, redis: str) -> None:
        """Start it in folder `place`, with the layer of this name."""
        self.place = place
        self.text = json.dumps(LAYERS[name]).replace("REDIS", f"unix://{redis}")
        with open(f"{place}/layer.json", "w", encoding="ascii") as layer:
            layer.write(self.text)
        with open(f"{place}/counters", "w+b") as file:
            file.truncate(8 * WORKERS)
            self.counters = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        command = [sys.executable, "-m", "daphne_supervisor", "-w", str(WORKERS), "-p", "0"]
        self._log = open(f"{place}/log", "w", encoding="utf-8")  # noqa: SIM115 - until `stop`
        self.master = subprocess.Popen(
            [*command, "benchmarks.channel_application:application"],
            env={**os.environ, "BENCH": place},
            stdout=self._log,
            stderr=self._log,
        )
        self._await(lambda log: log.count(": ready") >= WORKERS)

    def _await(self, wanted: Any) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with open(f"{self.place}/log", encoding="utf-8") as file:
                log = file.read()
            if wanted(log):
                return log
            time.sleep(0.1)
        message = f"the service does not start:\n{log}"
        raise RuntimeError(message)

    def broker(self) -> str:
        """Return where the broker is, for the sender; "" if this layer has none."""
        with open(f"{self.place}/log", encoding="utf-8") as file:
            found = re.search(r"broker pid \d+: started, at (\S+)", file.read())
        return found.group(1) if found else ""

    def ages(self) -> array.array[float]:
        """Return how old each message of the round was when it was received, in seconds."""
        ages = array.array("d")
        for slot in range(WORKERS):
            name = f"{self.place}/ages-{slot}"
            with open(name, "rb") as file:
                ages.frombytes(file.read())
            os.unlink(name)
        return ages

    def stop(self) -> None:
        """End it."""
        self.master.terminate()
        self.master.wait(PATIENCE)
        self._log.close()


class Sender:
    """Sends, and knows from the counters what has arrived."""

    def __init__(self, service: Service) -> None:
        """Send to the receivers of `service`."""
        self._service = service
        self._sent = min(service.counters) // RECEIVERS
        self._layer = make_layer(service.text)

    async def _until(self, under_way: int) -> None:
        """Wait until at most so many messages have not arrived everywhere."""
        deadline = time.monotonic() + PATIENCE
        while min(self._service.counters) < (self._sent - under_way) * RECEIVERS:
            if time.monotonic() > deadline:
                message = f"lost: {list(self._service.counters)} of {self._sent * RECEIVERS}"
                raise RuntimeError(message)
            await asyncio.sleep(0.0005)

    async def send(self, moment: float) -> None:
        """Send one message."""
        await self._layer.group_send(GROUP, {"type": "news", "sent": moment, "text": "x" * 100})
        self._sent += 1

    async def flat_out(self) -> float:
        """Send as fast as they receive; return how many messages are received in a second."""
        begun = time.monotonic()
        for _ in range(MESSAGES):
            await self._until(UNDER_WAY - 1)
            await self.send(time.monotonic())
        await self._until(0)
        return MESSAGES * RECEIVERS * WORKERS / (time.monotonic() - begun)

    async def at_a_pace(self) -> None:
        """Send a few messages a second."""
        begun = time.monotonic()
        for number in range(PACED):
            await asyncio.sleep(max(0.0, begun + number / PACE - time.monotonic()))
            await self.send(time.monotonic())
        await self._until(0)

    async def p99(self) -> float:
        """End a round; return the latency in ms that one of a hundred receptions exceeds."""
        await self.send(0.0)
        await self._until(0)
        ages = sorted(self._service.ages())
        return ages[len(ages) * 99 // 100] * 1000

    async def close(self) -> None:
        """Disconnect."""
        if hasattr(self._layer, "close_pools"):
            await self._layer.close_pools()
        else:
            await self._layer.flush()


async def _measure(service: Service, figures: Figures) -> None:
    os.environ.pop(VARIABLE, None)
    if broker := service.broker():
        os.environ[VARIABLE] = broker
    sender = Sender(service)
    figures.throughput.append(await sender.flat_out())
    figures.loaded.append(await sender.p99())
    await sender.at_a_pace()
    figures.paced.append(await sender.p99())
    await sender.close()


@contextlib.contextmanager
def _redis(place: str) -> Iterator[str]:
    path = f"{place}/redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", place]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            yield path
        finally:
            server.terminate()


def main() -> None:
    """Measure, and print a table."""
    figures = {name: Figures() for name in LAYERS}
    with tempfile.TemporaryDirectory() as place, _redis(place) as redis:
        for number in range(ROUNDS):
            for name, found in figures.items():
                folder = f"{place}/{number}-{len(found.paced)}-{name.replace(' ', '-')}"
                os.mkdir(folder)
                service = Service(folder, name, redis)
                try:
                    asyncio.run(_measure(service, found))
                finally:
                    service.stop()
                print(f"round {number + 1} {name}: {found.throughput[-1]:,.0f} received/s")
    print(f"\n{'':24}{'received/s':>12}{'p99, flat out':>16}{f'p99, {PACE}/s':>12}{'ours ÷':>8}")
    ours = next(iter(figures.values())).throughput
    for name, found in figures.items():
        throughput, loaded, paced = (
            statistics.median(each) for each in (found.throughput, found.loaded, found.paced)
        )
        ratios = sorted(one / other for one, other in zip(ours, found.throughput, strict=True))
        print(
            f"{name:24}{throughput:>12,.0f}{loaded:>13.1f} ms{paced:>9.1f} ms"
            f"{statistics.median(ratios):>8.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )


if __name__ == "__main__":
    main()
