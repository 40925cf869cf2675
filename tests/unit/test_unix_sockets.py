"""The files of unix sockets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

from daphne_supervisor import unix_sockets
from daphne_supervisor.config import Bind
from daphne_supervisor.endpoints import Endpoint, parse
from daphne_supervisor.errors import BootError, UsageError
from daphne_supervisor.unix_sockets import SocketFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAEMON = grp.getgrnam("daemon")


def endpoint(path: Path | str, *more: str) -> Endpoint:
    """Return the endpoint that `-e unix:PATH` makes."""
    return parse(":".join([f"unix:{path}", *more]), "--endpoint")


@contextlib.contextmanager
def listening(
    path: Path | str, *more: str, bind: Bind | None = None, depth: int = 16
) -> Iterator[tuple[socket.socket, SocketFile]]:
    """Listen at `path`, and remove the file at the end."""
    sock, made = unix_sockets.listen(endpoint(path, *more), bind or Bind(), depth)
    with sock:
        yield sock, made
        made.remove()


def complaint(path: Path | str, *more: str, bind: Bind | None = None) -> str:
    """Return the line that tells why the socket cannot be made."""
    with pytest.raises(BootError) as caught, listening(path, *more, bind=bind):
        pytest.fail("it was made")
    return str(caught.value).removeprefix(f"{endpoint(path, *more).label}: ")


def reachable(path: Path) -> bool:
    """Return whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def foreign(path: Path, *, living: bool = False) -> socket.socket:
    """Return a socket bound to `path` by somebody who knows nothing of our lock."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    if living:
        sock.listen()
    return sock


def killed(path: Path) -> socket.socket:
    """Return the socket that the workers of a killed master still listen on."""
    sock, made = unix_sockets.listen(endpoint(path), Bind(), 16)
    made.lock.close()  # as the kernel does it
    return sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the socket is to be."""
    return tmp_path / "x.sock"


# Making


@pytest.mark.parametrize(
    ("more", "bind", "mode"),
    [
        ([], Bind(), 0o666),
        ([], Bind(uds_mode=0o640), 0o640),
        (["mode=600"], Bind(uds_mode=0o640), 0o600),
        (["mode=000"], Bind(), 0o000),
    ],
)
def test_a_socket_has_the_mode_asked_for(
    path: Path, more: list[str], bind: Bind, mode: int
) -> None:
    """An endpoint's own goes before --uds-mode, and the umask has no say."""
    before = os.umask(0o077)
    try:
        with listening(path, *more, bind=bind) as (sock, _):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert not sock.getblocking()
            assert not sock.get_inheritable()
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
@pytest.mark.parametrize("group", ["daemon", str(DAEMON.gr_gid)])
def test_a_socket_has_the_group_asked_for(path: Path, group: str) -> None:
    """By name or by number; the owner stays."""
    with listening(path, bind=Bind(uds_group=group)):
        assert path.stat().st_gid == DAEMON.gr_gid
        assert path.stat().st_uid == os.geteuid()


def test_a_group_that_does_not_exist_is_named(path: Path) -> None:
    """It is a mistake of usage, and nothing is left behind."""
    with pytest.raises(UsageError, match=r"^--uds-group 'no-such': there is no such group$"):
        unix_sockets.listen(endpoint(path), Bind(uds_group="no-such"), 16)
    assert list(path.parent.iterdir()) == []


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """Be nobody for a moment, in a directory of nobody's."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.chown(tmp_path, 65534, 65534)
    own = [each for each in tmp_path.parents if each.is_relative_to(tempfile.gettempdir())][:-1]
    for parent in own:
        parent.chmod(0o711)
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


@pytest.mark.usefixtures("as_nobody")
def test_a_group_that_may_not_be_given_is_named(path: Path) -> None:
    """Who is no member of a group cannot give it away."""
    with pytest.raises(BootError) as caught:
        unix_sockets.listen(endpoint(path), Bind(uds_group="daemon"), 16)
    assert str(caught.value) == (
        f"--uds-group daemon: --endpoint unix:{path} cannot have it: Operation not permitted"
    )
    assert list(path.parent.iterdir()) == []


def test_there_is_never_a_moment_without_a_socket(path: Path) -> None:
    """A stale file is replaced by one that is finished, while others look on.

    Whoever looks sees a socket with the right mode, and once the new one can be reached, always.
    """
    foreign(path).close()
    path.chmod(0o660)
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(path.lstat().st_mode)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(200):
            sock, made = unix_sockets.listen(endpoint(path), Bind(uds_mode=0o660), 16)
            sock.close()
            made.lock.close()
    finally:
        done.set()
        watcher.join()
    assert seen == {stat.S_IFSOCK | 0o660}


def test_the_names_beside_it_are_its_lock_only(path: Path) -> None:
    """The lock belongs to its owner alone, and all is gone at the end."""
    with listening(path):
        assert {each.name for each in path.parent.iterdir()} == {"x.sock", "x.sock.lock"}
        assert stat.S_IMODE((path.parent / "x.sock.lock").stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == []


def test_a_relative_path_is_remembered_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes the directory still finds the file, and it may lie deeper than a socket can."""
    monkeypatch.chdir(path.parent)
    with listening("x.sock") as (_, made):
        monkeypatch.chdir("/")
        assert made.path == str(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("length", [106, 107, 200])
def test_the_longest_path_is_named(tmp_path: Path, length: int) -> None:
    """Up to 106 bytes all is well; beyond, the line says how long it may be."""
    path = tmp_path / ("x" * (length - len(str(tmp_path)) - 1))
    if length > 106:
        assert complaint(path) == "cannot be listened on: longer than 106 bytes"
        return
    with listening(path):
        assert reachable(path)


def test_a_place_where_no_socket_can_be_is_explained(tmp_path: Path) -> None:
    """The system's reason is in the line."""
    path = tmp_path / "none" / "x.sock"
    assert complaint(path) == f"{path}.lock cannot be locked: No such file or directory"


def test_a_socket_that_cannot_be_finished_is_removed(path: Path) -> None:
    """A failure after the file was made leaves no file behind; a bug of ours is not disguised."""
    with pytest.raises(OverflowError):
        unix_sockets.listen(endpoint(path), Bind(), 2**70)
    assert list(path.parent.iterdir()) == []


def test_a_socket_that_was_not_renamed_is_cleared_away(path: Path) -> None:
    """Its maker was killed at that very moment."""
    foreign(path.with_name("x.sock~")).close()
    with listening(path):
        assert reachable(path)
    assert list(path.parent.iterdir()) == []


def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    """Editors make such names too."""
    path.with_name("x.sock~").write_text("precious")
    assert complaint(path) == f"{path}~ is in the way"
    assert path.with_name("x.sock~").read_text() == "precious"
    assert not path.with_name("x.sock.lock").exists()


@pytest.mark.usefixtures("as_nobody")
def test_what_the_system_refuses_is_told_in_its_words(path: Path) -> None:
    """The lock is there, but no socket may be made beside it."""
    path.with_name("x.sock.lock").touch()
    path.parent.chmod(0o500)
    try:
        assert complaint(path) == "cannot be listened on: Permission denied"
    finally:
        path.parent.chmod(0o700)


# Who lives


def test_a_stale_socket_is_replaced(path: Path) -> None:
    """A killed server without our lock does not keep us from starting."""
    foreign(path).close()
    with listening(path):
        assert reachable(path)
    assert list(path.parent.iterdir()) == []


def test_a_living_server_of_ours_is_left_alone(path: Path) -> None:
    """The lock tells, and both files stay what they are."""
    with listening(path):
        inodes = {each.name: each.stat().st_ino for each in path.parent.iterdir()}
        assert complaint(path) == "is in use by another process"
        assert {each.name: each.stat().st_ino for each in path.parent.iterdir()} == inodes
        assert reachable(path)


def test_a_living_server_without_our_lock_is_left_alone(path: Path) -> None:
    """The connect test tells, and no lock is left behind."""
    with foreign(path, living=True):
        assert complaint(path) == "is in use by another process"
        assert reachable(path)
    assert list(path.parent.iterdir()) == [path]


def test_the_workers_of_a_killed_master_do_not_keep_the_next_one_out(path: Path) -> None:
    """They still take connections; the lock is free, and says that the socket was made under it."""
    with killed(path) as orphaned:
        assert reachable(path)
        with listening(path) as (sock, _), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            connection, _ = sock.accept()
            connection.close()
        orphaned.settimeout(5)
        connection, _ = orphaned.accept()
        connection.close()
    assert list(path.parent.iterdir()) == []


def test_a_lock_left_behind_says_nothing_of_another_socket(path: Path) -> None:
    """A server without our lock came after a killed master of ours: it lives, and is left alone."""
    killed(path).close()
    path.unlink()
    with foreign(path, living=True):
        assert complaint(path) == "is in use by another process"
        assert path.with_name("x.sock.lock").exists()
    with listening(path):
        assert reachable(path)


def test_a_server_too_busy_to_accept_is_alive(path: Path) -> None:
    """A full backlog is no proof of death."""
    with foreign(path) as busy, contextlib.ExitStack() as stack:
        busy.listen(1)
        full = 0
        while full == 0:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            full = client.connect_ex(str(path))
        assert full == errno.EAGAIN
        assert complaint(path) == "is in use by another process"


def test_a_datagram_socket_is_left_alone(path: Path) -> None:
    """It is somebody's, though nothing of ours can connect to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert complaint(path) == "is in use by another process"
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    """A path typed wrong does not cost what is there, nor what a link points to."""
    other = path.with_name("other")
    if kind == "file":
        path.write_text("precious")
    else:
        foreign(other).close()
        path.symlink_to(other)
    before = set(path.parent.iterdir())
    assert complaint(path) == "exists and is no socket"
    assert set(path.parent.iterdir()) == before


def test_a_socket_that_may_not_be_asked_is_left_alone() -> None:
    """Where the connect test cannot be made, nothing is known, and nothing removed.

    Root may ask every socket: the code is given by hand.
    """
    assert unix_sockets._verdict(errno.EACCES) == "exists: Permission denied"


@pytest.mark.parametrize("reverse", [False, True])
def test_of_many_who_replace_one_stale_file_one_wins(path: Path, *, reverse: bool) -> None:
    """The others are told so, and the winner's socket is the one at the path."""
    foreign(path).close()
    if reverse:  # the lock of a Daphne that was killed, which has to go first
        path.with_name("x.sock.lock").symlink_to("4242")
    start = threading.Barrier(8)
    won: list[tuple[socket.socket, SocketFile]] = []
    lost: list[str] = []

    def enter() -> None:
        start.wait()
        try:
            won.append(unix_sockets.listen(endpoint(path), Bind(), 16))
        except BootError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [(sock, made)] = won
    assert set(lost) == {f"--endpoint unix:{path}: is in use by another process"}
    assert len(lost) == 7
    assert made.identity == (path.stat().st_dev, path.stat().st_ino)
    sock.close()
    made.remove()
    assert list(path.parent.iterdir()) == []


# Daphne's own lock


def test_the_lock_of_a_dead_daphne_is_removed(path: Path) -> None:
    """It is a link to a process id, which may be somebody else's by now; the socket tells."""
    foreign(path).close()
    path.with_name("x.sock.lock").symlink_to(str(os.getppid()))
    with listening(path):
        assert reachable(path)
    assert list(path.parent.iterdir()) == []


def test_a_living_daphne_is_left_alone(path: Path) -> None:
    """Its socket and its lock stay."""
    lock = path.with_name("x.sock.lock")
    lock.symlink_to("4242")
    with foreign(path, living=True):
        assert complaint(path) == "is in use by another process"
        assert lock.is_symlink()


def test_a_lock_that_is_another_link_is_left_alone(path: Path) -> None:
    """Nobody knows what it is for."""
    path.with_name("x.sock.lock").symlink_to("precious")
    assert complaint(path) == f"{path}.lock is a symbolic link"
    assert path.with_name("x.sock.lock").is_symlink()


def test_a_link_is_removed_by_one_at_a_time(path: Path) -> None:
    """Who is slower would remove the lock that the other has made in its place."""
    path.with_name("x.sock.lock").symlink_to("4242")
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert complaint(path) == "is in use by another process"
    finally:
        os.close(directory)
    with listening(path):
        unix_sockets._break_link(endpoint(path), f"{path}.lock")
        assert path.with_name("x.sock.lock").exists()


# Leaving


def test_a_file_that_replaced_ours_is_left_alone(path: Path) -> None:
    """At the end only the file that we made is removed."""
    with listening(path):
        path.unlink()
        path.write_text("of another server")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("gone", [["x.sock"], ["x.sock", "x.sock.lock"]])
def test_a_file_that_is_gone_is_not_missed(path: Path, gone: list[str]) -> None:
    """Somebody cleaned up before us."""
    with listening(path):
        for name in gone:
            path.with_name(name).unlink()
    assert list(path.parent.iterdir()) == []


def test_the_last_of_two_masters_removes_the_file(path: Path) -> None:
    """During an upgrade both hold the lock; whoever leaves first leaves the file to the other."""
    with listening(path) as (_, old):
        exported = old.export()
        exported["lock"] = os.dup(old.lock.fileno())
        new = SocketFile.adopt(**exported)  # type: ignore[arg-type]
        assert (new.path, new.identity) == (old.path, old.identity)
        assert not os.get_inheritable(new.lock.fileno())
        new.remove()
        assert reachable(path)
        assert complaint(path) == "is in use by another process"
        new.remove()
        assert reachable(path)
    assert list(path.parent.iterdir()) == []


def test_a_file_of_who_came_after_us_survives_a_second_removal(path: Path) -> None:
    """Removing what is removed does nothing more."""
    with listening(path) as (_, made):
        made.remove()
        with listening(path):
            made.remove()
            assert reachable(path)
