"""Who one is at a registry, and the places where that is kept. Nothing here speaks HTTP or reads the environment.

source     what credentials are, and the one question that every place answers
authfile   Docker's config.json and Podman's auth.json
helper     programs that keep secrets: docker-credential-NAME
netrc      ~/.netrc, for those who ask for it
"""

from casstore.credentials.authfile import DockerConfig
from casstore.credentials.helper import CredentialHelper, HelperOptions
from casstore.credentials.netrc import NetrcFile
from casstore.credentials.source import Anonymous, Credentials, CredentialSource, FirstOf, HostCredentials

__all__ = [
    "Anonymous",
    "CredentialHelper",
    "CredentialSource",
    "Credentials",
    "DockerConfig",
    "FirstOf",
    "HelperOptions",
    "HostCredentials",
    "NetrcFile",
]
