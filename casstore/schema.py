"""JSON Schemas (draft 2020-12) of the documents, from `schemas/`; shipped inside the package.

A schema says shapes; what it cannot say (canonical bytes, digests that must agree) is code beside each document.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from casstore.errors import DocumentError
from casstore.jsondoc import Json


@cache
def _validator(name: str) -> Any:
    # Slow to import (0.1 s), and not needed by the verbs that answer from the catalog.
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
        DocumentError: the first (shallowest) violation, with its place in `at`.
    """
    errors = _validator(name).iter_errors(document)
    worst = min(errors, key=lambda error: (len(error.absolute_path), str(error.json_path)), default=None)
    if worst is not None:
        problem = worst.message if len(worst.message) <= 300 else f"{worst.message[:300]}..."
        raise DocumentError(subject, problem, at=worst.json_path.removeprefix("$").lstrip("."))
