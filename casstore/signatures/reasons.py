"""Why a signature does not count: for machines a word, for people a text."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The machine name of a reason. Names are only ever added."""

    NO_SIGNATURES = "no-signatures"
    """There is none."""
    TOO_MANY = "too-many"
    """More than are looked at."""
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    """It breaks the rules of its form."""
    UNKNOWN_FORM = "unknown-form"
    """A form of signature that is not supported."""
    KEYLESS = "keyless"
    """By a certificate instead of a key."""
    UNKNOWN_KEY = "unknown-key"
    """It names a key that is not trusted."""
    BAD_SIGNATURE = "bad-signature"
    """No trusted key made it over these bytes."""
    OTHER_TYPE = "other-type"
    """By a trusted key, but it says something else than "this is mine"."""
    OTHER_DIGEST = "other-digest"
    """About another subject."""
    OTHER_REPOSITORY = "other-repository"
    """For another repository."""
    TOO_OLD = "too-old"
    FROM_THE_FUTURE = "from-the-future"
    TOO_FEW_KEYS = "too-few-keys"
    BASE_IMAGE = "base-image"
    """The snapshot's base image is not allowed."""
    ROLLED_BACK = "rolled-back"
    """The name led to something newer before."""
    REFUSED = "refused"
    """Nothing from there is accepted."""
    UNREADABLE = "unreadable"
    """It could not be fetched."""


class Rejected(Exception):
    """A signature that does not count."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason
        self.text: str = text
