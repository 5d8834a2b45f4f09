"""The environment and the home directory, turned into values: nothing else in casstore reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


def prepare() -> None:
    """What has to be set before anything else is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's algebra is not used; its threads take 40 ms to start


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are, and what may be shown how."""

    store: str
    """The store's directory: --store, else $CASSTORE_STORE, else ~/.casstore."""
    docker_config: str
    """The file with the registries' passwords: $DOCKER_CONFIG/config.json, else ~/.docker/config.json."""
    color: bool
    """Whether colours are welcome where there is a terminal: $NO_COLOR is not set."""
    stdin_is_terminal: bool
    stdout_is_terminal: bool
    stderr_is_terminal: bool

    @classmethod
    def read(cls, *, store: str | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """From the environment (or `environ`) and the standard streams; an empty variable counts as one not set."""
        known = os.environ if environ is None else environ
        docker = known.get("DOCKER_CONFIG") or "~/.docker"
        return cls(
            store=expand_home(store or known.get("CASSTORE_STORE") or "~/.casstore"),
            docker_config=os.path.join(expand_home(docker), "config.json"),
            color=not known.get("NO_COLOR") and known.get("TERM") != "dumb",
            stdin_is_terminal=_is_terminal(sys.stdin),
            stdout_is_terminal=_is_terminal(sys.stdout),
            stderr_is_terminal=_is_terminal(sys.stderr),
        )


def expand_home(path: str) -> str:
    """`path` with a leading `~` or `~user` replaced, for where no shell has done so."""
    return os.path.expanduser(path)


def _is_terminal(stream: object) -> bool:
    # A stream is None when its descriptor was closed before the start.
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())
