"""The gates that content passes on its way in, and the memory of what the names of registries led to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from casstore.digest import Digest
from casstore.errors import CorruptContent, StorageError, StoreLocked, UsageError
from casstore.lastseen import MAX_NAME, LastSeen, Sighting
from casstore.reference import Reference
from casstore.spec import MAX_MANIFEST
from casstore.streams import fetch_all

if TYPE_CHECKING:
    from casstore.content import Source
    from casstore.oci import Descriptor
    from casstore.storedir import StoreDirectory
    from casstore.trust.admission import Admission
    from casstore.trust.trust import Trust


class Gate(Protocol):
    """Says of a manifest, by its bytes, whether more may be fetched from where it is."""

    def __call__(self, source: Source, root: Descriptor, raw: bytes, /) -> Admission:
        """Why it may.

        Raises:
            UntrustedContent: it may not.
            DocumentError: it is no manifest.
        """
        ...


def gate_at(place: str, trust: Trust | None) -> Gate | None:
    """A gate for content from `place` (see scopes), which refuses what is not as `trust` wants it; None where
    nothing is asked.
    """
    if trust is None:
        return None
    from casstore.trust.admission import admit

    def gate(source: Source, root: Descriptor, raw: bytes) -> Admission:
        return admit(source, root, raw, place=place, trust=trust)

    return gate


def gate_stored(gate: Gate, source: Source, root: Descriptor) -> Admission:
    """Ask the gate about a manifest that is stored already, and has no name yet.

    Raises:
        As Gate.
    """
    return gate(source, root, fetch_all(source, root, limit=MAX_MANIFEST))


class PullGate:
    """The gate of one pull into a store. It knows what the tag led to before, where it is by tag, and remembers what it
    leads to now.
    """

    def __init__(self, directory: StoreDirectory, reference: Reference, place: str, trust: Trust | None) -> None:
        from casstore.trust.trust import Trust

        self._place, self._trust = place, trust or Trust()
        self._lastseen = LastSeen(directory)
        by_tag = reference.tag is not None and reference.digest is None
        self._name = f"{self._place}:{reference.tag}" if by_tag else None
        self._admission: Admission | None = None
        self.warnings: list[str] = []

    def __call__(self, source: Source, root: Descriptor, raw: bytes) -> Admission:
        """See Gate.

        Raises:
            DocumentError, UsageError: names must not go back, and what this one led to cannot be read or remembered.
            As Gate.
        """
        from casstore.trust.admission import admit

        seen = self._seen()
        admission = admit(source, root, raw, place=self._place, trust=self._trust, seen=seen)
        if admission.step_back is not None:
            self.warnings.append(
                f"{self._name} was led back to {root.digest}: {admission.step_back}; --no-rollback refuses that"
            )
        self._admission = admission
        return admission

    def _seen(self) -> Sighting | None:
        if self._name is None:
            return None
        must_know = self._trust.forbids_rollback(self._place)
        if len(self._name) > MAX_NAME:
            if must_know:
                problem = f"expected at most {MAX_NAME} characters for what is to be remembered, got {len(self._name)}"
                raise UsageError(f"pull of {self._name}: {problem}; pull it from a shorter path, or by digest")
            self._name = None
            return None
        try:
            seen = self._lastseen.find(self._name)
        except (CorruptContent, StorageError) as error:
            if must_know:
                raise
            self.warnings.append(f"what {self._name} led to before is not known: {error}")
            return None
        if seen is None and must_know:
            self.warnings.append(f"{self._name} was never pulled here before: whether it was led back cannot be told")
        return seen

    def remember(self, digest: Digest) -> None:
        """Remember what the name led to; a failure of that is told, for the pull itself was made."""
        if self._name is None or self._admission is None:
            return
        try:
            self._lastseen.record(self._name, self._admission.sighting(digest, datetime.now(UTC)))
        except (CorruptContent, StorageError, StoreLocked) as error:
            told = f"what {self._name} leads to is not remembered: {error}"
            if not self.warnings or str(error) not in self.warnings[-1]:
                self.warnings.append(told)
