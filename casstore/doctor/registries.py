"""Whether registries answer, and take the credentials that there are for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from casstore.credentials import CredentialSource, DockerConfig
from casstore.doctor.findings import Finding, note, ok, problem, warning
from casstore.errors import CasstoreError, HelperFailed, NotFound, RegistryError
from casstore.registry.options import RegistryOptions
from casstore.registry.probe import Answer, probe
from casstore.registry.urls import is_local

MOST = 16
"""Registries of the files of passwords that are asked."""
SKEW = 120
"""Seconds by which two clocks may differ: tokens live for minutes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A registry to ask, with the credentials for a repository, or for the host as a whole."""

    host: str
    repository: str = ""


def known(files: Sequence[DockerConfig], options: RegistryOptions) -> Iterator[str | Finding]:
    """The registries that the files of passwords name, and what is wrong with these files. Where the passwords would go
    unprotected only those of this machine: whoever means another one names it.
    """
    hosts: set[str] = set()
    unprotected = options.plain_http or options.insecure
    for file in files:
        try:
            found = file.hosts()
        except CasstoreError as error:
            fix = "mend it, or remove it and run casstore login HOST"
            yield problem("credentials", file.path, str(error), fix)
        else:
            for host in found:
                if host not in hosts and unprotected and not is_local(urlsplit(f"//{host}").hostname or ""):
                    text = "it was not asked: its password is there, and would go to it unprotected"
                    yield note("registry", host, text, f"casstore doctor {host}")
                elif host not in hosts:
                    yield host
            hosts.update(found)


def helpers(files: Sequence[DockerConfig], search_path: str) -> Iterator[Finding]:
    """Whether the credential helpers that the files name are installed."""
    programs: dict[str, str] = {}
    for file in files:
        try:
            programs |= dict.fromkeys(file.helper_programs(), file.path)
        except HelperFailed as error:
            yield problem("helpers", file.path, str(error), f"correct the name in {file.path}")
        except CasstoreError:
            continue  # said of the file already
    for program, path in sorted(programs.items()):
        folders = os.pathsep.join(folder for folder in search_path.split(os.pathsep) if os.path.isabs(folder))
        place = shutil.which(program, path=folders)
        if place is None:
            fix = f"install it, or take it out of {path}"
            yield problem("helpers", program, f"{path} names it, and it is not on the search path", fix)
        else:
            yield ok("helpers", program, place)


def proxy(options: RegistryOptions) -> Iterator[Finding]:
    """Through what registries are reached; nothing where that is nothing."""
    if options.proxy is not None:
        parts = urlsplit(options.proxy)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password
        spared = f", but for {', '.join(options.no_proxy)}" if options.no_proxy else ""
        yield note("proxy", where, f"registries are reached through it{spared}", "--proxy none goes without")


def ask(asked: Asked, options: RegistryOptions, credentials: CredentialSource) -> Iterator[Finding]:
    """Whether a registry answers, lets us in, and has the same time."""
    host = asked.host
    scheme = "http" if options.plain_http else "https"
    try:
        answer = probe(host, options, credentials, repository=asked.repository)
    except HelperFailed as error:
        yield problem("login", host, str(error), f"casstore login {host}")
        return
    except (RegistryError, NotFound) as error:
        yield problem("registry", host, _plain(error, host), _reach(str(error), host, options))
        return
    if options.plain_http:
        text = "it answers over http: anybody on the way can read and change what is moved"
        yield note("registry", host, text, "digests are checked, passwords are not protected")
    elif options.insecure:
        yield warning("registry", host, "its certificate was not checked", "--ca-bundle FILE names the CA to trust")
    else:
        yield ok("registry", host, f"it answers over {scheme}")
    yield _login(host, answer, options)
    if answer.time is not None:
        yield _clock(host, answer.time)


def _reach(text: str, host: str, options: RegistryOptions) -> str:
    # At the end, where nothing stands that a registry has said.
    if text.endswith("try --plain-http") and not options.plain_http:
        return f"casstore doctor {host} --plain-http"
    if text.endswith("--insecure"):
        return f"casstore doctor {host} --ca-bundle FILE"
    return f"curl -v {'http' if options.plain_http else 'https'}://{host}/v2/ shows more"


def _plain(error: CasstoreError, host: str) -> str:
    """The text of an error, without the subject, which is told anyway."""
    return str(error).removeprefix(f"{host}: ")


def _login(host: str, answer: Answer, options: RegistryOptions) -> Finding:
    again = f"casstore login {host}{' --plain-http' if options.plain_http else ''}"
    if answer.refused is not None:
        return problem("login", host, _plain(answer.refused, host), again)
    if answer.told_who:
        return ok("login", host, "it takes the credentials")
    if answer.asked_who:
        return note("login", host, "it lets in who says nothing, maybe to read only", again)
    return ok("login", host, "it asks nobody who they are")


def _clock(host: str, time: datetime) -> Finding:
    now = datetime.now(UTC)
    apart = (now - time).total_seconds()
    if abs(apart) > SKEW:
        which = "ahead of" if apart > 0 else "behind"
        text = f"the clock here is {abs(apart) / 60:.0f} minutes {which} that of the registry"
        return warning("clock", host, text, "set the clock: timedatectl set-ntp true")
    return ok("clock", host, "the registry has the same time")
