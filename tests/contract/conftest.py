"""The implementations under the contract suite: add one by adding a factory to FACTORIES.

A factory gets the test's FixtureRequest and a name that no other test uses (a valid repository and directory name), and
is a context manager for an empty target. Servers are session fixtures, so each starts once, and only if it is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from casstore.content import Attacher, Deleter, RangeReader, ReferrerLister, TagLister, Target, Untagger
from casstore.durable import Durability
from casstore.layout import LayoutTarget
from casstore.memory import MemoryTarget
from casstore.registry import RegistryTarget, referrers
from tests.support.certificates import Authority
from tests.support.registry_simulator import RegistrySimulator
from tests.support.servers import RunningRegistry, registry


class FullTarget(Target, RangeReader, Deleter, TagLister, Untagger, ReferrerLister, Attacher, Protocol):
    """A target with every power that each of them has."""


Factory = Callable[[pytest.FixtureRequest, str], AbstractContextManager[FullTarget]]


@contextmanager
def memory(request: pytest.FixtureRequest, name: str) -> Iterator[FullTarget]:
    yield MemoryTarget()


@contextmanager
def layout(request: pytest.FixtureRequest, name: str) -> Iterator[FullTarget]:
    folder: Path = request.getfixturevalue("tmp_path")
    yield LayoutTarget(str(folder / name), create=True, durability=Durability.NONE)


@contextmanager
def simulator(request: pytest.FixtureRequest, name: str) -> Iterator[FullTarget]:
    with (
        RegistrySimulator() as server,
        RegistryTarget(server.reference(name), server.options, server.credentials) as target,
    ):
        yield target


@contextmanager
def modern_simulator(request: pytest.FixtureRequest, name: str) -> Iterator[FullTarget]:
    """A registry with the referrers API, that deletes tags, and tells both in pages."""
    with (
        RegistrySimulator() as server,
        RegistryTarget(server.reference(name), server.options, server.credentials) as target,
    ):
        server.faults.referrers_api = server.faults.tag_deletes = True
        server.faults.page = 2
        yield target


def real(fixture: str) -> Factory:
    """A repository in the docker-registry that the session fixture serves."""

    @contextmanager
    def factory(request: pytest.FixtureRequest, name: str) -> Iterator[FullTarget]:
        server: RunningRegistry = request.getfixturevalue(fixture)
        with RegistryTarget(server.reference(f"contract/{name}"), server.options, server.credentials) as target:
            yield target

    return factory


needs_registry = pytest.mark.needs("docker-registry")

FACTORIES = [
    pytest.param(memory, id="memory"),
    pytest.param(layout, id="layout"),
    pytest.param(simulator, id="simulator"),
    pytest.param(modern_simulator, id="simulator-modern"),
    pytest.param(real("anonymous_registry"), id="registry-anonymous", marks=needs_registry),
    pytest.param(real("htpasswd_registry"), id="registry-htpasswd-tls", marks=needs_registry),
    pytest.param(real("token_registry"), id="registry-token", marks=needs_registry),
]

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _no_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes here, so nobody need be waited for."""
    monkeypatch.setattr(referrers, "SECOND_LOOK", (0.0, 0.0))


@pytest.fixture(params=FACTORIES)
def target(request: pytest.FixtureRequest) -> Iterator[FullTarget]:
    """An empty target of each implementation."""
    factory: Factory = request.param
    with factory(request, f"t{next(_numbers)}") as made:
        yield made


@pytest.fixture(scope="session")
def anonymous_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with registry(tmp_path_factory.mktemp("anonymous")) as server:
        yield server


@pytest.fixture(scope="session")
def htpasswd_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with registry(tmp_path_factory.mktemp("htpasswd"), auth="htpasswd", tls=Authority()) as server:
        yield server


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """Its tokens live 2 s: docker-registry adds 60 s of leeway. The client is told that they live longer, so they end
    while they are in use.
    """
    with registry(tmp_path_factory.mktemp("token"), auth="token") as server:
        assert server.token_server is not None
        server.token_server.life, server.token_server.claimed_life = -58, 300
        yield server
