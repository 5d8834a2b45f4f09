"""All checks, one after the other: what one of them cannot bear is a finding, and does not keep the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from casstore.doctor import machine
from casstore.doctor.findings import Finding, note, problem
from casstore.errors import CasstoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from casstore.credentials import CredentialSource, DockerConfig
    from casstore.doctor.registries import Asked
    from casstore.registry.options import RegistryOptions

_REPORT = "run it again with --debug before the verb, and report it"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the machine is looked at besides the store."""

    microsandbox_home: str
    search_path: str = field(repr=False)
    """Where programs are looked for, as in $PATH."""


def diagnose(path: str, surroundings: Surroundings) -> Iterator[Finding]:
    """All that concerns this machine and the store at `path`, which may be missing. Nothing is changed."""
    yield from guarded("python", machine.python)
    yield from guarded("packages", machine.packages)
    yield from guarded("store", lambda: _store(path))
    yield from guarded("locks", lambda: _disk(path))
    yield from guarded("umask", machine.umask)
    home, search_path = surroundings.microsandbox_home, surroundings.search_path
    yield from guarded("microsandbox", lambda: machine.microsandbox(home, search_path))


def diagnose_registries(
    wanted: Sequence[Asked],
    options: RegistryOptions,
    credentials: CredentialSource,
    files: Sequence[DockerConfig],
    surroundings: Surroundings,
) -> Iterator[Finding]:
    """All that concerns registries: those that are `wanted`, else those that the `files` of passwords name."""
    from casstore.doctor import registries

    yield from guarded("helpers", lambda: registries.helpers(files, surroundings.search_path))
    yield from guarded("proxy", lambda: registries.proxy(options))
    asked = list(wanted)
    if not asked:
        for each in registries.known(files, options):
            if isinstance(each, Finding):
                yield each
            else:
                asked.append(registries.Asked(each))
    for registry in asked[: registries.MOST]:
        yield from guarded("registry", partial(registries.ask, registry, options, credentials))
    if len(asked) > registries.MOST:
        text = f"only {registries.MOST} of {len(asked)} registries were asked"
        yield note("registry", "", text, "casstore doctor HOST asks one")


def guarded(check: str, body: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that cannot go on has a problem for the last one."""
    try:
        yield from body()
    except ImportError as error:
        yield problem(check, error.name or "casstore", f"it cannot be looked at: {error}", machine.REINSTALL)
    except CasstoreError as error:
        yield problem(check, "", str(error), _REPORT)
    except OSError as error:
        yield problem(check, str(error.filename or ""), error.strerror or str(error), "look at the permissions")


def _store(path: str) -> Iterator[Finding]:
    from casstore.doctor import stored

    yield from stored.store(os.path.abspath(path))


def _disk(path: str) -> Iterator[Finding]:
    from casstore import marker
    from casstore.doctor import disks

    place = disks.existing(path)
    of_store = place == os.path.abspath(path) and not marker.is_missing(place)
    yield from disks.tried(place, of_store=of_store)
    yield from disks.room(place)
    yield from disks.outlives(place)
