"""Signatures in tests: keys, signing in any place, and what a place has that verifies."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from casstore import Snapshot, Store
from casstore.content import Source
from casstore.evidence import gather
from casstore.names import is_reserved
from casstore.oci import Descriptor
from casstore.sign import Place, sign_manifest
from casstore.signatures.claims import Evidence, Signed, check
from casstore.signatures.keys import PrivateKey
from casstore.signatures.reasons import Rejected
from tests.support.signatures import REPOSITORY, no_passphrase
from tests.support.stores import capture, link_refs

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@cache
def key(name: str = "alice") -> PrivateKey:
    """A key; of a name always the same one. Those whose names begin with "ed" are of Ed25519."""
    seed = hashlib.sha256(name.encode()).digest()
    is_ed = name.startswith("ed")
    made = (
        Ed25519PrivateKey.from_private_bytes(seed)
        if is_ed
        else ec.derive_private_key(int.from_bytes(seed) % 2**255, ec.SECP256R1())
    )
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return PrivateKey.parse(pem, name=name, passphrase=no_passphrase)


def sign_by(
    target: Place,
    subject: Descriptor,
    *names: str,
    cosign_tag: bool = False,
    repository: str | None = REPOSITORY,
    annotations: Mapping[str, str] | None = None,
) -> Sequence[Signed]:
    """Sign by the keys of these names."""
    return sign_manifest(
        target,
        subject,
        [key(name) for name in names],
        annotations=annotations or {},
        repository=repository,
        now=NOW,
        cosign_tag=cosign_tag,
    )


def verdicts(source: Source, subject: Descriptor, *names: str) -> list[str]:
    """What is found, in its order: `form:name` of what one of the keys has signed, else `form:reason`."""
    return [_verdict(evidence, subject, names) for evidence in gather(source, subject)]


def good(source: Source, subject: Descriptor, *names: str) -> dict[str, int]:
    """How often a key has signed in which form, as `form:name`; with everything else that is found, too."""
    return dict(Counter(verdicts(source, subject, *names)))


def _verdict(evidence: Evidence, subject: Descriptor, names: Sequence[str]) -> str:
    try:
        claim = check(evidence, subject.digest, [key(name).public for name in names])
    except Rejected as error:
        return f"{evidence.form}:{error.reason}"
    return f"{evidence.form}:{claim.key.name}"


BOTH = {"bundle:alice": 1, "bundle:ed-bob": 1, "cosign:alice": 1, "cosign:ed-bob": 1}
"""What `found` finds of what `capture_signed` made."""


def capture_signed(store: Store, folder: Path) -> Snapshot:
    """A snapshot, `one`, with two signatures in each form."""
    made = capture(store, folder, "one", 1, 2)
    sign_in(store, made.root, "alice", "ed-bob")
    return made


def sign_in(store: Store, root: Descriptor, *names: str, cosign_tag: bool = True) -> None:
    """Sign a snapshot in its store."""
    with store.transaction() as change:
        sign_by(change, root, *names, cosign_tag=cosign_tag)
        change.commit_all({})


def found(place: Store | Source, root: Descriptor) -> dict[str, int]:
    """As `good`, of the keys of `capture_signed`."""
    return good(place._directory if isinstance(place, Store) else place, root, "alice", "ed-bob")


def signatures(store: Store) -> dict[str, str]:
    """The names that a store has for what is about something, and their digests."""
    return {name: digest for name, digest in link_refs(Path(store.path)).items() if is_reserved(name)}
