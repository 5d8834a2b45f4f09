"""Messages without the private keys in them: who is asked for a file gives its content now and then."""

from __future__ import annotations

import re

_PRIVATE = re.compile(
    r"(?:-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----|LS0tLS1CRUdJTi|MIGHAgEA|MEECAQAw|MC4CAQAw|MHcCAQEE)"
    r"(?:[A-Za-z0-9+/=\s]|\\[nr]|-----END [A-Z0-9 ]*-----)*"
)
"""PEM, the same in base64 once more, or what stands between its lines; newlines may be escaped."""


def without_private(text: str) -> str:
    """The text with a word in the place of each private key."""
    return _PRIVATE.sub("[a private key]", text)
