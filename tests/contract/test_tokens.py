"""A docker-registry whose tokens end after 2 s: a push that takes longer meets a 401 half-way, and goes through."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from casstore import spec
from casstore.content import Reader
from casstore.oci import Descriptor
from casstore.registry import RegistryTarget
from casstore.streams import BytesSource, fetch_all
from tests.contract.test_target_contract import push_bytes, some_bytes
from tests.support.servers import RunningRegistry

SLOW = 2.5
"""Seconds that the body takes: longer than a token lives."""


class SlowSource:
    """A source that takes its time before the last byte."""

    def __init__(self, data: bytes, wait: Callable[[], None]) -> None:
        self._data, self._wait = data, wait

    def fetch(self, descriptor: Descriptor) -> Reader:
        self._wait()
        return BytesSource(self._data).fetch(descriptor)


@pytest.mark.needs("docker-registry")
def test_a_token_ends_in_the_middle_of_a_push(token_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[tuple[str, int]] = []
    assert token_registry.token_server is not None
    with RegistryTarget(
        token_registry.reference("contract/expiring"), token_registry.options, token_registry.credentials
    ) as target:
        session: Any = target._client.session
        send = session.request

        def watched(method: str, url: str, **options: Any) -> Any:
            response = send(method, url, **options)
            statuses.append((method, response.status_code))
            return response

        monkeypatch.setattr(session, "request", watched)
        push_bytes(target, b"first")
        statuses.clear()
        asked = len(token_registry.token_server.requests)
        data = some_bytes(3 * spec.MIB)
        blob = Descriptor.of(data, "application/vnd.example.blob")
        waits = iter([SLOW])
        target.push(blob, SlowSource(data, lambda: time.sleep(next(waits, 0))))
        assert ("PUT", 401) in statuses
        assert statuses[-1] == ("PUT", 201)
        assert len(token_registry.token_server.requests) > asked
        assert fetch_all(target, blob, limit=len(data)) == data
