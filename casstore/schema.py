"""JSON Schemas (draft 2020-12) of the documents, from `schemas/`; shipped inside the package.

A schema says shapes; what it cannot say (canonical bytes, digests that must agree) is code beside each document. Two
habits in the schemas: after a `$` at the end of a pattern stands `(?!\\n)`, as Python's `$` also matches before a last
newline; and a field that must not be there is `{"not": {}}`, as jsonschema does not tell which field was `false`.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from typing import Any

from casstore.errors import DocumentError
from casstore.jsondoc import Json

_MAX_ERRORS = 32  # a hostile list of 2 million items has as many errors, and to collect them all takes minutes
_SHOWN = 150


@cache
def _validator(name: str) -> Any:
    # Slow to import (0.1 s), and not needed by the verbs that answer from the catalog.
    from importlib.resources import files

    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    folder = files("casstore").joinpath("schemas")
    documents = {
        entry.name: json.loads(entry.read_bytes()) for entry in folder.iterdir() if entry.name.endswith(".schema.json")
    }
    resources = [(file, Resource.from_contents(document)) for file, document in documents.items()]
    registry: Registry[Any] = Registry().with_resources(resources)
    return Draft202012Validator(documents[f"{name}.schema.json"], registry=registry)


def validate(document: Json, name: str, *, subject: str) -> None:
    """Check `document` against `schemas/<name>.schema.json`.

    Raises:
        DocumentError: the shallowest of the first violations, with its place in `at`.
    """
    errors = islice(_validator(name).iter_errors(document), _MAX_ERRORS)
    worst = min(errors, key=lambda error: (len(error.absolute_path), str(error.json_path)), default=None)
    if worst is not None:
        problem = "not allowed here" if worst.validator == "not" else worst.message
        raise DocumentError(subject, _short(problem), at=_short(worst.json_path.removeprefix("$").lstrip(".")))


def _short(text: str) -> str:
    """Start and end of a message, which begins with the value and ends with what is wrong with it, or of a place in the
    document, which has its keys as they are.
    """
    text = text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}...{text[-_SHOWN:]}"
    return text if text.isprintable() else ascii(text)[1:-1]
