"""What a listener shows its TLS clients, and how it changes while the worker serves.

Theory. A connection begins with the context of `Credentials.context`, which has no certificate; as
soon as the client has said which name it wants, `_choose` moves the connection to the context that
has it. Two things follow. A certificate is replaced by putting another context in its place: the
handshakes that run keep what they have, and nothing of the old pair is left over, whatever kind its
key was. And session tickets are sealed by the keys of the first context, which stays: it is made in
the zygote, so that all workers of a generation resume each other's sessions, and a client's session
outlives the certificate.

One thing ends them: other authorities for client certificates. A resumed session is not verified
again, and who is not believed any more must not come in with an old ticket.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from daphne_supervisor.errors import BootError
from daphne_supervisor.worker import tls_pem
from daphne_supervisor.worker.tls import Presented, configure, plain_reason, present, trust

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from daphne_supervisor.config_tls import Tls
    from daphne_supervisor.endpoints import TlsFiles
    from daphne_supervisor.worker.tls_pem import Pair

__all__ = ["Credentials", "Line", "cause"]

_VARIABLE = "env:"

Line = tuple[int, str]
"""Something to log: level and text."""

_Contents = dict[str, bytes]
"""What is in the files, by their paths."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What clients are shown: a context for each name, one for all others, and the pairs in use."""

    names: dict[str, Presented]
    default: Presented
    pairs: tuple[Pair, ...]


class Credentials:
    """The certificates and keys of one endpoint, or of --certfile.

    `context` is what a connection is accepted with. `where` names the option in messages.
    """

    context: ssl.SSLContext

    def __init__(self, files: TlsFiles, tls: Tls, where: str) -> None:
        """Read the `files` and speak TLS as `tls` says. Raises `BootError`, which names a file."""
        self._files = files
        self._tls = tls
        self.where = where
        self._seen = self._signature()
        self._settled = False
        self._contents = self._read()
        self._shown = self._load(self._contents)
        self.context = self._accepting(self._contents)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The certificates that are in use."""
        return self._shown.pairs

    # -- while the worker serves --

    def look(self) -> list[Line]:
        """See whether a file has changed, and take up what it holds now; to be called often.

        Returns what there is to log. What cannot be taken up leaves everything as it is. That is
        said once, and not before the files have stayed as they are for one look: somebody may be
        in the middle of writing them.
        """
        seen = self._signature()
        if seen == self._seen and self._settled:
            return []
        # Once more after each change: the clock of files ticks slowly, and a second change within
        # one tick would not show.
        self._settled = seen == self._seen
        self._seen = seen
        try:
            return self._take_up(self._read())
        except BootError as error:
            text = f"TLS: {error}; what was served before is still served"
            return [(logging.WARNING, text)] if self._settled else []

    def _take_up(self, contents: _Contents) -> list[Line]:
        if contents == self._contents:
            return []
        shown, lines = self._load(contents), []
        path = self._tls.ca_certs
        if path and contents.get(path) != self._contents.get(path):
            self.context = self._accepting(contents)
            text = f"TLS: other authorities in {path}; sessions of before are not resumed"
            lines.append((logging.INFO, text))
        known = {pair.leaf for pair in self.pairs}
        self._contents, self._shown = contents, shown
        new = [pair for pair in shown.pairs if pair.leaf not in known]
        lines += [(logging.INFO, f"TLS: {pair.label} has been taken up") for pair in new]
        return lines

    def unreadable(self) -> list[str]:
        """Return the files that this process could not read if they were replaced.

        A worker that has given up root's rights may be one that cannot.
        """
        try:
            return [path for path in self._paths() if not os.access(path, os.R_OK)]
        except OSError:
            return [self._files.directory]

    def rest(self) -> None:
        """Take what the files are like now for what they were like when they were read."""
        self._seen, self._settled = self._signature(), True

    # -- files --

    def _paths(self) -> list[str]:
        """Return the files that all this is made of. Raises `OSError` for a directory."""
        files = self._files
        named = (files.certificate, files.private_key, files.chain)
        listed = tls_pem.pem_files(files.directory) if files.directory else ()
        return list(dict.fromkeys(path for path in (*named, *listed, *self._others()) if path))

    def _others(self) -> tuple[str, ...]:
        """Return the files that hold neither certificates of ours nor keys."""
        password = self._tls.keyfile_password or ""
        password = "" if password.startswith(_VARIABLE) else password
        authorities = self._tls.ca_certs if self._tls.client_certs != "none" else ""
        return (self._files.dh_parameters, authorities or "", password)

    def _signature(self) -> tuple[object, ...]:
        """Return what changes when a file does: a link that points elsewhere is a change too."""
        try:
            return tuple(map(_mark, self._paths()))
        except OSError as error:
            return (error.errno,)

    def _read(self) -> _Contents:
        path = self._files.directory
        contents = {}
        try:
            for path in self._paths():
                contents[path] = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            message = f"{self._origin(path)}: {path!r} cannot be read: {cause(error)}"
            raise BootError(message) from None
        return contents

    def _origin(self, path: str) -> str:
        """Return the option that has named the file at `path`."""
        options = {
            self._tls.ca_certs: "--ca-certs",
            self._tls.keyfile_password: "--keyfile-password",
        }
        return options.get(path, self.where)

    def _password(self, contents: _Contents) -> bytes:
        """Return the password of encrypted keys."""
        place = self._tls.keyfile_password
        if place is None:
            message = f"{self.where}: the private key is encrypted, and needs --keyfile-password"
            raise BootError(message)
        if place.startswith(_VARIABLE):
            found = os.environ.get(place.removeprefix(_VARIABLE))
            if found is None:
                message = f"--keyfile-password {place}: there is no such variable"
                raise BootError(message)
            return found.encode()
        lines = contents[place].splitlines()
        return lines[0] if lines else b""

    # -- contexts --

    def _load(self, contents: _Contents) -> _Shown:
        """Return what clients are shown when `contents` is in the files. Raises `BootError`."""
        try:
            pairs = self._pairs(contents)
        except tls_pem.PemError as error:
            message = f"{self.where}: {error}"
            raise BootError(message) from None
        contexts = {pair: self._context(contents, pair) for pair in pairs}
        return _choice(contexts, time.time())

    def _pairs(self, contents: _Contents) -> list[Pair]:
        files = self._files
        if not files.directory:
            chain = b""
            if files.chain:
                chain = tls_pem.certificates(files.chain, contents[files.chain])
                if not chain:
                    message = f"extraCertChain {files.chain!r} holds no certificate in PEM"
                    raise tls_pem.PemError(message)
            own, key = contents[files.certificate], contents[files.private_key]
            return [tls_pem.pair(files.certificate, own, key, chain)]
        others = self._others()
        found = [(path, data) for path, data in contents.items() if path not in others]
        pairs = tls_pem.pairs(found, partial(self._password, contents))
        if not pairs:
            message = f"{files.directory!r} has no certificate with its private key in *.pem"
            raise tls_pem.PemError(message)
        return pairs

    def _context(self, contents: _Contents, pair: Pair | None) -> Presented:
        """Return a context with `pair`, or with no certificate."""
        dh = self._files.dh_parameters
        context = configure(self._tls, self._files.method, contents[dh] if dh else b"", self.where)
        if self._tls.ca_certs and self._tls.client_certs != "none":
            self._trust(context, self._tls.ca_certs, contents[self._tls.ca_certs])
        if pair is not None:
            try:
                present(context, pair, partial(self._password, contents))
            except (OSError, ValueError) as error:
                reason = plain_reason(error)
                if "PEM lib" in reason:  # all that Python says where no key could be read
                    reason = "there is no private key that can be read, or not with this password"
                message = f"{self.where}: {self._pair_text(pair)}: {reason}"
                raise BootError(message) from None
        return context

    def _trust(self, context: Presented, path: str, data: bytes) -> None:
        try:
            authorities = tls_pem.certificates(path, data)
            if authorities:
                trust(context, authorities)
                return
            reason = "holds no certificate in PEM"
        except tls_pem.PemError as error:
            reason = str(error)
        except (OSError, ValueError) as error:
            reason = plain_reason(error)
        message = f"--ca-certs {path!r}: {reason}"
        raise BootError(message)

    def _pair_text(self, pair: Pair) -> str:
        files = self._files
        if files.directory:
            return f"{pair.place!r} and its private key"
        key, certificate = "privateKey", "certKey"
        if self.where == "--certfile":
            key, certificate = "--keyfile", "--certfile"
        return f"{key} {files.private_key!r} and {certificate} {files.certificate!r}"

    def _accepting(self, contents: _Contents) -> Presented:
        """Return the context that a connection begins with."""
        context = self._context(contents, None)
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Move a connection to the context for the `name` that its client wants, if it wants one.

        OpenSSL asks in every handshake, resumed or not.
        """
        shown = self._shown
        found = None
        if name:
            name = name.lower()
            found = shown.names.get(name) or shown.names.get("*." + name.partition(".")[2])
        connection.context = found or shown.default


def cause(error: Exception) -> str:
    """Return why a file cannot be read, and what helps a worker that has given up its rights."""
    reason = plain_reason(error)
    if isinstance(error, PermissionError):
        reason += " (HUP has it read as the master's user)"
    return reason


def _mark(path: str) -> tuple[object, ...]:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        return (path, getattr(error, "errno", None))
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (path, found.st_dev, found.st_ino, found.st_size, *times)


def _choice(contexts: dict[Pair, Presented], now: float) -> _Shown:
    """Choose for each name the certificate that is valid, and that longest.

    Who names nobody, or a stranger, is shown what the first name in the order of files is.
    """
    by_name: dict[str, Pair] = {}
    for pair in sorted(contexts, key=lambda each: (each.begins <= now, each.expires)):
        by_name.update(dict.fromkeys(pair.names, pair))
    first = next(iter(contexts))
    default = by_name[first.names[0]] if first.names else first
    names = {name: contexts[pair] for name, pair in by_name.items()}
    return _Shown(names, contexts[default], _distinct([default, *by_name.values()]))


def _distinct(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(dict.fromkeys(pairs))
