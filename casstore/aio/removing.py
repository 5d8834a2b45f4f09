"""The call that removes: a name, a digest with all its names, or an artifact directory."""

from __future__ import annotations

from casstore.aio.artifacts import look_at, remove_artifact
from casstore.aio.errors import MicrosandboxError
from casstore.aio.looking import list_stored, selector_of
from casstore.aio.place import Place
from casstore.aio.translation import in_its_words
from casstore.errors import HasChildren


def remove(place: Place, text: str, *, force: bool, told: str | None = None) -> tuple[()]:
    """Remove a name, all names of a digest, or an artifact directory. `told` is what is not there when it is not."""
    selector = selector_of(place, text)
    if selector is None:
        artifact = look_at(text)
        known_as = artifact.manifest.known_as
        _require_childless(str(artifact.manifest.id), 0 if force else _children(place, known_as))
        with in_its_words():
            remove_artifact(artifact)
        return ()
    by_digest = selector.startswith("sha256:")
    missing = told or (text if by_digest else place.path_of(selector))
    with in_its_words(missing=missing), place.open() as store:
        try:
            store.remove(selector, force=force)
        except HasChildren:
            entry = store.entry(selector)
            _require_childless(str(entry.id), entry.children)
            raise
    return ()


def _children(place: Place, known_as: str) -> int:
    """How many in the store name a snapshot as their parent."""
    return len({found.stored for found in list_stored(place) if found.manifest.parent == known_as})


def _require_childless(digest: str, children: int) -> None:
    if children:
        text = f"snapshot {digest} has {children} indexed child snapshot(s); pass --force to remove anyway"
        raise MicrosandboxError(text)
