"""Opens what a reference names: a registry, an OCI layout, or a directory that is a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from casstore import marker
from casstore.content import Prober, Source, Target
from casstore.derived import Derived
from casstore.errors import StorageError, UsageError
from casstore.layout import LayoutTarget
from casstore.listing import is_store
from casstore.oci import Descriptor
from casstore.reference import LayoutReference, Reference, parse_reference
from casstore.storedir import StoreDirectory, StoreOptions
from casstore.transfer import TransferOptions
from casstore.trust.scopes import place_of


def as_reference(reference: str | Reference) -> Reference:
    """A reference from what a caller gave."""
    return parse_reference(reference) if isinstance(reference, str) else reference


def names_store(reference: Reference) -> bool:
    """Whether a reference names a store."""
    return isinstance(reference, LayoutReference) and is_store(reference.path)


def require_bare(reference: Reference, verb: str) -> None:
    """Raise UsageError where a reference says more than the place."""
    if reference.tag is not None or reference.digest is not None:
        raise UsageError(f"{verb} {reference}: expected no tag or digest; write {reference.name}")


@contextmanager
def open_source(reference: Reference, options: TransferOptions, stores: StoreOptions) -> Iterator[Source]:
    """The place to read from.

    Raises:
        NotFound: there is no layout.
    """
    if isinstance(reference, LayoutReference) and is_store(reference.path):
        yield StoreDirectory.open(reference.path, stores, create=False)
        return
    with _open(reference, options, stores, create=False) as target:
        yield target


@contextmanager
def open_judged(reference: Reference, options: TransferOptions, stores: StoreOptions) -> Iterator[tuple[Source, str]]:
    """The place to read from, and where that is, for who judges by it (see trust.scopes). A layout is opened there and
    not by the path that was given, whose links may lead elsewhere by then, or to where no path leads (/proc/N/root).

    Raises:
        As `open_source`.
    """
    where = place_of(reference)
    if isinstance(reference, LayoutReference):
        reference = replace(reference, path=where.removeprefix("oci:"))
    with open_source(reference, options, stores) as source:
        yield source, where


@contextmanager
def open_target(reference: Reference, options: TransferOptions, stores: StoreOptions) -> Iterator[Target]:
    """The place to write to: a layout is made when it is missing; in a store every name may be replaced."""
    if isinstance(reference, LayoutReference) and is_store(reference.path):
        from casstore.transaction import Transaction  # with numpy

        directory = StoreDirectory.open(reference.path, stores, create=False)
        with closing(Derived.open(directory)) as derived:
            directory.require_writable()
            with Transaction(directory, derived.catalog, force=True, keep=True) as change:
                yield change
        return
    with _open(reference, options, stores, create=True) as target:
        yield target


@contextmanager
def open_prober(reference: Reference, options: TransferOptions, stores: StoreOptions) -> Iterator[Prober]:
    """The place to ask what is there. Nothing is made or changed: a missing layout has nothing."""
    if isinstance(reference, LayoutReference) and is_store(reference.path):
        yield StoreDirectory.looked_at(reference.path, stores)
    elif isinstance(reference, LayoutReference) and not _has_files(reference.path):
        yield _Nothing()
    else:
        with _open(reference, options, stores, create=False) as target:
            yield target


@contextmanager
def _open(reference: Reference, options: TransferOptions, stores: StoreOptions, *, create: bool) -> Iterator[Target]:
    if isinstance(reference, LayoutReference):
        reason = marker.require_readable(reference.path)  # a store of a later version may not look like one
        if create and reason is not None:
            raise StorageError(f"{reference.name}: {reason}")
        yield LayoutTarget(reference.path, create=create, durability=stores.durability, wait=stores.wait)
        return
    if options.registries is not None:
        with options.registries(reference) as target:
            yield target
        return
    from casstore.registry import RegistryTarget  # slow to import, and only needed here

    with RegistryTarget(reference) as target:
        yield target


def _has_files(path: str) -> bool:
    return os.path.lexists(path) and (not os.path.isdir(path) or bool(os.listdir(path)))


class _Nothing:
    """A place that is not there yet."""

    def exists(self, _: Descriptor) -> bool:
        """No."""
        return False
