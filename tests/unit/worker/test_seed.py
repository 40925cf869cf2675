"""What workers grow from: the imported application, and what of it cannot be forked."""

from __future__ import annotations

import logging
import socket
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from daphne_supervisor.config import App, Config, Tls
from daphne_supervisor.endpoints import Endpoint, TlsFiles
from daphne_supervisor.errors import BootError
from daphne_supervisor.listeners import Listener
from daphne_supervisor.worker import main
from daphne_supervisor.worker.seed import Seed
from daphne_supervisor.worker.tls_credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION = """
async def application(scope, receive, send):
    pass
"""


@pytest.fixture(autouse=True)
def same_modules() -> Iterator[None]:
    """Forget what a test has imported, and where it looked; begin without Django."""
    modules, path = dict(sys.modules), list(sys.path)
    for name in [name for name in modules if name.partition(".")[0] == "django"]:
        del sys.modules[name]
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.modules.update(modules)


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    """Return a seed for the application in `shop.py`, which does nothing but to be there."""
    release(tmp_path, "")
    return Seed(Config(application="shop:application", app=App(app_dir=str(tmp_path))), ())


def release(folder: Path, code: str) -> None:
    """Put an application on the disk that runs `code` when it is imported."""
    (folder / "shop.py").write_text(code + APPLICATION)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of."""
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_the_application_is_imported_once_and_handed_to_each_worker(seed: Seed) -> None:
    """A worker that is given one does not import its own."""
    given: list[tuple[Any, ...]] = []
    before, main.run = main.run, lambda *arguments: given.append(arguments) or 7
    try:
        seed.preload()
        assignment: Any = object()
        assert seed.run(assignment) == 7
    finally:
        main.run = before
    ((first, contexts, application),) = given
    assert first is assignment
    assert contexts == ()
    assert application is sys.modules["shop"].application


def test_without_preload_workers_import_it_themselves(seed: Seed) -> None:
    """Then a worker gets nothing."""
    given: list[tuple[Any, ...]] = []
    before, main.run = main.run, lambda *arguments: given.append(arguments) or 7
    try:
        seed.run(SimpleNamespace())  # type: ignore[arg-type]
    finally:
        main.run = before
    assert given[0][2] is None
    assert "shop" not in sys.modules


def test_there_are_credentials_for_each_listener_that_speaks_tls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Made once, and once for the same files, so that all resume each other's sessions."""
    caplog.set_level(logging.INFO)
    issued = trustme.CA().issue_cert("localhost")
    file = str(tmp_path / "all.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(file)
    files = TlsFiles(file, file)
    config = Config(application="shop:application", tls=Tls(certfile=file))
    with socket.socket() as unbound:
        listeners = tuple(
            Listener(unbound, Endpoint(kind="tcp", text="x", origin=origin, tls=tls), "somewhere")
            for tls, origin in ((None, "-e"), (files, "-e"), (None, "--port"))
        )
        plain, encrypted, optional = Seed(config, listeners)._credentials
        assert plain is None
        assert isinstance(encrypted, Credentials)
        assert encrypted is optional
        assert [each.getMessage() for each in caplog.records] == [
            f"TLS: certificate {file} (localhost) is valid until 3000-01-01 00:00 UTC"
        ]
        (tmp_path / "all.pem").write_text("nothing of the kind")
        with pytest.raises(BootError, match=r"^-e x: .*all\.pem' holds no certificate"):
            Seed(config, listeners)
        with pytest.raises(BootError, match=r"^--certfile: .*all\.pem' holds no certificate"):
            Seed(config, listeners[2:])


def test_an_application_that_is_harmless_is_not_warned_of(
    seed: Seed, caplog: pytest.LogCaptureFixture
) -> None:
    """What was there before is not the application's doing."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        seed.preload()
    assert warnings(caplog) == []


def test_an_application_that_cannot_be_imported_is_told(seed: Seed, tmp_path: Path) -> None:
    """In the words that a worker would use."""
    release(tmp_path, "1 / 0\n")
    with pytest.raises(BootError, match="cannot be imported: ZeroDivisionError"):
        seed.preload()


def test_a_thread_is_named(seed: Seed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Threads do not survive a fork, their locks do."""
    release(
        tmp_path,
        "import threading\nend = threading.Event()\n"
        "thread = threading.Thread(target=end.wait, name='metrics')\nthread.start()\n",
    )
    seed.preload()
    sys.modules["shop"].end.set()
    sys.modules["shop"].thread.join()
    assert warnings(caplog) == [
        "--preload: the application has started the thread 'metrics', and is forked with it"
    ]


def test_a_reactor_is_named(seed: Seed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ours cannot be installed beside it, and its descriptors would be shared."""
    release(
        tmp_path,
        "import sys\nclass FastReactor: pass\n"
        "sys.modules['twisted.internet.reactor'] = FastReactor()\n",
    )
    seed.preload()
    assert warnings(caplog) == [
        "--preload: the application has installed a reactor, FastReactor, and is forked with it"
    ]


@pytest.mark.parametrize("kind", ["tcp", "unix", "abstract"])
def test_a_connection_is_named(
    seed: Seed, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Two workers that talk over one connection mix up their answers."""
    with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as server:
        names: dict[str, Any] = {
            "tcp": ("127.0.0.1", 0),
            "unix": str(tmp_path / "db"),
            "abstract": f"\0{tmp_path}",
        }
        server.bind(names[kind])
        server.listen()
        address = server.getsockname()
        release(
            tmp_path,
            f"import socket\nconnection = socket.socket(socket.{server.family.name})\n"
            f"connection.connect({address!r})\npair = socket.socketpair()\n"
            "unused = socket.socket()\n",
        )
        seed.preload()
        shop = sys.modules["shop"]
        number = shop.connection.fileno()
        for one in (shop.connection, *shop.pair, shop.unused):
            one.close()
    called = {
        "tcp": f"127.0.0.1 port {address[1]}",
        "unix": str(tmp_path / "db"),
        "abstract": f"@{tmp_path}",
    }
    assert warnings(caplog) == [
        (
            f"--preload: the application has opened a connection to {called[kind]}"
            f" (descriptor {number}), and is forked with it"
        )
    ]


# Django


class Connection:
    """As much of a connection of Django's as is looked at."""

    def __init__(self, alias: str, connection: object) -> None:
        """Be connected by `connection`, or None."""
        self.alias = alias
        self.connection = connection

    def close(self) -> None:
        """Be closed."""
        self.connection = None


class Connections:
    """As much of Django's handler of connections as is looked at."""

    def __init__(self, *initialized: Connection) -> None:
        """Hold these, and a default one that nobody has used yet."""
        self.initialized = initialized

    def all(self, *, initialized_only: bool) -> tuple[Connection, ...]:
        """Return them."""
        assert initialized_only, "it would make connections that nobody wants"
        return self.initialized


def django(connections: Connections, *, configured: bool = True) -> None:
    """Let Django be imported with these connections."""
    for name, attributes in {
        "django.conf": {"settings": SimpleNamespace(configured=configured)},
        "django.db": {"connections": connections},
    }.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)


def test_connections_of_django_are_closed_and_named(
    seed: Seed, caplog: pytest.LogCaptureFixture
) -> None:
    """A query at import does no harm then; a connection that was never opened is not named."""
    used, unused = Connection("default", object()), Connection("replica", None)
    django(Connections(used, unused))
    seed.preload()
    assert warnings(caplog) == [
        (
            "--preload: the application has used the database 'default' at import; its connection"
            " is closed before the fork"
        )
    ]
    assert used.connection is None


def test_django_without_settings_is_left_alone(
    seed: Seed, caplog: pytest.LogCaptureFixture
) -> None:
    """Channels imports it, and an application may use Channels without it."""
    django(Connections(Connection("default", object())), configured=False)
    seed.preload()
    assert warnings(caplog) == []


def test_what_views_do_at_import_is_seen_too(seed: Seed, caplog: pytest.LogCaptureFixture) -> None:
    """They are imported before the application is looked at, and before connections are closed."""
    used = Connection("default", None)
    django(Connections(used))

    def get_resolver() -> SimpleNamespace:
        used.connection = object()
        return SimpleNamespace(url_patterns=[])

    vars(sys.modules["django.conf"].settings).update(ROOT_URLCONF="shop.urls", DATABASES={})
    for name, attributes in {
        "django.apps": {"apps": SimpleNamespace(ready=True)},
        "django.urls": {"get_resolver": get_resolver},
        "django.template": {"engines": SimpleNamespace(all=list)},
    }.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    seed.preload()
    assert ["'default'" in text for text in warnings(caplog)] == [True]
    assert used.connection is None


def test_the_real_django_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The names that we use are the names that it has."""
    code = f"""
import warnings
from django.conf import settings
settings.configure(DATABASES={{
    "default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {str(tmp_path / "db")!r}}}
}})
from django.db import connections
with warnings.catch_warnings(action="ignore"), connections["default"].cursor() as cursor:
    cursor.execute("select 1")
"""
    release(tmp_path, code)
    config = Config(application="shop:application", app=App(app_dir=str(tmp_path)))
    Seed(config, ()).preload()
    assert ["'default'" in text for text in warnings(caplog)] == [True]
    assert sys.modules["shop"].connections["default"].connection is None
