"""DSSE v1 (Dead Simple Signing Envelope): a payload, its type, and a signature over both.

What is signed is `DSSEv1 <bytes of type> <type> <bytes of payload> <payload>`, so a payload can be verified before
anybody parses it, and cannot be taken for one of another type.
"""

from __future__ import annotations

from dataclasses import dataclass


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed ("pre-authentication encoding")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload with one signature, not verified."""

    payload_type: str
    payload: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return pae(self.payload_type, self.payload)
