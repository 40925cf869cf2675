"""TLS as its users see it: certificates, their replacement, sessions, clients with certificates."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import ssl
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trustme
from websockets.asyncio.client import connect

from tests.support.certificates import Authority
from tests.support.client import Client
from tests.support.daphne import APPS, Daphne, run_command
from tests.support.load import Load
from tests.support.tools import tool

if TYPE_CHECKING:
    from pathlib import Path

HELLO, PROBE = f"{APPS}:hello", f"{APPS}:probe"
PATIENCE = 10.0
"""Seconds for what is logged. Far more than it takes."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority whose files are in a fresh folder."""
    return Authority(tmp_path)


def options(authority: Authority, stem: str = "") -> list[str]:
    """Return the options for a certificate and its key."""
    place = f"{authority.folder}/{stem}"
    return ["--certfile", f"{place}all.pem", "--keyfile", f"{place}key.pem"]


def heard(server: Daphne, text: str) -> str:
    """Wait until the server has logged a line with `text`; return it."""
    deadline = time.monotonic() + PATIENCE
    while text not in server.log():
        assert time.monotonic() < deadline, f"not said: {text!r}\n{server.log()}"
        server.listen(0.05)
    return next(line for line in server.log().splitlines() if text in line)


def shown(server: Daphne, authority: Authority, name: str = "localhost") -> str:
    """Return the certificate of a new connection, which is served."""
    with Client(server.port, tls=authority.trust, name=name) as client:
        assert client.get("/").status == 200
        return client.certificate


# -- what is spoken --


async def _talk(uri: str, trust: ssl.SSLContext) -> None:
    """Send a message, and hear it again.

    Not with threads, of which one reads while another writes: before Python 3.13 an SSLSocket
    sometimes loses what is written then.
    """
    async with connect(uri, ssl=trust) as websocket:
        await websocket.send("over TLS")
        assert await asyncio.wait_for(websocket.recv(), 10) == "over TLS"


def test_a_port_speaks_tls(authority: Authority) -> None:
    """HTTP and WebSocket, and the application is told."""
    with Daphne(PROBE, *options(authority)) as server:
        with Client(server.port, tls=authority.trust) as client:
            scope = json.loads(client.get("/scope").text)
            assert client.secured.version() == "TLSv1.3"
        assert scope["scheme"] == "https"
        known = scope["extensions"]["tls"]
        assert known["server_cert"] == (authority.folder / "cert.pem").read_text()
        assert (known["tls_version"], known["client_cert_chain"]) == (0x0304, [])
        asyncio.run(_talk(f"wss://localhost:{server.port}/", authority.trust))
        assert "(localhost) is valid until 3000-01-01 00:00 UTC" in server.log()


def test_a_unix_socket_beside_it_speaks_plain_text(authority: Authority, tmp_path: Path) -> None:
    """And so does an endpoint that says so."""
    path = str(tmp_path / "socket")
    endpoint = "tcp:0:interface=127.0.0.1"
    arguments = (*options(authority), "-p", "0", "-u", path, "-e", endpoint)
    with Daphne(HELLO, *arguments) as server:
        plain, secure = server.ports
        for place, tls in ((path, None), (plain, None), (secure, authority.trust)):
            with Client(place, tls=tls) as client:
                assert client.get("/").status == 200


def test_an_inherited_socket_speaks_tls(authority: Authority) -> None:
    """Whoever has opened it: systemd, or somebody with --fd."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = options(authority)
        with (
            Daphne(HELLO, *arguments, activated=[listener.fileno()]),
            Client(port, tls=authority.trust) as client,
        ):
            assert client.get("/").status == 200


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--keyfile", "k.pem"), 2, "--keyfile: needs --certfile as well"),
        (("--client-certs", "required"), 2, "--client-certs: needs --ca-certs as well"),
        (
            ("--client-certs", "required", "--ca-certs", "ca.pem"),
            2,
            "--client-certs: nothing is listened on",
        ),
        (("--tls-min", "1.1"), 2, "--tls-min: '1.1' is not 1.2 or 1.3"),
        (("--certfile", "/nowhere.pem", "-e", "tcp:0"), 2, "--certfile: nothing is listened on"),
        (("--certfile", "/nowhere.pem"), 3, "'/nowhere.pem' cannot be read"),
        (("-e", "tls:/nowhere:0"), 3, "directory '/nowhere' cannot be read"),
        (("--certfile", "{all}", "--ciphers", "ROT13"), 3, "--ciphers 'ROT13': OpenSSL knows no"),
        (("--certfile", "{all}", "--keyfile", "{text}"), 3, "--keyfile '{text}' and --certfile"),
        (("--certfile", "{locked}"), 3, "needs --keyfile-password"),
        (("--certfile", "{locked}", "--keyfile-password", "{text}"), 3, "with this password"),
    ],
)
def test_a_mistake_is_one_line(
    authority: Authority, arguments: tuple[str, ...], code: int, named: str
) -> None:
    """It names the option, and shows no traceback."""
    authority.write("text.pem", b"nothing of the kind")
    encrypt(authority)
    places = {name: f"{authority.folder}/{name}.pem" for name in ("all", "text", "locked")}
    port = () if "-e" in arguments else ("-p", "0")
    ended = run_command("-v", "0", *port, *(each.format(**places) for each in arguments), HELLO)
    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == 1
    assert named.format(**places) in ended.stderr


def encrypt(authority: Authority) -> None:
    """Write `locked.pem`: certificate and key, which takes the password `hush`."""
    subprocess.run(
        ["openssl", "pkey", "-in", "key.pem", "-aes128", "-passout", "pass:hush", "-out", "x.pem"],
        cwd=authority.folder,
        check=True,
        capture_output=True,
        timeout=30,
    )
    places = [authority.folder / name for name in ("x.pem", "cert.pem", "chain.pem")]
    authority.write("locked.pem", b"".join(place.read_bytes() for place in places))


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_password_shows_nowhere(authority: Authority, way: str) -> None:
    """It opens the key, and is in no process's command line and in no log."""
    encrypt(authority)
    place, variables = str(authority.write("secret", b"hush\n")), {}
    if way == "variable":
        place, variables = "env:SHOP_KEY", {"SHOP_KEY": "hush"}
    arguments = ("--certfile", f"{authority.folder}/locked.pem", "--keyfile-password", place)
    with Daphne(HELLO, *arguments, env=variables) as server:
        assert shown(server, authority)
        everyone = [psutil.Process(server.pid), *server.workers(), *server.zygotes()]
        assert not [each for each in everyone if "hush" in " ".join(each.cmdline())]
        assert "hush" not in server.log()


def test_a_handshake_has_its_time(authority: Authority) -> None:
    """Who connects and says nothing is dropped, and the log names the option."""
    arguments = (*options(authority), "--tls-handshake-timeout", "1")
    with Daphne(HELLO, *arguments) as server, Client(server.port) as client:
        assert client.rest() == b""
        line = heard(server, "failed: not done within --tls-handshake-timeout")
        assert f"TLS handshake with 127.0.0.1:{client.port} failed" in line
        assert " INFO " in line
        assert shown(server, authority)


def test_strangers_make_no_tracebacks(authority: Authority) -> None:
    """Whatever they say instead of a handshake; who leaves at once is not worth a line."""
    with Daphne(HELLO, *options(authority)) as server:
        for data, reason in (
            (b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", "the client speaks plain HTTP"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "what the client speaks is no TLS"),
            (first_bytes("local\xffost"), "callback failed"),
        ):
            with Client(server.port) as client:
                client.send(data)
                with_end(client)
            heard(server, f"failed: {reason}")
        with Client(server.port):
            pass
        assert shown(server, authority)
        assert server.log().count("TLS handshake with") == 3
        assert "Traceback" not in server.log()


def with_end(client: Client) -> None:
    """Read to the end of the connection, however it ends."""
    try:
        client.rest()
    except ConnectionResetError:
        return


def first_bytes(name: str) -> bytes:
    """Return how a client begins that asks for the server `name`, as it stands there."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    stands = "a" * len(name)
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(down, up, server_hostname=stands).do_handshake()
    return up.read().replace(stands.encode(), name.encode("latin-1"))


def test_a_directory_has_a_certificate_for_each_name(authority: Authority) -> None:
    """As Twisted's `tls:` has it: by name, by wildcard, and the first one for everybody else."""
    (authority.folder / "d").mkdir()
    first = authority.issue("localhost", stem="d/a-")
    second = authority.issue("b.example", "*.b.example", stem="d/b-")
    endpoint = f"tls:{authority.folder}/d:port=0:interface=127.0.0.1"
    with Daphne(HELLO, "-e", endpoint) as server:
        assert shown(server, authority) == first
        assert shown(server, authority, "b.example") == second
        assert shown(server, authority, "www.b.example") == second
        third = authority.issue("c.example", stem="d/c-")
        heard(server, "(c.example) has been taken up")
        assert shown(server, authority, "c.example") == third


# -- sessions --


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("asked", ["none", "required"])
def test_any_worker_resumes_a_session(
    authority: Authority, version: ssl.TLSVersion, asked: str
) -> None:
    """Of 4, whichever has begun it, also when the certificate has been replaced meanwhile."""
    clients = ["--client-certs", asked, "--ca-certs", f"{authority.folder}/ca.pem"]
    arguments = [*options(authority), "--workers", "4", *(clients if asked != "none" else ())]
    trust = authority.client(authority.folder / "all.pem")
    trust.maximum_version = version
    # They stay, or one worker would serve them all: each has had its share in the end.
    with Daphne(HELLO, *arguments) as server, ExitStack() as stack:
        session, resumed, workers = None, 0, Counter[str]()
        for number in range(81):
            if number == 40:
                authority.issue()
                heard(server, "(localhost) has been taken up")
            client = stack.enter_context(Client(server.port, tls=trust, session=session))
            workers[client.get("/").text] += 1
            resumed += bool(client.secured.session_reused)
            session = client.secured.session
        assert len(workers) == 4, workers
        assert resumed >= 0.95 * 80


# -- replacement --


def test_a_replaced_certificate_is_shown_soon_and_costs_no_request(authority: Authority) -> None:
    """Within 2 s, while requests run on connections that are kept and on new ones."""
    old = authority.issue()
    with (
        Daphne(HELLO, *options(authority), "--workers", "2") as server,
        Load(server.port, 4, tls=authority.trust) as load,
    ):
        workers = server.worker_pids()
        seen = [shown(server, authority) for _ in range(10)]
        assert set(seen) == {old}
        new = authority.issue()
        replaced = time.monotonic()
        while time.monotonic() < replaced + 2.0:
            seen.append(shown(server, authority))
        assert {shown(server, authority) for _ in range(20)} == {new}
        assert set(seen) == {old, new}
        load.turn()
        assert server.worker_pids() == workers
    assert load.losses == []
    assert load.answered == load.sent
    assert server.final_log.count("has been taken up") == 1


def test_a_broken_replacement_changes_nothing_but_the_log(authority: Authority) -> None:
    """It is said once, with the file and the reason, and what is put right is taken up."""
    with Daphne(HELLO, *options(authority), "--workers", "2") as server:
        old = shown(server, authority)
        whole = authority.folder / "all.pem"
        authority.write("all.pem", whole.read_bytes()[:-100])
        line = heard(server, "ends within a block of PEM")
        assert "WARNING" in line
        assert f"'{whole}'" in line
        assert {shown(server, authority) for _ in range(10)} == {old}
        new = authority.issue(stem="new-")
        authority.write("all.pem", (authority.folder / "new-all.pem").read_bytes())
        assert "all.pem' and --certfile" not in heard(server, "key values mismatch")
        assert {shown(server, authority) for _ in range(10)} == {old}
        authority.write("key.pem", (authority.folder / "new-key.pem").read_bytes())
        heard(server, "has been taken up")
        deadline = time.monotonic() + PATIENCE  # the other worker may look a second later
        while {shown(server, authority) for _ in range(10)} != {new}:
            assert time.monotonic() < deadline
    assert server.final_log.count("ends within a block") == 1
    assert server.final_log.count("key values mismatch") == 1


def test_a_reload_reads_everything_anew(authority: Authority) -> None:
    """A broken pair makes it fail: the old workers stay, with what they have."""
    with Daphne(HELLO, *options(authority)) as server:
        new = authority.issue()
        server.replace_all()
        assert shown(server, authority) == new
        authority.write("all.pem", b"nothing of the kind")
        assert "reload failed, rolled back: --certfile: " in server.reload()
        assert shown(server, authority) == new


def test_a_certificate_that_ends_soon_is_warned_of(authority: Authority) -> None:
    """At the start, and when it is put there."""
    now = dt.datetime.now(dt.UTC)
    authority.issue(until=now + dt.timedelta(days=13, hours=23))
    with Daphne(HELLO, *options(authority)) as server:
        assert "WARNING" in heard(server, ", in 13 days")
        authority.issue(until=now - dt.timedelta(days=1))
        assert "ERROR" in heard(server, "has expired on")


# -- clients with certificates --


CASES: dict[str, dict[str, tuple[bool, str]]] = {
    "none": {"nobody": (True, ""), "known": (True, ""), "stranger": (True, "")},
    "optional": {
        "nobody": (True, ""),
        "known": (True, "known"),
        "stranger": (False, "unable to get local issuer certificate"),
        "expired": (False, "certificate has expired"),
    },
    "required": {
        "nobody": (False, "the client has no certificate (--client-certs required)"),
        "known": (True, "known"),
        "stranger": (False, "unable to get local issuer certificate"),
        "expired": (False, "certificate has expired"),
    },
}
"""By what is asked for and who comes: whether it is served, and as whom, or why not."""


@pytest.fixture
def visitors(authority: Authority, tmp_path: Path) -> dict[str, Path]:
    """Return the files of clients' certificates with their keys."""
    (tmp_path / "other").mkdir()
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    authority.issue("known.example", stem="known-")
    authority.issue("known.example", stem="expired-", until=yesterday)
    return {
        "known": tmp_path / "known-all.pem",
        "expired": tmp_path / "expired-all.pem",
        "stranger": Authority(tmp_path / "other").folder / "all.pem",
    }


def curl(
    server: Daphne, authority: Authority, pair: Path | None, *more: str
) -> dict[str, Any] | str:
    """Return the scope that curl is served with its certificate, or what it says of the failure."""
    shows = [] if pair is None else ["--cert", str(pair)]
    done = subprocess.run(
        [
            *(tool("curl", "curl"), "--silent", "--show-error", "--max-time", "10", *shows, *more),
            *("--cacert", f"{authority.folder}/ca.pem"),
            f"https://localhost:{server.port}/scope",
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        return done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("asked", CASES)
def test_clients_show_certificates(
    authority: Authority, visitors: dict[str, Path], asked: str
) -> None:
    """Who is not believed is refused in the handshake, is told so, and the log says why."""
    arguments = [*options(authority)]
    if asked != "none":
        arguments += ["--client-certs", asked, "--ca-certs", f"{authority.folder}/ca.pem"]
    with Daphne(PROBE, *arguments) as server:
        for who, (served, text) in CASES[asked].items():
            scope = curl(server, authority, visitors.get(who))
            assert isinstance(scope, dict) is served, (who, scope, server.log())
            if isinstance(scope, str):
                # A client of TLS 1.3 is done before we are, and has asked before it hears of the
                # alert: what is unread resets the connection. One of 1.2 waits for our last word.
                told = curl(server, authority, visitors.get(who), "--tls-max", "1.2")
                assert "alert" in told or "certificate verification failed" in told  # its own words
                line = heard(server, text)
                assert "TLS handshake with 127.0.0.1:" in line
                assert " INFO " in line
                continue
            known = scope["extensions"]["tls"]
            assert bool(known["client_cert_chain"]) is bool(text)
            assert (known["client_cert_name"] is not None) is bool(text)
            if text:
                pem = (authority.folder / f"{text}-cert.pem").read_text()
                assert known["client_cert_chain"][0] == pem
            assert known["client_cert_error"] is None
        assert "Traceback" not in server.log()


def test_other_authorities_are_taken_up(authority: Authority, visitors: dict[str, Path]) -> None:
    """Who was believed is not any more, and not with a session of before either."""
    place = f"{authority.folder}/ca.pem"
    both = [*options(authority), "--client-certs", "required", "--ca-certs", place]
    trust = authority.client(visitors["known"])
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with Daphne(HELLO, *both) as server:
        with Client(server.port, tls=trust) as client:
            client.get("/")
            session = client.secured.session
        authority.write("ca.pem", trustme.CA().cert_pem.bytes())
        heard(server, "other authorities in")
        with pytest.raises(ssl.SSLError), Client(server.port, tls=trust, session=session):
            pass
        heard(server, "unable to get local issuer certificate")


def test_a_session_does_not_outlive_its_client_s_certificate(
    authority: Authority,
) -> None:
    """Not even of a client that comes again and again, and has a new ticket each time."""
    clients = ("--client-certs", "required", "--ca-certs", f"{authority.folder}/ca.pem")
    with Daphne(HELLO, *options(authority), *clients) as server:
        soon = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=4)
        authority.issue("short.example", stem="short-", until=soon)
        trust = authority.client(authority.folder / "short-all.pem")
        session, resumed = None, 0
        with pytest.raises(OSError):  # noqa: PT011, PT012 - however it ends
            while True:
                with Client(server.port, tls=trust, session=session) as client:
                    client.get("/")
                    resumed += bool(client.secured.session_reused)
                    session = client.secured.session
        assert dt.datetime.now(dt.UTC) > soon
        assert resumed
        heard(server, "the certificate of its resumed session is refused: certificate has expired")
        assert "Traceback" not in server.log()
