"""This process and what it runs on: Python and its packages, the umask, and what microsandbox has here."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata

from casstore.doctor.findings import Finding, note, ok, problem, warning
from casstore.errors import CasstoreError

_OLDEST = (3, 11)
_MODULES = {"cryptography": "cryptography.hazmat.primitives.asymmetric.ed25519"}
"""What to import of a package, where its name alone proves little."""
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?:>=\s*(?P<version>[0-9.]+))?[^;]*(?P<marker>;.*)?\Z")
REINSTALL = (
    "install casstore anew, with all it needs: pipx reinstall casstore, or pip install --force-reinstall casstore"
)


def python() -> Iterator[Finding]:
    """Whether this Python is one that casstore works with."""
    text, subject = platform.python_version(), sys.executable or "python"
    if sys.version_info < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        yield problem(
            "python", subject, f"expected Python {wanted} or later, got {text}", "install casstore with a newer Python"
        )
    else:
        yield ok("python", subject, f"Python {text} on {platform.system()} {platform.release()}")


def packages(requirements: Sequence[str] | None = None) -> Iterator[Finding]:
    """Whether what casstore is built on can be imported, and is recent enough. `requirements` are as a distribution's
    metadata has them; None for casstore's own.
    """
    if requirements is None:
        try:
            requirements = metadata.requires("casstore") or ()
        except metadata.PackageNotFoundError:
            yield note("packages", "casstore", "it was not installed as a package, so what it needs is not known")
            return
    sound = []
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found is None or found["marker"]:
            continue
        name, wanted = found["name"], found["version"] or "0"
        try:
            import_module(_MODULES.get(name, name.replace("-", "_")))
            version = metadata.version(name)
        except Exception as error:  # noqa: BLE001  (whatever a broken package raises)
            yield problem("packages", name, f"it cannot be imported: {type(error).__name__}: {error}", REINSTALL)
            continue
        if _numbers(version) < _numbers(wanted):
            fix = f"python -m pip install --upgrade '{name}>={wanted}'"
            yield problem("packages", name, f"expected version {wanted} or later, got {version}", fix)
        else:
            sound.append(f"{name} {version}")
    if sound:
        yield ok("packages", "casstore", ", ".join(sound))


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: (2, 6, 3) for 2.6.3 and 2.6.3rc1."""
    numbers = [int(part) for part in re.split(r"[^0-9]", re.match(r"[0-9.]*", version)[0]) if part]  # type: ignore[index]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def umask() -> Iterator[Finding]:
    """Whether files that this process makes can be used by it."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            found = re.search(r"^Umask:\s*([0-7]+)", file.read(), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        return
    mask = int(found[1], 8)
    if mask & stat.S_IRWXU:
        text = f"{mask:04o}: files that are made cannot be used by their own owner"
        yield warning("umask", "umask", text, "umask 022")
    else:
        yield ok("umask", "umask", f"{mask:04o}; the modes within a store do not depend on it")


def microsandbox(home: str, search_path: str) -> Iterator[Finding]:
    """Whether there are sandboxes of microsandbox to capture."""
    from casstore.microsandbox.home import Home

    program = shutil.which("msb", path=search_path)
    there = f"msb is {program}" if program else "msb is not on the search path"
    if not os.path.isdir(home):
        yield note(
            "microsandbox", home, f"no home of microsandbox; {there}", "MSB_HOME says where it is, if there is one"
        )
        return
    try:
        statuses = Home(home).statuses()
    except CasstoreError as error:
        yield warning("microsandbox", home, f"{error}; {there}", "MSB_HOME says where microsandbox's home is")
        return
    stopped = sum(status.lower() == "stopped" for status in statuses.values())
    yield ok("microsandbox", home, f"{len(statuses)} sandboxes, {stopped} of them stopped; {there}")
