"""A registry as a Target, over HTTP: the one place that speaks it.

target     blobs, manifests and tags (distribution-spec); what a copy uses
http       requests and redirects, on oras-py's choke point
auth       challenges, tokens, and where a password may go
failures   what the registry answered, as typed errors
urls       URLs from outside, checked
"""

from casstore.registry.http import RegistryOptions
from casstore.registry.target import MANIFEST_TYPES, RegistryTarget, login

__all__ = ["MANIFEST_TYPES", "RegistryOptions", "RegistryTarget", "login"]
