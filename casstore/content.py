"""The contract between the stores of content, each power a Protocol of one method.

The registry, an OCI layout directory, the local store and the in-memory reference all implement it, and one contract
suite tests them all. Bodies are passed as the source they come from, so whoever sends may start again from its first
byte (a retry, a new token) as often as it must.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from casstore.oci import Descriptor


class Reader(Protocol):
    """A stream of bytes that closes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@runtime_checkable
class Fetcher(Protocol):
    """Where content can be read from."""

    def fetch(self, descriptor: Descriptor, /) -> Reader:
        """Open the content. Its size and digest are checked while it is read: the reader raises SizeMismatch or
        DigestMismatch at the latest where it would have returned the end.

        Raises:
            NotFound: there is no such content.
        """
        ...


@runtime_checkable
class RangeReader(Protocol):
    """Where parts of content can be read, unverified: whoever asks must know what to expect."""

    def read_range(self, descriptor: Descriptor, offset: int, length: int, /) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            NotFound: there is no such content.
            SizeMismatch: it has not the descriptor's size.
        """
        ...


class Prober(Protocol):
    """Where one can ask for content without reading it."""

    def exists(self, descriptor: Descriptor, /) -> bool:
        """Whether content of this digest and size is there. It says nothing about the content's children."""
        ...


class Pusher(Protocol):
    """Where content can be written to."""

    def push(self, descriptor: Descriptor, source: Fetcher, /) -> None:
        """Store the content that `source.fetch(descriptor)` gives, once or again. Returning means that the right
        bytes are there, not that this call put them there; raising means that nothing wrong is there.
        """
        ...


@runtime_checkable
class Resolver(Protocol):
    """Where names are known."""

    def resolve(self, reference: str, /) -> Descriptor:
        """What a tag or `sha256:...` digest of a manifest stands for.

        Raises:
            NotFound: no such tag or manifest.
        """
        ...


class Tagger(Protocol):
    """Where names can be given."""

    def tag(self, descriptor: Descriptor, name: str, /) -> None:
        """Let `name` stand for a manifest that is already there; an older meaning of the name is replaced."""
        ...


class Deleter(Protocol):
    """Where content can be removed."""

    def delete(self, descriptor: Descriptor, /) -> None:
        """Remove a manifest or blob and the names that stand for it.

        Raises:
            NotFound: there is no such content.
        """
        ...


@runtime_checkable
class Mounter(Protocol):
    """Where content may be had without sending it."""

    def mount(self, descriptor: Descriptor, source: Fetcher, /) -> bool:
        """Take content from a neighbour: where `source` is one (another repository of the same registry), or from one
        that was named when this target was opened. False where that cannot be; then it has to be pushed.
        """
        ...


@runtime_checkable
class Uploader(Protocol):
    """Where content can be sent although it is said to be there."""

    def upload(self, descriptor: Descriptor, source: Fetcher, /) -> None:
        """As Pusher.push, without asking first."""
        ...


@runtime_checkable
class TagLister(Protocol):
    """Where one can ask which names there are."""

    def tags(self) -> Iterable[str]:
        """All names, in no order."""
        ...


@runtime_checkable
class Untagger(Protocol):
    """Where a name can be taken away."""

    def untag(self, name: str, /) -> None:
        """Remove one name; what it stands for, and its other names, stay.

        Raises:
            NotFound: there is no such name.
            NotOffered: names cannot be removed here.
        """
        ...


@runtime_checkable
class ReferrerLister(Protocol):
    """Where one can ask for the manifests whose `subject` is a given one: signatures and the like."""

    def referrers(self, subject: Descriptor, /) -> Sequence[Descriptor]:
        """The manifests that refer to `subject`; none when there are none, or no such subject."""
        ...


@runtime_checkable
class Attacher(Protocol):
    """Where a referrer can be added."""

    def attach(self, descriptor: Descriptor, subject: Descriptor, source: Fetcher, /) -> None:
        """Store the manifest `descriptor`, whose `subject` is `subject` and whose own blobs are here already, so that
        `referrers(subject)` tells of it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was fetched from elsewhere."""

    bytes: int = 0
    """All that came over the network, with the headers of answers, and with what was read in vain."""
    requests: int = 0
    """Sent, each try and redirect counted."""


@runtime_checkable
class Metered(Protocol):
    """What knows how much it has fetched."""

    @property
    def traffic(self) -> Traffic:
        """So far."""
        ...


@runtime_checkable
class Stopper(Protocol):
    """What can be told to give up, from another thread."""

    def stop(self) -> None:
        """Let every wait and transfer in progress fail soon, and every later one at once."""
        ...


class Source(Fetcher, Resolver, Protocol):
    """What a copy can start from."""


class Target(Fetcher, Prober, Pusher, Resolver, Tagger, Protocol):
    """What a copy can end in."""
