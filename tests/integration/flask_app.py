"""A Flask application: plain, uploading, streaming, with files, and wrong."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import flask

if TYPE_CHECKING:
    from collections.abc import Iterator

application = flask.Flask(__name__)
turn = threading.Event()
closed = threading.Event()


def make() -> flask.Flask:
    """Be a factory."""
    return application


@application.get("/")
def index() -> str:
    """Answer with who asks, and where."""
    request = flask.request
    return f"{request.remote_addr} {request.url} {request.environ['SERVER_PROTOCOL']}"


@application.get("/thread")
def thread() -> str:
    """Answer with the thread."""
    return threading.current_thread().name


@application.post("/digest")
def digest() -> str:
    """Answer with length and digest of the body, read as a stream."""
    found, length = hashlib.sha256(), 0
    while data := flask.request.stream.read(65_536):
        found.update(data)
        length += len(data)
    return f"{length} {found.hexdigest()}"


@application.post("/form")
def form() -> str:
    """Answer with an uploaded file."""
    return f"{flask.request.form['name']} {len(flask.request.files['file'].read())}"


@application.get("/stream/<int:count>")
def stream(count: int) -> flask.Response:
    """Send so many pieces of 64 KiB, with the request at hand."""

    def pieces() -> Iterator[bytes]:
        for _ in range(count):
            yield flask.request.args["byte"].encode() * 65_536

    return flask.Response(flask.stream_with_context(pieces()))


@application.get("/turns")
def turns() -> flask.Response:
    """Send a piece, wait for `/turn`, and send another."""

    def pieces() -> Iterator[bytes]:
        try:
            yield b"first"
            turn.wait(10)
            yield b"second"
        finally:
            closed.set()

    return flask.Response(pieces())


@application.get("/turn")
def take_turn() -> str:
    """Let `/turns` go on."""
    turn.set()
    return "done"


@application.get("/closed")
def was_closed() -> str:
    """Say whether what `/turns` has returned was closed, as soon as it is."""
    return str(closed.wait(10))


@application.get("/file")
def file() -> flask.Response:
    """Send the file that $TEST_FILE names."""
    return flask.send_file(os.environ["TEST_FILE"])


@application.get("/error")
def error() -> str:
    """Fail."""
    return str(1 // 0)


@application.get("/late")
def late() -> flask.Response:
    """Fail behind the head."""

    def pieces() -> Iterator[Any]:
        yield b"x"
        raise KeyError

    return flask.Response(pieces())
