"""From one form of the snapshot manifest to another, as microsandbox itself does it where it does: 0.4 to 0.6, and both
to 0.7. The same snapshot gives the same document there and here, so its id is the same, too.

A newer form is written in an older one where nothing of the disk is lost by it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from casstore import spec
from casstore.dialects.v06 import Manifest06
from casstore.dialects.v07 import Layer, Manifest07
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.manifest import UPPER_FILENAME, Dialect, Manifest, SnapshotFormat, UpperIntegrity, UpperLayer


class Keep:
    """The type of KEEP."""


KEEP: Final = Keep()
"""Leave the recorded integrity as it is."""


def convert(
    manifest: Manifest,
    dialect: Dialect,
    *,
    parent: Manifest | None = None,
    integrity: UpperIntegrity | Keep | None = KEEP,
) -> Manifest:
    """The same snapshot in another form; in its own form it stays what it is, but for another `integrity`.

    `parent` is its parent, converted already. Without it the result names none, unless the parent's name in the other
    form follows from its id: a parent that is not at hand has no id in the other forms.

    `integrity` replaces what is recorded of the disk, whose bytes do not change: the algorithms that the forms know
    are not the same.

    Raises:
        UnsupportedVersion: the form cannot say it: a chain of layers, a qcow2 without its virtual size, extensions, an
            algorithm of integrity, values that break its stricter rules.
    """
    try:
        if manifest.dialect is dialect:
            return manifest if isinstance(integrity, Keep) else _recording(manifest, integrity)
        upper = _single(manifest)
        if not isinstance(integrity, Keep):
            upper = replace(upper, integrity=integrity)
        known_as = None if parent is None else parent.known_as
        if dialect is Dialect.V07:
            return _to_07(manifest, upper, known_as)
        return _to_older(Manifest06 if dialect is Dialect.V06 else Manifest, manifest, upper, known_as)
    except DocumentError as error:
        subject = f"snapshot {manifest.id} in the form of {dialect.value}"
        raise UnsupportedVersion(subject, error.problem, at=error.at) from None


def _single(manifest: Manifest) -> UpperLayer:
    """The one file of the disk, as a form says it that knows no chains."""
    if isinstance(manifest, Manifest06 | Manifest07) and manifest.extensions != "{}":
        raise _unsaid("expected no extensions, which the other forms do not have", "extensions")
    if not isinstance(manifest, Manifest07):
        return manifest.upper
    _require_raw_layer(manifest)
    if manifest.layout != "managed":
        raise _unsaid(f"expected a managed root disk, got {manifest.layout}", "root_disk.layout")
    return replace(manifest.upper, file=UPPER_FILENAME)


def _recording(manifest: Manifest, integrity: UpperIntegrity | None) -> Manifest:
    if not isinstance(manifest, Manifest07):
        return replace(manifest, upper=replace(manifest.upper, integrity=integrity))
    _require_raw_layer(manifest)
    return replace(manifest, layers=(replace(manifest.layers[0], integrity=integrity),))


def _require_raw_layer(manifest: Manifest07) -> None:
    if len(manifest.layers) != 1 or manifest.format is not SnapshotFormat.RAW:
        got = f"{len(manifest.layers)}, of which the last is {manifest.format.value}"
        raise _unsaid(f"expected one raw layer, got {got}", "state.layers")


def _to_older(kind: type[Manifest], manifest: Manifest, upper: UpperLayer, parent: str | None) -> Manifest:
    if kind is Manifest and upper.integrity is not None and upper.integrity.algorithm == spec.MERKLE_BLAKE3:
        raise _unsaid(f"expected another algorithm than {spec.MERKLE_BLAKE3}", "upper.integrity")
    return kind(
        format=manifest.format,
        fstype=manifest.fstype,
        image=manifest.image,
        parent=parent,
        created_at=manifest.created_at,
        labels=manifest.labels,
        upper=upper,
        source_sandbox=manifest.source_sandbox,
    )


def _to_07(manifest: Manifest, upper: UpperLayer, parent: str | None) -> Manifest:
    """Its two names, and that of its parent, are halves of ids in the form that it comes from."""
    if manifest.format is not SnapshotFormat.RAW:
        raise _unsaid("expected a raw disk, got a qcow2, whose virtual size is not said", "upper")
    if parent is None and manifest.parent is not None:
        parent = f"snap_{manifest.parent.removeprefix('sha256:')[:32]}"
    hex_ = manifest.id.hex
    layer = Layer(
        layer_id=f"layer_{hex_[32:]}",
        format=SnapshotFormat.RAW,
        virtual_size=upper.size_bytes,
        integrity=upper.integrity,
    )
    return Manifest07(
        fstype=manifest.fstype,
        image=manifest.image,
        parent=parent,
        created_at=manifest.created_at,
        labels=manifest.labels,
        source_sandbox=manifest.source_sandbox,
        snapshot_id=f"snap_{hex_[:32]}",
        layers=(layer,),
    )


def _unsaid(problem: str, at: str) -> DocumentError:
    return DocumentError("snapshot", problem, at=at)
