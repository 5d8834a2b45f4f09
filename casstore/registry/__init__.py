"""A registry as a Target, over HTTP: the one place that speaks it.

target     a repository as a Target; what a copy uses
upload     sending one blob, whatever happens on the way; outgoing: its bytes, from any place on
manifests  read, written, and proved to be there
tags       listed, and taken away one at a time
referrers  what refers to a manifest, listed by the registry or by its clients; pages: answers in pages
login      whether a user is known
http       requests, retries and redirects, on oras-py's choke point
auth       challenges, tokens, and where a password may go
resume     the body of a blob, asked for again where it broke
exchange   one request and its answer; body, notices: parts of an answer
wire       the bytes of connections: time limits, rates, stop
pace       when the next request to a host may be made
options    how to reach a registry
failures   what the registry answered, as typed errors
urls       URLs from outside, checked
"""

from casstore.registry.login import login
from casstore.registry.manifests import MANIFEST_TYPES
from casstore.registry.options import RegistryOptions
from casstore.registry.pace import Pace
from casstore.registry.target import RegistryTarget

__all__ = ["MANIFEST_TYPES", "Pace", "RegistryOptions", "RegistryTarget", "login"]
