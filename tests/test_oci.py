"""OCI documents: golden bytes, round trips, and the attacks on them (faults 51 to 54 and 57 to 63)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from casstore import oci, spec
from casstore.digest import Digest
from casstore.errors import CasstoreError, DocumentError, UnsupportedVersion
from casstore.oci import ArtifactManifest, Descriptor, ImageIndex
from tests.support.canonical import require_schema_agrees
from tests.support.effort import at_most

VECTORS = Path(__file__).parents[1] / "fixtures" / "vectors"
HEX = "0123456789abcdef" * 4
INDEX_DIGEST = "sha256:5e281216bbb043b6ebc552e80cefc977b8fc9c374745f7f75ad974a84840b1e3"


def manifest() -> ArtifactManifest:
    config = (VECTORS / "manifest" / "sample.json").read_bytes()
    note = Descriptor(
        media_type=spec.MEDIA_FILE,
        digest=Digest.of(b"note"),
        size=4,
        annotations={"org.opencontainers.image.title": "nöte.txt"},
    )
    return ArtifactManifest.build(
        config=Descriptor.of(config, spec.MEDIA_CONFIG),
        layers=[Descriptor.of(b"map", spec.MEDIA_MAP), Descriptor.of(b"pack", spec.MEDIA_PACK), note],
        annotations={
            spec.ANNOTATION_CREATED: "2026-05-01T12:00:00Z",
            spec.ANNOTATION_BASE_NAME: "docker.io/library/python:3.12",
        },
    )


def document() -> dict[str, Any]:
    return dict(json.loads(manifest().raw))


def parse(value: Any) -> ArtifactManifest:
    return ArtifactManifest.parse(json.dumps(value).encode(), subject="m")


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """The golden manifest with another value (or none, for `...`) at a path."""
    changing = document()
    place: Any = changing
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changing


def refused(value: Any, at: str, kind: type[DocumentError] = DocumentError) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(value)
    assert type(caught.value) is kind
    assert caught.value.at == at
    assert caught.value.subject == "m"
    assert len(str(caught.value)) < 500
    return str(caught.value)


# --- golden bytes and round trips ------------------------------------------------------------------------------------


def test_golden_manifest() -> None:
    raw = (VECTORS / "oci" / "artifact-manifest.json").read_bytes()
    assert manifest().raw == raw
    assert ArtifactManifest.parse(raw, subject="m") == manifest()
    assert str(manifest().descriptor.digest) == INDEX_DIGEST
    assert manifest().descriptor.size == len(raw) == 935


def test_golden_index() -> None:
    raw = (VECTORS / "oci" / "index.json").read_bytes()
    index = ImageIndex.parse(raw, subject="index.json")
    assert index.to_bytes() == raw
    [found] = index.find("v1")
    assert found == manifest().descriptor
    assert found.artifact_type == spec.ARTIFACT_TYPE
    assert found.annotations[spec.ANNOTATION_STORE_REF] == "v1"
    assert index.find("v2") == []


def test_parts() -> None:
    parsed = ArtifactManifest.parse(manifest().raw, subject="m")
    assert parsed.map == Descriptor.of(b"map", spec.MEDIA_MAP)
    assert parsed.packs == (Descriptor.of(b"pack", spec.MEDIA_PACK),)
    assert parsed.children == (parsed.config, *parsed.layers)
    assert parsed.layers[2].annotations == {"org.opencontainers.image.title": "nöte.txt"}
    assert parsed.annotations[spec.ANNOTATION_CREATED] == "2026-05-01T12:00:00Z"


def test_raw_bytes_are_kept() -> None:
    """A copy must have the digest of the original, however that is written."""
    raw = json.dumps(document(), indent=2).encode() + b"\n"
    parsed = ArtifactManifest.parse(raw, subject="m")
    assert parsed.raw == raw
    assert parsed.descriptor.digest == Digest.of(raw) != manifest().descriptor.digest


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANNOTATIONS = st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3)


def descriptors(media_type: str) -> st.SearchStrategy[Descriptor]:
    return st.builds(
        Descriptor,
        media_type=st.just(media_type),
        digest=st.builds(Digest.from_raw, st.binary(min_size=32, max_size=32)),
        size=st.integers(0, spec.MAX_MANIFEST),
        annotations=ANNOTATIONS,
    )


LAYERS = st.builds(
    lambda first, rest: [first, *rest],
    descriptors(spec.MEDIA_MAP),
    st.lists(descriptors(spec.MEDIA_PACK) | descriptors(spec.MEDIA_FILE), max_size=4),
).filter(lambda layers: len({layer.digest for layer in layers}) == len(layers))


@given(descriptors(spec.MEDIA_CONFIG), LAYERS, ANNOTATIONS)
def test_parse_undoes_build(config: Descriptor, layers: list[Descriptor], annotations: dict[str, str]) -> None:
    assume(config.digest not in {layer.digest for layer in layers})
    built = ArtifactManifest.build(config=config, layers=layers, annotations=annotations)
    parsed = ArtifactManifest.parse(built.raw, subject="m")
    assert parsed == built
    assert parsed.annotations == annotations
    assert [layer.annotations for layer in parsed.layers] == [layer.annotations for layer in layers]
    reversed_annotations = dict(reversed(annotations.items()))
    again = ArtifactManifest.build(config=config, layers=iter(layers), annotations=reversed_annotations)
    assert again.raw == built.raw


def test_descriptors_are_equal_by_content() -> None:
    one = Descriptor.of(b"x", "a/b")
    two = Descriptor(media_type="a/b", digest=Digest.of(b"x"), size=1, artifact_type="c/d", annotations={"k": "v"})
    assert one == two
    assert len({one, two}) == 1
    assert Descriptor.from_dict(two.to_dict()).annotations == {"k": "v"}
    assert Descriptor.from_dict(two.to_dict()).artifact_type == "c/d"
    assert set(one.to_dict()) == {"mediaType", "digest", "size"}


# --- 52: bounds ------------------------------------------------------------------------------------------------------


def test_too_many_layers() -> None:
    layer = {"mediaType": spec.MEDIA_PACK, "digest": f"sha256:{HEX}", "size": 1}
    raw = json.dumps({**document(), "layers": [layer] * 100_000}).encode()
    with pytest.raises(DocumentError, match="at most 4194304 bytes"):
        ArtifactManifest.parse(raw, subject="m")


def test_every_manifest_that_is_written_can_be_read() -> None:
    """4 MiB is the only bound on how many packs a snapshot may have."""
    layers = [Descriptor.of(b"map", spec.MEDIA_MAP)]
    layers += [Descriptor(media_type=spec.MEDIA_PACK, digest=Digest(f"{n:064x}"), size=2**25) for n in range(28_000)]
    built = ArtifactManifest.build(config=manifest().config, layers=layers, annotations={})
    assert spec.MAX_MANIFEST - 100_000 < len(built.raw) < spec.MAX_MANIFEST
    assert ArtifactManifest.parse(built.raw, subject="m").packs == tuple(layers[1:])
    assert len(layers) - 1 < spec.MAX_PACKS


@pytest.mark.parametrize("item", [0, {}, []], ids=["number", "object", "list"])
def test_a_million_wrong_layers_take_seconds(item: object) -> None:
    raw = json.dumps({**document(), "layers": [item] * 1_000_000}, separators=(",", ":")).encode()
    assert len(raw) < spec.MAX_MANIFEST
    with at_most(200), pytest.raises(DocumentError, match=r"is too long \(at layers\)"):
        ArtifactManifest.parse(raw, subject="m")


def test_a_manifest_that_no_registry_takes_is_not_written() -> None:
    layers = [Descriptor(media_type=spec.MEDIA_PACK, digest=Digest(f"{n:064x}"), size=n) for n in range(30_000)]
    with pytest.raises(DocumentError, match="at most 4194304 bytes, got "):
        ArtifactManifest.build(config=manifest().config, layers=layers, annotations={})


# --- 53, 54: sizes ---------------------------------------------------------------------------------------------------

PLACES: list[list[Any]] = [["config"], ["layers", 0], ["layers", 1], ["layers", 2]]


def where(path: list[Any], field: str) -> str:
    name = path[0] if len(path) == 1 else f"{path[0]}[{path[1]}]"
    return f"{name}.{field}"


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("size", [-1, -5, 2**63, 2**64 - 1, True, False, None, "1", [], {}], ids=repr)
def test_sizes(path: list[Any], size: Any) -> None:
    refused(changed([*path, "size"], size), where(path, "size"))


@pytest.mark.parametrize("number", [b"-1", b"1.0", b"1e2", b"NaN", b"1e999", b"9" * 5000, b"18446744073709551616"])
def test_sizes_that_are_no_integers(number: bytes) -> None:
    raw = manifest().raw.replace(b'"size":3}', b'"size":' + number + b"}")
    assert raw != manifest().raw
    with pytest.raises(DocumentError):
        ArtifactManifest.parse(raw, subject="m")


@pytest.mark.parametrize("path", PLACES[1:])
def test_extreme_sizes_are_only_numbers(path: list[Any]) -> None:
    for size in (0, 2**63 - 1):
        assert size in [child.size for child in parse(changed([*path, "size"], size)).children]


def test_a_config_is_a_document() -> None:
    assert parse(changed(["config", "size"], spec.MAX_MANIFEST)).config.size == spec.MAX_MANIFEST
    refused(changed(["config", "size"], spec.MAX_MANIFEST + 1), "config.size")


# --- 57: digests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize(
    "digest",
    [
        *("", "sha256:", HEX, f"sha256:{HEX}\n", f"sha256:{HEX[:-1]}\n", f"sha256:{HEX.upper()}", f"sha256:{HEX[:-1]}"),
        *(f"sha512:{HEX}{HEX}", f"sha512:{HEX}", "sha256:../../../../etc/passwd", "sha256:" + "\u0660" * 64),
        *(None, 5, True, [], {}),
    ],
    ids=ascii,
)
def test_digests(path: list[Any], digest: Any) -> None:
    refused(changed([*path, "digest"], digest), where(path, "digest"))


# --- 58, 59: kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["mediaType"], ..., "mediaType"),
        (["mediaType"], spec.MEDIA_INDEX, "mediaType"),
        (["mediaType"], "application/vnd.docker.distribution.manifest.v2+json", "mediaType"),
        (["mediaType"], spec.MEDIA_MANIFEST + "\n", "mediaType"),
        (["mediaType"], 5, "mediaType"),
        (["manifests"], [], "mediaType"),
        (["manifests"], None, "mediaType"),
        (["artifactType"], ..., "artifactType"),
        (["artifactType"], "", "artifactType"),
        (["artifactType"], "application/vnd.casstore.snapshot.v2", "artifactType"),
        (["artifactType"], "application/vnd.other", "artifactType"),
        (["artifactType"], spec.ARTIFACT_TYPE.upper(), "artifactType"),
    ],
)
def test_other_kinds_are_unsupported(path: list[Any], value: Any, place: str) -> None:
    assert ": expected " in refused(changed(path, value), place, UnsupportedVersion)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["schemaVersion"], 1, "schemaVersion"),
        (["schemaVersion"], "2", "schemaVersion"),
        (["schemaVersion"], ..., ""),
        (["config"], ..., ""),
        (["layers"], ..., ""),
        (["layers"], [], "layers"),
        (["layers"], {}, "layers"),
        (["config"], [], "config"),
        (["config", "mediaType"], "application/vnd.oci.empty.v1+json", "config.mediaType"),
        (["config", "mediaType"], spec.MEDIA_CONFIG + "\n", "config.mediaType"),
        (["config", "mediaType"], ..., "config"),
        (["layers", 1, "mediaType"], "application/vnd.casstore.pack.v2", "layers[1].mediaType"),
        (["layers", 1, "mediaType"], spec.MEDIA_PACK + "\n", "layers[1].mediaType"),
        (["layers", 1, "mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip", "layers[1].mediaType"),
        (["layers", 1, "mediaType"], ..., "layers[1]"),
    ],
)
def test_broken_manifests(path: list[Any], value: Any, place: str) -> None:
    refused(changed(path, value), place)


def test_what_is_unknown_and_harmless_is_kept() -> None:
    extended = {**document(), "x": 1, "subject": {"mediaType": "a/b", "digest": f"sha256:{HEX}", "size": 1}}
    extended["annotations"]["io.example.new"] = "x"
    assert parse(extended).annotations["io.example.new"] == "x"
    assert b"io.example.new" in parse(extended).raw


# --- 60: what must agree ---------------------------------------------------------------------------------------------


def test_the_map_is_the_first_layer() -> None:
    layers = document()["layers"]
    for wrong in ([layers[1]], layers[::-1], [layers[1], layers[0]]):
        assert "one map, as the first layer" in refused({**document(), "layers": wrong}, "layers[0].mediaType")
    two = {**layers[1], "mediaType": spec.MEDIA_MAP}
    refused({**document(), "layers": [layers[0], two]}, "layers[0].mediaType")


def test_a_layer_is_listed_once() -> None:
    layers = document()["layers"]
    assert "a layer is listed twice" in refused({**document(), "layers": [*layers, layers[1]]}, "layers")
    same = {**layers[1], "mediaType": spec.MEDIA_FILE}
    refused({**document(), "layers": [*layers, same]}, "layers")


def test_a_blob_has_one_size() -> None:
    layers = document()["layers"]
    wrong = {**layers[1], "size": 5}
    assert "has two sizes" in refused({**document(), "layers": [*layers, wrong]}, "layers[3].size")
    as_config = {**layers[1], "digest": document()["config"]["digest"]}
    assert "has two sizes" in refused({**document(), "layers": [layers[0], as_config]}, "layers[1].size")


# --- 61: what would be fetched from elsewhere, or is there twice -----------------------------------------------------


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize(
    "field", [{"data": "bWFw"}, {"data": "d3Jvbmc="}, {"data": ""}, {"urls": ["http://169.254.169.254/"]}, {"urls": []}]
)
def test_no_inline_data_and_no_urls(path: list[Any], field: dict[str, Any]) -> None:
    [(name, value)] = field.items()
    assert "not allowed here" in refused(changed([*path, name], value), where(path, name))


def test_a_subject_is_only_a_descriptor() -> None:
    """A manifest may name any subject, even what would be its own digest; nothing follows it."""
    parse({**document(), "subject": manifest().descriptor.to_dict()})
    refused({**document(), "subject": {"digest": "x"}}, "subject")
    refused({**document(), "subject": {**manifest().descriptor.to_dict(), "digest": "x"}}, "subject.digest")


# --- 63: annotations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [["annotations"], ["layers", 1, "annotations"], ["config", "annotations"]])
@pytest.mark.parametrize(
    "annotations",
    [
        *({"a": 1}, {"a": None}, {"a": True}, {"a": ["x"]}, {"a": {}}, {"": "x"}, {"\n": 5}, [], "x", None),
        *({"a": "x" * 65537}, {"a": "x" * (1 << 20)}, {"k" * 1025: "x"}, {str(n): "x" for n in range(1025)}),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_annotations(path: list[Any], annotations: Any) -> None:
    with pytest.raises(DocumentError, match=r"annotations"):
        parse(changed(path, annotations))


def test_annotations_within_bounds() -> None:
    annotations = {"a": "x" * 65536, "k" * 1024: "", "\n": "\x1b[2J"}
    assert parse(changed(["annotations"], annotations)).annotations == annotations


# --- 51, 62: strict JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"schemaVersion":2', b'"schemaVersion":2,"schemaVersion":2'),
        (b'"size":3}', b'"size":3,"size":4}'),
        (b'{"digest":', b'{"digest":"sha256:x","digest":'),
        (b"n\xc3\xb6te", b"n\xf6te"),
        (b"n\xc3\xb6te", b"\\ud800"),
        (b'"schemaVersion":2}', b'"schemaVersion":2}{}'),
        (b'"schemaVersion":2}', b'"schemaVersion":2}\0'),
        (b'"schemaVersion":2}', b'"schemaVersion":2'),
    ],
)
def test_strict_json(old: bytes, new: bytes) -> None:
    raw = manifest().raw.replace(old, new, 1)
    assert raw != manifest().raw
    with pytest.raises(DocumentError):
        ArtifactManifest.parse(raw, subject="m")


@given(st.data())
def test_any_change_of_a_byte_is_parsed_or_refused(data: st.DataObject) -> None:
    """Never another kind of error, and what parses keeps its bytes."""
    raw = bytearray(manifest().raw)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = ArtifactManifest.parse(bytes(raw), subject="m")
    except CasstoreError as error:
        assert isinstance(error, DocumentError)  # noqa: PT017  (most changes are refused, some are harmless)
    else:
        assert parsed.raw == bytes(raw)


_USUAL = ArtifactManifest.build(
    config=Descriptor.of(b"config", spec.MEDIA_CONFIG),
    layers=[
        Descriptor.of(b"map", spec.MEDIA_MAP),
        Descriptor.of(b"pack", spec.MEDIA_PACK),
        replace(Descriptor.of(b"file", spec.MEDIA_FILE), annotations={spec.ANNOTATION_TITLE: "metadata.json"}),
    ],
    annotations=manifest().annotations,
).raw


@pytest.mark.parametrize("media_type", spec.MEDIA_CONFIGS)
def test_each_form_of_config_is_usual(media_type: str) -> None:
    raw = _USUAL.replace(spec.MEDIA_CONFIG.encode(), media_type.encode())
    assert oci._USUAL.fullmatch(raw)
    made = ArtifactManifest.parse(raw, subject="m")
    assert made.config.kind == "config"
    assert made.file("metadata.json") == made.layers[2]
    assert made.file("other") is None


@given(st.data())
@settings(max_examples=300)
def test_what_looks_usual_passes_the_schema(data: st.DataObject) -> None:
    require_schema_agrees(data, _USUAL, oci._USUAL, "artifact-manifest")


# --- index.json ------------------------------------------------------------------------------------------------------


def entry(**change: Any) -> dict[str, Any]:
    return {"mediaType": "application/x", "digest": f"sha256:{HEX}", "size": 1, **change}


def index(*entries: Any, **change: Any) -> ImageIndex:
    value = {"schemaVersion": 2, "manifests": list(entries), **change}
    return ImageIndex.parse(json.dumps(value).encode(), subject="index.json")


def named(name: str, **change: Any) -> dict[str, Any]:
    return entry(annotations={spec.ANNOTATION_REF_NAME: name}, **change)


def test_foreign_entries_are_kept_as_they_are() -> None:
    foreign = entry(mediaType="", digest="sha512:x", platform={"os": "linux"}, urls=["x"], data="eA==")
    assert index(foreign).entries == (foreign,)
    assert ImageIndex.parse(index(foreign).to_bytes(), subject="i").entries == (foreign,)


def test_find() -> None:
    found = index(named("a"), entry(), named("b", size=2), named("a", size=3))
    assert [descriptor.size for descriptor in found.find("a")] == [1, 3]
    assert [descriptor.size for descriptor in found.find("b")] == [2]
    assert found.find("") == found.find("c") == []


@pytest.mark.parametrize("digest", [f"sha512:{HEX}{HEX}", "x", f"sha256:{HEX}\n", "sha256:../x", ""])
def test_find_another_digest(digest: str) -> None:
    found = index(named("a", digest=digest), named("b"))
    assert len(found.find("b")) == 1
    with pytest.raises(UnsupportedVersion, match=r"^image index, 'a': .*expected sha256:<64"):
        found.find("a")


def test_an_empty_index() -> None:
    assert ImageIndex().to_bytes() == (
        b'{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}'
    )
    assert index() == ImageIndex()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"layers": []}, "mediaType"),
        ({"mediaType": spec.MEDIA_MANIFEST}, "mediaType"),
        ({"mediaType": None}, "mediaType"),
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"manifests": {}}, "manifests"),
        ({"manifests": None}, "manifests"),
        ({"annotations": {"": "x"}}, "annotations"),
    ],
)
def test_broken_indexes(change: dict[str, Any], place: str) -> None:
    with pytest.raises(DocumentError) as caught:
        index(**change)
    assert caught.value.at == place


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (5, ""),
        ({}, ""),
        (entry(size=-1), ".size"),
        (entry(size=True), ".size"),
        (entry(size=2**63), ".size"),
        (entry(digest=5), ".digest"),
        (entry(digest="x" * 301), ".digest"),
        (entry(mediaType=5), ".mediaType"),
        (entry(artifactType=5), ".artifactType"),
        (entry(annotations={"a": 1}), ".annotations.a"),
        (entry(annotations=None), ".annotations"),
    ],
)
def test_broken_entries(broken: Any, place: str) -> None:
    with pytest.raises(DocumentError) as caught:
        index(entry(), broken)
    assert caught.value.at == f"manifests[1]{place}"
