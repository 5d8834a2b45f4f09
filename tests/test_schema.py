"""The JSON Schemas themselves, and how their verdicts are told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from casstore.errors import DocumentError
from casstore.schema import validate

FOLDER = files("casstore").joinpath("schemas")
SCHEMAS = {entry.name: json.loads(entry.read_bytes()) for entry in FOLDER.iterdir()}
DIGEST = "sha256:" + "a" * 64
DESCRIPTOR = {"mediaType": "a/b", "digest": DIGEST, "size": 1}


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def test_there_are_schemas() -> None:
    assert {"descriptor.schema.json", "artifact-manifest.schema.json", "snapshot-manifest.schema.json"} <= set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_valid(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == name
    assert schema["title"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_reference_leads_to_one_of_them(name: str) -> None:
    for node in walk(SCHEMAS[name]):
        if "$ref" in node and isinstance(node["$ref"], str):
            file, _, pointer = node["$ref"].partition("#")
            target = SCHEMAS[file or name]
            for key in pointer.strip("/").split("/") if pointer else []:
                target = target[key]


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_pattern_lets_a_newline_through(name: str) -> None:
    """Jsonschema matches with re.search, whose `$` also stands before a last newline."""
    for node in walk(SCHEMAS[name]):
        pattern = node.get("pattern")
        if isinstance(pattern, str):
            assert pattern.startswith("^")
            assert pattern.endswith("$(?!\\n)")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("digest", DIGEST + end) for end in ("\n", "\r", "\0", "a", " ")),
        ("digest", "sha256:" + "a" * 63 + "\n"),
        ("mediaType", "a/b\n"),
        ("mediaType", "a/b\nc"),
    ],
)
def test_newlines(field: str, value: str) -> None:
    validate(DESCRIPTOR, "descriptor", subject="d")
    with pytest.raises(DocumentError) as caught:
        validate({**DESCRIPTOR, field: value}, "descriptor", subject="d")
    assert caught.value.at == field


def test_patterns_still_match() -> None:
    pattern = SCHEMAS["descriptor.schema.json"]["properties"]["digest"]["pattern"]
    assert re.search(pattern, DIGEST)
    assert not re.search(pattern, DIGEST + "\n")


def test_the_shallowest_violation_is_told() -> None:
    document = {"schemaVersion": 2, "manifests": [{"mediaType": 1, "digest": "x", "size": 1}], "layers": []}
    with pytest.raises(DocumentError) as caught:
        validate(document, "index", subject="i")
    assert str(caught.value) == "i: not allowed here (at layers)"
    del document["layers"]
    with pytest.raises(DocumentError) as caught:
        validate(document, "index", subject="i")
    assert str(caught.value) == "i: 1 is not of type 'string' (at manifests[0].mediaType)"


def test_a_long_text_keeps_what_is_wrong() -> None:
    with pytest.raises(DocumentError) as caught:
        validate({**DESCRIPTOR, "size": "x" * 10_000}, "descriptor", subject="d")
    assert len(str(caught.value)) < 400
    assert caught.value.problem.endswith("is not of type 'integer'")


@pytest.mark.parametrize("item", [0, {}, [], DESCRIPTOR | {"size": -1}], ids=["number", "object", "list", "descriptor"])
def test_hostile_lists_are_refused_in_seconds(item: object) -> None:
    """To collect all violations of two million items took minutes."""
    document = {"schemaVersion": 2, "manifests": [item] * 1_000_000}
    started = time.perf_counter()
    with pytest.raises(DocumentError, match=r"at manifests\[0\]"):
        validate(document, "index", subject="index.json")
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("oci-layout", {"imageLayoutVersion": "1.0.0", "x": 1}, {"imageLayoutVersion": "1.1.0"}),
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}, {"imageLayoutVersion": 1}),
        (
            "store",
            {"version": 1, "features": {"compatible": [], "readOnlyCompatible": ["x"], "incompatible": []}},
            {"version": 1, "features": {"compatible": [], "readOnlyCompatible": [1], "incompatible": []}},
        ),
        (
            "store",
            {"version": 2, "features": {"compatible": [], "readOnlyCompatible": [], "incompatible": []}},
            {"version": True, "features": {"compatible": [], "readOnlyCompatible": [], "incompatible": []}},
        ),
    ],
)
def test_marker_files(name: str, good: Any, bad: Any) -> None:
    validate(good, name, subject="m")
    with pytest.raises(DocumentError, match=r"^m: "):
        validate(bad, name, subject="m")
