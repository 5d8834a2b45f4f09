"""What a layout in an archive has that is about something else: signatures, and whatever else refers to a manifest.

It comes along with what it is about, or is left out; what says one thing by its name and another by itself is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from casstore import spec
from casstore.attachments import Attachment
from casstore.digest import Digest
from casstore.errors import DocumentError
from casstore.names import fits, is_attachment, referrer_subject
from casstore.oci import AnyManifest, manifest_of
from casstore.survey import MAX_DEPTH, MAX_REFERRERS, Node


class Referrers:
    """Manifests by what they are about."""

    def __init__(self) -> None:
        self._nodes: dict[Digest, list[tuple[Node, bytes]]] = {}
        self._taken = 0

    def add(self, manifest: AnyManifest, raw: bytes, name: str | None, subject: str) -> bool:
        """Take a manifest, called `name`, if it is about another one.

        Raises:
            DocumentError: its name says that it is about something else than it says itself; or there are too many.
        """
        told = None if name is None else referrer_subject(name)
        descriptor, refers_to = manifest.descriptor, manifest.subject
        if descriptor.media_type != spec.MEDIA_MANIFEST:
            return False  # a store takes no index, nor the list of referrers that a registry may have
        if told is not None and name is not None and is_attachment(name):
            about = manifest_of(told, 0)
            self._add(Node(descriptor, manifest.blobs, about, Attachment.parse(raw, subject=told)), raw, subject)
            return True
        if name is not None and told is not None:
            own = None if refers_to is None else refers_to.digest
            if own != told or not fits(name, descriptor.digest):
                problem = f"{name}: expected a manifest that refers to {told}, got {descriptor.digest} about {own}"
                raise DocumentError(subject, problem)
        if refers_to is None or descriptor.artifact_type == spec.ARTIFACT_TYPE:
            return False
        self._add(Node(descriptor, manifest.blobs, refers_to), raw, subject)
        return True

    def _add(self, node: Node, raw: bytes, subject: str) -> None:
        assert node.subject is not None  # noqa: S101  (that is why it is here)
        nodes = self._nodes.setdefault(node.subject.digest, [])
        nodes.append((node, raw))
        if len(nodes) > MAX_REFERRERS:
            problem = f"expected at most {MAX_REFERRERS} manifests about {node.subject.digest}, got more"
            raise DocumentError(subject, problem)

    def those_of(self, is_known: Callable[[Digest], bool], subject: str) -> Iterator[tuple[Node, bytes]]:
        """What is about something that is known, and about that; in an order in which they can be stored.

        Raises:
            DocumentError: they lie too deep.
        """
        todo = deque((digest, 1) for digest in list(self._nodes) if is_known(digest))
        while todo:
            digest, depth = todo.popleft()
            for node, raw in self._nodes.pop(digest, ()):
                if depth > MAX_DEPTH:
                    problem = f"expected referrers of referrers at most {MAX_DEPTH} deep, got more"
                    raise DocumentError(subject, problem)
                yield node, raw
                todo.append((node.descriptor.digest, depth + 1))

    def warnings(self, subject: str) -> Sequence[str]:
        """What is to be said of those that were left out."""
        left = sum(map(len, self._nodes.values()))
        if not left:
            return ()
        what = "manifest was left out that is" if left == 1 else "manifests were left out that are"
        about = next(iter(self._nodes))
        return [f"{subject}: {left} {what} about something neither in the archive nor in the store, such as {about}"]
