"""Credential helpers: programs `docker-credential-NAME` that keep secrets in a keychain, a password manager, a cloud.

The protocol of github.com/docker/docker-credential-helpers: the action is the one argument, the registry goes in on
standard input (arguments are for everybody to see), and JSON comes out. A helper is somebody else's program: its name
is checked, its time and its output are limited, and what it writes is never shown before it is cut, escaped and
stripped of the secrets that are known.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO

from casstore.credentials.source import Credentials
from casstore.errors import DocumentError, HelperFailed
from casstore.jsondoc import load_object

_NAME = re.compile(r"[A-Za-z0-9._-]+\Z", re.ASCII)
_OUTPUT = 64 * 1024
"""Bytes that a helper may write."""
_COMPLAINT = 4 * 1024
"""Bytes of its standard error that are kept."""
_SHOWN = 200
_POLL = 0.05  # seconds
_NOT_FOUND = "credentials not found"
_TOKEN_USER = "<token>"  # noqa: S105  (the user name that says: the secret is an identity token)


@dataclass(frozen=True, slots=True)
class HelperOptions:
    """How helpers are found and run.

    `search_path`: folders, as in $PATH; relative ones are ignored. `environment`: all that a helper gets to see of it.
    `timeout`: seconds for one answer (a person may have to unlock a keychain).
    """

    search_path: str
    environment: Mapping[str, str] = field(repr=False)
    timeout: float = 30.0


class CredentialHelper:
    """One helper, by the NAME in `docker-credential-NAME`.

    Every method raises HelperFailed where the helper is missing, fails, hangs, or writes what is no answer.
    """

    def __init__(self, name: str, options: HelperOptions) -> None:
        """Raises HelperFailed: the name is none."""
        if not _NAME.match(name):
            raise HelperFailed(f"credential helper {ascii(name[:100])}: expected letters, digits, '.', '_' and '-'")
        self.program: str = f"docker-credential-{name}"
        self._options = options

    def get(self, server: str) -> Credentials | None:
        """What it keeps for `server`, or None."""
        code, out, err = self._run("get", server.encode())
        document: object = None
        with contextlib.suppress(DocumentError):
            document = load_object(out, subject=self.program, limit=_OUTPUT)
        secret = document.get("Secret") if isinstance(document, dict) else None
        if code != 0:
            if _not_found(out, err):
                return None
            raise self._failed("get", code, err, [secret] if isinstance(secret, str) else [])
        username = document.get("Username") if isinstance(document, dict) else None
        if not isinstance(username, str) or not isinstance(secret, str) or ":" in username:
            raise HelperFailed(f"{self.program} get: expected JSON with a Username without ':' and a Secret; {_ADVICE}")
        if not secret:
            return None
        if username == _TOKEN_USER:
            return Credentials(identity_token=secret, origin=self.program)
        return Credentials(username, secret, origin=self.program)

    def store(self, server: str, credentials: Credentials) -> None:
        """Let it keep a password or an identity token for `server`."""
        username, secret = credentials.username, credentials.password
        if credentials.identity_token is not None:
            username, secret = _TOKEN_USER, credentials.identity_token
        document = {"ServerURL": server, "Username": username, "Secret": secret}
        code, _, err = self._run("store", json.dumps(document).encode())
        if code != 0:
            raise self._failed("store", code, err, [secret])

    def erase(self, server: str) -> bool:
        """Let it forget what it keeps for `server`; whether there was anything."""
        if self.get(server) is None:
            return False
        code, out, err = self._run("erase", server.encode())
        if code != 0 and not _not_found(out, err):
            raise self._failed("erase", code, err, [])
        return True

    def _failed(self, action: str, code: int, err: bytes, secrets: Iterable[str]) -> HelperFailed:
        text = err.decode("utf-8", "replace")
        for secret in filter(None, secrets):
            for form in (secret, json.dumps(secret)[1:-1]):
                text = text.replace(form, "***")
        words = ascii(" ".join(text.split()))[1:-1][:_SHOWN]
        return HelperFailed(
            f"{self.program} {action}: expected exit code 0, got {code}" + (f" ({words})" if words else "") + _ADVICE
        )

    def _run(self, action: str, given: bytes) -> tuple[int, bytes, bytes]:
        """Exit code (negative: a signal), output, complaints."""
        options, subject = self._options, f"{self.program} {action}"
        folders = [folder for folder in options.search_path.split(os.pathsep) if os.path.isabs(folder)]
        program = shutil.which(self.program, path=os.pathsep.join(folders))
        if program is None:
            raise HelperFailed(f"{subject}: expected the program on the search path, found none; install it{_OR}")
        try:
            process = subprocess.Popen(
                [program, action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(options.environment),
                start_new_session=True,  # a process group to kill, with whatever the helper started
            )
        except OSError as error:
            raise HelperFailed(f"{subject}: cannot be run: {error.strerror}; install it{_OR}") from None
        with contextlib.ExitStack() as stack:
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None  # noqa: S101  (for mypy: all three are pipes)
                stack.callback(_close, stream)
            try:
                out, err = _exchange(process, given, time.monotonic() + options.timeout)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, (TimeoutError, subprocess.TimeoutExpired)):
                    raise HelperFailed(f"{subject}: no answer within {options.timeout:g} s{_ADVICE}") from None
                if isinstance(error, OverflowError):
                    raise HelperFailed(f"{subject}: expected at most {_OUTPUT} bytes, got more{_ADVICE}") from None
                raise
        return process.returncode, out, err


_OR = ", or take it out of the credentials file"
_ADVICE = f"; try it by hand{_OR}"


def _exchange(process: subprocess.Popen[bytes], given: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Write all of `given`, read output and complaints, wait for the end.

    Raises:
        TimeoutError, subprocess.TimeoutExpired: not by the deadline.
        OverflowError: more than _OUTPUT bytes of output.
    """
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin and stdout and stderr  # noqa: S101, PT018  (for mypy)
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, event in ((stdin, selectors.EVENT_WRITE), (stdout, selectors.EVENT_READ), (stderr, 1)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, event)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = selector.select(min(left, _POLL))
            if not ready and process.poll() is not None:
                break  # what it left running in the background (gpg-agent) may hold the pipes open for ever
            for key, _ in ready:
                if key.fileobj is stdin:
                    given = _write_some(stdin, given)
                    done = not given
                else:
                    kept, limit = (out, _OUTPUT) if key.fileobj is stdout else (err, _COMPLAINT)
                    data = os.read(key.fd, _OUTPUT)
                    kept += data[: limit + 1 - len(kept)]
                    done = not data
                if done:
                    selector.unregister(key.fileobj)
                    if key.fileobj is stdin:
                        _close(stdin)
            if len(out) > _OUTPUT:
                raise OverflowError
    process.wait(max(0.0, deadline - time.monotonic()))
    return bytes(out), bytes(err[:_COMPLAINT])


def _write_some(stream: IO[bytes], data: bytes) -> bytes:
    """What is still to write; nothing, once nobody reads."""
    try:
        return data[os.write(stream.fileno(), data) :]
    except BrokenPipeError:
        return b""


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def _not_found(out: bytes, err: bytes) -> bool:
    return any(text.strip().startswith(_NOT_FOUND.encode()) for text in (out, err))
