"""Where the broker is met: real sockets, and who may connect."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor.broker.address import connect, is_trusted, listen, pid_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Sock:
    """A socket whose peer is whoever the test says."""

    def __init__(self, user: int) -> None:
        """Be connected to a process of `user`."""
        self._user = user

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Return the peer's credentials, as the kernel would."""
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return b"".join(one.to_bytes(4, "little") for one in (1234, self._user, 0))


def test_each_listener_has_an_address_of_its_own_without_a_file() -> None:
    """Two masters on a machine do not meet, and the kernel removes what a killed one leaves."""
    with listen() as one, listen() as other:
        assert text_of(one) != text_of(other)
        assert text_of(one).startswith("@")
        assert not os.path.exists(text_of(one)[1:])


def test_whoever_knows_the_address_can_connect() -> None:
    """What the variable says is enough; neither side blocks."""
    with listen() as listener, connect(text_of(listener)) as near:
        far, _ = listener.accept()
        with far:
            near.send(b"hello")
            assert far.recv(10) == b"hello"
            assert near.gettimeout() == 0


def test_an_address_where_nobody_listens_is_an_error() -> None:
    """A process that has outlived its master is told so at once."""
    with listen() as listener:
        address = text_of(listener)
    with pytest.raises(ConnectionRefusedError):
        connect(address)


@pytest.mark.parametrize(
    ("user", "trusted"),
    [(lambda: 0, True), (os.geteuid, True), (lambda: os.geteuid() + 1, False)],
    ids=["root", "ourselves", "somebody else"],
)
def test_only_root_and_our_own_user_are_trusted(user: Callable[[], int], *, trusted: bool) -> None:
    """The socket has no permissions, so the kernel is asked who the other side is."""
    assert is_trusted(Sock(user())) is trusted  # type: ignore[arg-type]


def test_the_kernel_tells_which_process_is_at_the_other_end() -> None:
    """For the log."""
    near, far = socket.socketpair()
    with near, far:
        assert pid_of(near) == os.getpid()


def test_a_listener_of_another_user_is_left_at_once() -> None:
    """Whoever has taken the name after the master's end gets no message of ours."""
    with listen() as listener, pytest.raises(PermissionError, match="another user listens there"):
        connect(text_of(listener), trusted=lambda _: False)


def test_a_socket_that_cannot_listen_is_closed() -> None:
    """A system that forbids such sockets makes an error and leaves nothing open."""

    class Forbidden(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), address)

    made: list[Forbidden] = []

    def make() -> Forbidden:
        made.append(Forbidden(socket.AF_UNIX, socket.SOCK_STREAM))
        return made[-1]

    with pytest.raises(PermissionError):
        listen(make)
    assert made[0].fileno() == -1
