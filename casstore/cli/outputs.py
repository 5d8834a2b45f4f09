"""What the verbs write as JSON, as their schemas tell it: which schema is whose, and which fields it has.

A schema with `x-each` names the array whose items a template writes a line each of; of one without, it is the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_SEVERAL: Mapping[str, Sequence[str]] = {
    "create": ("create", "create-all"),
    "list": ("list", "tags"),
    "inspect": ("inspect", "inspect-remote"),
    "restore": ("salvage",),
    "push": ("transfer", "transfers", "plan"),
    "pull": ("transfer", "plan"),
    "copy": ("transfer", "plan"),
}
"""Verbs whose documents are not `cli-VERB` alone."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value in a document may be: the fields of an object, by name, or the items of an array."""

    schema: Mapping[str, Any]
    """With its references followed, one level deep."""
    home: str
    """The file of the schema that it is from."""

    @property
    def fields(self) -> Mapping[str, Shape]:
        """The fields of an object whose names are fixed; of a union those of every member."""
        found: dict[str, Shape] = {}
        for part in self.parts():
            properties = part.schema.get("properties", {})
            found |= {name: _shape(schema, part.home) for name, schema in properties.items()}
        return found

    @property
    def required(self) -> frozenset[str]:
        """The fields that are always there."""
        return frozenset(name for part in self.parts() for name in part.schema.get("required", ()))

    @property
    def items(self) -> Shape | None:
        """What an array holds."""
        for part in self.parts():
            if isinstance(part.schema.get("items"), dict):
                return _shape(part.schema["items"], part.home)
        return None

    @property
    def is_map(self) -> bool:
        """Whether its names are anybody's, as those of labels."""
        return any(isinstance(part.schema.get("additionalProperties"), dict) for part in self.parts())

    @property
    def each(self) -> str | None:
        """The array whose items a template is about."""
        name = self.schema.get("x-each")
        return name if isinstance(name, str) else None

    @property
    def type(self) -> str:
        """In words: `integer`, `string or null`, `array of object`."""
        return " or ".join(dict.fromkeys(word for part in self.parts() for word in _words(part))) or "any"

    def parts(self) -> Iterator[Shape]:
        """Itself, and all that it refers to or is made up of."""
        yield self
        for kind in ("anyOf", "oneOf", "allOf"):
            for schema in self.schema.get(kind, ()):
                yield from _shape(schema, self.home).parts()
        if "$ref" in self.schema:
            home, _, pointer = self.schema["$ref"].partition("#")
            home = home or self.home
            target: Any = _document(home)
            for step in filter(None, pointer.split("/")):
                target = target[step]
            yield from _shape(target, home).parts()


def _words(shape: Shape) -> Iterator[str]:
    kinds = shape.schema.get("type", ())
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        inner = shape.items if kind == "array" else None
        named = f"{kind} with names of any kind" if kind == "object" and shape.is_map else kind
        yield named if inner is None else f"array of {inner.type}"
    for value in shape.schema.get("enum", [shape.schema["const"]] if "const" in shape.schema else []):
        yield f"`{json.dumps(value)}`"


def _shape(schema: Any, home: str) -> Shape:
    return Shape(schema if isinstance(schema, dict) else {}, home)


@cache
def _document(name: str) -> Any:
    return json.loads(files("casstore").joinpath("schemas", name).read_bytes())


def output(name: str) -> Shape:
    """The document that `schemas/cli-NAME.schema.json` describes."""
    home = f"cli-{name}.schema.json"
    return Shape(_document(home), home)


def names(verb: str) -> Sequence[str]:
    """The documents of a verb, `key show` for one of a group, the commonest first."""
    return _SEVERAL.get(verb, (verb.replace(" ", "-"),))


def outputs(verb: str) -> list[Shape]:
    """The documents that a verb may write with --json."""
    return [output(name) for name in names(verb)]
