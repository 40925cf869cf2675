"""A load generator for what h2load cannot do: `python -m benchmarks.client KIND ...`, one process.

It speaks over plain sockets, sends bytes that were made beforehand, counts the bytes that come back
and parses nothing, since what it must not be is slower than the server. Where it is, the server
waits for it: that limits requests per second, and touches the CPU time for each, which is what is
compared, only by smaller batches for each turn of the event loop.

Prints one line of JSON: how many answers came, and in how many seconds.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["frame", "handshake", "open_websocket", "reconnect", "talk"]

STALL = 20.0
"""Seconds without any answer after which a run is given up."""
_BUFFER = 1 << 18
_KEY = b"\x11\x22\x33\x44"
_LONG = 126  # RFC 6455, section 5.2: the length is in the two bytes that follow
_WAITING = select.EPOLLIN


def frame(payload: bytes, *, text: bool) -> bytes:
    """Return `payload`, of less than 64 KiB, as one masked frame of a client (RFC 6455, 5.2)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < _LONG else bytes([0x80 | _LONG]) + size.to_bytes(2)
    mask = (_KEY * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)
    return bytes([0x81 if text else 0x82]) + length + _KEY + masked


def handshake(port: int) -> bytes:
    """Return the request that opens a WebSocket, without extensions (RFC 6455, 4.1)."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def open_websocket(port: int) -> socket.socket:
    """Return a WebSocket to `port` of this host; it blocks. Raises `OSError` if it is refused."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=STALL)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(handshake(port))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        received = connection.recv(1)
        if not received:
            break
        answer += received
    if not answer.startswith(b"HTTP/1.1 101 "):
        connection.close()
        message = f"no WebSocket: {answer!r}"
        raise ConnectionError(message)
    connection.settimeout(None)  # with a time-out each call would be two
    return connection


def reconnect(port: int, count: int, connections: int) -> None:
    """Ask for `/` `count` times, each time over a new connection, `connections` at a time.

    The request says `Connection: close`, so the server closes first. Raises `OSError` when an
    answer is not 200.
    """
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    poller = select.epoll()
    open_ones: dict[int, socket.socket] = {}
    heads: dict[int, bytes] = {}
    address = ("127.0.0.1", port)
    buffer = bytearray(_BUFFER)
    begun = finished = 0
    while finished < count:
        while begun < count and len(open_ones) < connections:
            connection = socket.socket()
            connection.connect(address)  # on this host it returns at once
            connection.send(request)
            number = connection.fileno()
            open_ones[number] = connection
            poller.register(number, _WAITING)
            begun += 1
        for number, _ in _events(poller):
            size = open_ones[number].recv_into(buffer)
            if size:
                heads[number] = heads.get(number, b"") + buffer[:size]
                continue
            if not heads.pop(number, b"").startswith(b"HTTP/1.1 200 "):
                message = "an answer is not 200"
                raise ConnectionError(message)
            open_ones.pop(number).close()  # which also takes it out of the poller
            finished += 1


def talk(port: int, connections: int, payload: bytes, *, text: bool) -> Callable[[int], None]:
    """Return what sends `payload` N times and waits for N echoes, over WebSockets opened now.

    Each has one message under way at a time. The sum of bytes is compared, and nothing else.
    """
    message = frame(payload, text=text)
    size = len(message) - len(_KEY)
    poller = select.epoll()
    sockets = [open_websocket(port) for _ in range(connections)]
    by_number = {one.fileno(): one for one in sockets}
    buffer = bytearray(_BUFFER)  # one for all: to make one for each would take as long as the rest
    for number in by_number:
        poller.register(number, _WAITING)

    def run(count: int) -> None:
        missing = dict.fromkeys(by_number, size)
        begun = min(connections, count)
        for one in sockets[:begun]:
            one.sendall(message)
        finished = 0
        while finished < count:
            for number, _ in _events(poller):
                connection = by_number[number]
                received = connection.recv_into(buffer)
                missing[number] -= received
                if missing[number] > 0 and received:
                    continue
                if missing[number] or not received:
                    reason = "an echo has another size, or none"
                    raise ConnectionError(reason)
                finished += 1
                missing[number] = size
                if begun < count:
                    connection.sendall(message)
                    begun += 1

    return run


def _events(poller: select.epoll) -> list[tuple[int, int]]:
    found = poller.poll(STALL)
    if not found:
        message = f"no answer for {STALL:g} s"
        raise TimeoutError(message)
    return found


def _measured(run: Callable[[int], None], count: int) -> dict[str, float]:
    begin = time.perf_counter()
    run(count)
    return {"done": count, "seconds": time.perf_counter() - begin}


def main() -> None:
    """Run what the command line asks for and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["reconnect", "text", "binary"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="bytes of a message")
    asked = parser.parse_args()
    if asked.kind == "reconnect":
        result = _measured(lambda n: reconnect(asked.port, n, asked.connections), asked.count)
    else:
        run = talk(asked.port, asked.connections, b"m" * asked.size, text=asked.kind == "text")
        result = _measured(run, asked.count)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
