"""What is to be sent out of a file: opened, measured, read off the loop, and closed in time."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.worker.file_source import (
    PATHSEND,
    ZEROCOPYSEND,
    FileSource,
    UnreadableError,
    announced,
    of_message,
)
from tests.support.transports import on_loop

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Return a file of ten bytes."""
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    return path


async def source_of(**message: Any) -> FileSource:
    """Return the source for a message, of a path or of a file."""
    kind = PATHSEND if "path" in message else ZEROCOPYSEND
    return await of_message(asyncio.get_running_loop(), {"type": kind, **message})


async def content(source: FileSource) -> bytes:
    """Return all that `source` has, read three bytes at a time, and close it."""
    data = b""
    while source.left:
        data += await source.read(3)
    source.close()
    return data


@pytest.mark.parametrize("cached", [True, False])
@on_loop
async def test_a_path_is_the_whole_file(ten: Path, *, cached: bool) -> None:
    """Read in pieces, in order, at once or by a thread."""
    source = await source_of(path=str(ten))
    if not cached:
        source.cached = lambda count: False  # type: ignore[method-assign]  # noqa: ARG005
    assert await content(source) == b"0123456789"


@pytest.mark.parametrize("path", [None, 7, "relative", "", b"/bytes", "/with\0nul"])
@on_loop
async def test_a_path_must_be_absolute(path: Any) -> None:
    """Anything else is the application's mistake."""
    with pytest.raises(ValueError, match=r"http\.response\.pathsend: .* is no absolute path"):
        await source_of(path=path)


@on_loop
async def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    """Nobody's mistake, and said in one line; a fifo makes nobody wait for its writer."""
    os.mkfifo(tmp_path / "fifo")
    for name, why in (
        ("vanished", "No such file or directory"),
        (".", "is no regular file"),
        ("fifo", "is no regular file"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UnreadableError, match=why) as caught:
            await source_of(path=f"{tmp_path}/{name}")
        assert repr(f"{tmp_path}/{name}") in str(caught.value)


@on_loop
async def test_a_file_is_read_from_where_it_stands(ten: Path) -> None:
    """And stands behind what was read, as after any other way of reading it."""
    with ten.open("rb") as file:
        file.read(2)
        assert await content(await source_of(file=file, count=3)) == b"234"
        assert await content(await source_of(file=file)) == b"56789"
        assert await content(await source_of(file=file)) == b""
        assert file.read() == b""


@on_loop
async def test_a_file_can_be_its_descriptor(ten: Path) -> None:
    """It has a position as well."""
    number = os.open(ten, os.O_RDONLY)
    try:
        os.lseek(number, 8, os.SEEK_SET)
        assert await content(await source_of(file=number)) == b"89"
        assert os.lseek(number, 0, os.SEEK_CUR) == 10
    finally:
        os.close(number)


@on_loop
async def test_an_offset_leaves_the_position_alone(ten: Path) -> None:
    """It is the application's."""
    with ten.open("rb") as file:
        assert await content(await source_of(file=file, offset=4, count=2)) == b"45"
        assert await content(await source_of(file=file, offset=8)) == b"89"
        assert await content(await source_of(file=file, offset=11)) == b""
        assert file.tell() == 0


@on_loop
async def test_a_file_of_the_application_stays_open(ten: Path) -> None:
    """It is closed by who has opened it, at any time."""
    with ten.open("rb") as file:
        source = await source_of(file=file)
    assert await content(source) == b"0123456789"
    with ten.open("rb") as file:
        await content(await source_of(file=file))
        assert os.fstat(file.fileno())


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"offset": -1}, "offset -1 is no number of bytes"),
        ({"offset": "1"}, "offset '1' is no number of bytes"),
        ({"count": -1}, "count -1 is no number of bytes"),
        ({"count": 1.5}, "count 1.5 is no number of bytes"),
    ],
)
@on_loop
async def test_offset_and_count_are_numbers_of_bytes(message: dict[str, Any], text: str) -> None:
    """Anything else is the application's mistake."""
    with pytest.raises(ValueError, match=text):
        await source_of(file=0, **message)


@on_loop
async def test_a_file_must_have_a_descriptor(ten: Path) -> None:
    """The specification says so: not a file in memory, none that is closed, and no pipe."""
    with ten.open("rb") as closed:
        pass
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        for file in (None, "name", io.BytesIO(b"x"), closed, pipe, 10**6):
            with pytest.raises(ValueError, match="is no open file with a descriptor"):
                await source_of(file=file)
        with pytest.raises(UnreadableError, match="is no regular file"):
            await source_of(file=pipe, offset=0)


@on_loop
async def test_there_must_be_as_much_as_is_wanted(ten: Path) -> None:
    """It is said before a byte is sent."""
    with ten.open("rb") as file, pytest.raises(UnreadableError, match="2 bytes from 8 on, and not"):
        await source_of(file=file, offset=8, count=3)
    source = await source_of(path=str(ten))
    with pytest.raises(UnreadableError, match="has 10 bytes, and not 11, its Content-Length"):
        source.limit(11)
    source.limit(4)
    assert await content(source) == b"0123"


@on_loop
async def test_a_file_that_becomes_shorter(ten: Path) -> None:
    """What was counted on is not there any more."""
    source = await source_of(path=str(ten))
    assert await source.read(4) == b"0123"
    os.truncate(ten, 2)
    with pytest.raises(UnreadableError, match="has become shorter while it was sent"):
        await source.read(4)
    source.close()


@on_loop
async def test_an_error_of_the_disk(ten: Path) -> None:
    """Is the file's, in the system's words or in Python's."""
    source = await source_of(path=str(ten))

    def fail(error: OSError) -> None:
        raise error

    with pytest.raises(UnreadableError, match="Input/output error"):
        await source.use(fail, OSError(5, "Input/output error"))
    with pytest.raises(UnreadableError, match="odd"):
        await source.use(fail, OSError("odd"))
    source.close()


@on_loop
async def test_what_is_in_memory_can_be_told(ten: Path) -> None:
    """What was just written is; beyond the end, or without a descriptor, nothing is."""
    source = await source_of(path=str(ten))
    assert source.cached(10)
    os.close(source.number)
    assert not source.cached(10)
    os.open(ten, os.O_RDONLY)  # the same number again
    source.close()


def is_open(number: int) -> bool:
    """Say whether the descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@on_loop
async def test_a_thread_is_not_robbed_of_its_descriptors(ten: Path) -> None:
    """Closed while a thread reads, they are let go by the thread, at its end."""
    source = await source_of(path=str(ten))
    number, begun, go = source.number, threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        go.wait()

    reading = asyncio.ensure_future(source.use(read))
    await asyncio.get_running_loop().run_in_executor(None, begun.wait)
    source.close()
    assert is_open(number)
    go.set()
    await reading
    assert not is_open(number)


@on_loop
async def test_a_thread_that_comes_too_late_does_nothing(ten: Path) -> None:
    """The number may be somebody else's by then."""
    source = await source_of(path=str(ten))
    number = source.number
    source.close()
    assert not is_open(number)
    assert await source.use(pytest.fail, "it was closed") is None
    source.close()


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], None),
        ([(b"a", b"b"), (b"Content-Length", b"12")], 12),
        ([(b"content-length", b"many")], None),
        ([("content-length", "12")], None),
        ([(1, 2)], None),
        ([b"odd"], None),
    ],
)
def test_the_announced_length(headers: Any, length: int | None) -> None:
    """Is what Content-Length says; wrong headers are somebody else's to judge."""
    assert announced(headers) == length
