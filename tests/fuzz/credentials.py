"""Files in which people and other tools keep passwords. Whatever is in them, no error quotes it."""

from __future__ import annotations

import os

from casstore.credentials import Credentials
from casstore.credentials.authfile import DockerConfig
from casstore.credentials.helper import HelperOptions
from casstore.credentials.netrc import NetrcFile
from casstore.errors import DocumentError, HelperFailed
from tests.fuzz.mutators import json_documents
from tests.fuzz.scratch import scratch, write
from tests.fuzz.target import Target

_NO_HELPERS = HelperOptions(search_path="", environment={})
_HOSTS = (("registry.example", "team/disk"), ("docker.io", "library/disk"), ("localhost:5000", ""))


def _file(data: bytes) -> str:
    return write(os.path.join(scratch(), "credentials"), data)


def _docker(data: bytes) -> list[Credentials | None]:
    config = DockerConfig(_file(data), helpers=_NO_HELPERS)
    return [config.lookup(host, repository) for host, repository in _HOSTS]


def _netrc(data: bytes) -> list[Credentials | None]:
    return [NetrcFile(_file(data)).lookup(host, repository) for host, repository in _HOSTS]


def _check(found: list[Credentials | None]) -> None:
    for each in found:
        if each is not None:
            assert each.password or each.identity_token or each.registry_token
            assert not each.password or each.password not in repr(each) or len(each.password) < 4


TARGETS = (
    Target(
        name="docker-config",
        read=_docker,
        refuses=(DocumentError, HelperFailed),
        check=_check,
        modules=("credentials.authfile",),
        mutate=json_documents,
        words=(
            b'"auths":',
            b'"credHelpers":',
            b'"credsStore":',
            b'"auth":',
            b'"identitytoken":',
            b'"registry.example"',
        ),
        max_len=1024,
    ),
    Target(
        name="netrc",
        read=_netrc,
        refuses=(DocumentError,),
        check=_check,
        modules=("credentials.netrc",),
        words=(
            b"machine ",
            b"default ",
            b"login ",
            b"password ",
            b"account ",
            b"macdef ",
            b"registry.example",
            b"\n\n",
        ),
        max_len=512,
    ),
)
