r"""Templates for --format: `{name:<20} {size_bytes|size}\n`, and what they make of a JSON output.

    template  = *(text / "{{" / "}}" / field)
    text      = any characters; \n, \t and \\ are a line's end, a tab and a backslash
    field     = "{" path ["|" filter] [":" format] "}"
    path      = name *("." name / "[" key "]")
    filter    = "size" / "time" / "short" / "json"
    format    = ["<" / ">" / "^"] width

Fields are looked up in the document alone: nothing of Python is in reach. A name that the document never has is an
error; a key in brackets that is not there, as a label or a number past an array's end, is nothing, and so is null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from casstore.cli import render
from casstore.errors import UsageError

if TYPE_CHECKING:
    from casstore.cli.outputs import Shape

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
_TOKEN = re.compile(
    r"\\(?P<escape>.)|(?P<brace>\{\{|\}\})|\{(?P<field>(?:\[[^\[\]]*\]|[^\[\]{}])*)\}|(?P<stray>[{}])", re.DOTALL
)
_FIELD = re.compile(
    r"(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[[^\[\]]+\])*)(?:\|(?P<filter>\w+))?(?::(?P<align>[<>^]?)(?P<width>[0-9]{1,4}))?",
    re.ASCII,
)
_STEP = re.compile(r"\.?(?P<name>\w+)|\[(?P<key>[^\[\]]+)\]", re.ASCII)
_MISSING = None


def _size(value: Any) -> str:
    return render.size(value) if isinstance(value, int) else _text(value)


def _time(value: Any) -> str:
    return render.time_text(value) if isinstance(value, str) else _text(value)


def _short(value: Any) -> str:
    """A digest as lists show it."""
    return value[:19] if isinstance(value, str) and value.startswith("sha256:") else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value)


_FILTERS: Mapping[str, Callable[[Any], str]] = {"size": _size, "time": _time, "short": _short, "json": json.dumps}


@dataclass(frozen=True, slots=True)
class _Field:
    path: tuple[tuple[str, bool], ...]
    """(name, False) for a name, (key, True) for what stands in brackets."""
    filter: Callable[[Any], str]
    align: str
    width: int

    @property
    def text(self) -> str:
        """The path, as it was written."""
        return "".join(f"[{step}]" if is_key else f".{step}" for step, is_key in self.path).removeprefix(".")


class Template:
    """A template that was understood."""

    def __init__(self, parts: Sequence[str | _Field], shapes: Sequence[Shape]) -> None:
        self._parts, self._shapes = parts, shapes

    @classmethod
    def parse(cls, text: str, shapes: Sequence[Shape]) -> Template:
        """The template in `text`, for a verb that writes documents of these `shapes`.

        Raises:
            UsageError: it is no template, or names a field that none of the documents has.
        """
        parts: list[str | _Field] = []
        end = 0
        for token in _TOKEN.finditer(text):
            parts.append(text[end : token.start()])
            parts.append(_part(token, text))
            end = token.end()
        parts.append(text[end:])
        template = cls([part for part in parts if part], shapes)
        template._check()
        return template

    def _check(self) -> None:
        problems = []
        for shape in self._shapes:
            record = _record(shape)
            problem = next(filter(None, (_unknown(field, record) for field in self.fields)), None)
            if problem is None:
                return
            problems.append(problem)
        if problems:
            raise UsageError(problems[0])

    @property
    def fields(self) -> Sequence[_Field]:
        """The fields in it."""
        return [part for part in self._parts if isinstance(part, _Field)]

    def lines(self, document: Mapping[str, Any]) -> Iterator[str]:
        """What the template makes of a document: one text, or one for each item of the array that it is about.

        Raises:
            UsageError: the document, of several that the verb may write, has not a field that is named.
        """
        keys = set(document)
        shape = next((each for each in self._shapes if each.required <= keys <= set(each.fields)), None)
        each = shape and shape.each
        for record in document[each] if each else [document]:
            yield "".join(part if isinstance(part, str) else self._shown(part, record) for part in self._parts)

    def _shown(self, field: _Field, record: Mapping[str, Any]) -> str:
        value: Any = record
        for step, is_key in field.path:
            if value is None:
                break
            if is_key and isinstance(value, list):
                value = value[int(step)] if step.isdecimal() and int(step) < len(value) else _MISSING
            elif is_key and isinstance(value, dict):
                value = value.get(step, _MISSING)
            elif isinstance(value, dict) and step in value:
                value = value[step]
            else:
                raise UsageError(f"--format: this output has no field {field.text}; --json shows what it has")
        text = render.printable(field.filter(value))
        return f"{text:{field.align or '<'}{field.width}}" if field.width else text


def _part(token: re.Match[str], text: str) -> str | _Field:
    if token["escape"]:
        if token["escape"] not in _ESCAPES:
            raise UsageError(rf"--format: expected \n, \t or \\, got \{token['escape']}; write \\ for a backslash")
        return _ESCAPES[token["escape"]]
    if token["brace"]:
        return token["brace"][0]
    found = None if token["stray"] else _FIELD.fullmatch(token["field"])
    if found is None:
        got = text[token.start() : token.start() + 40] if token["stray"] else token[0][:80]
        raise UsageError(f"--format: expected {{FIELD}} or {{FIELD|FILTER:WIDTH}}, got {got!r}; write {{{{ for a brace")
    name = found["filter"]
    if name is not None and name not in _FILTERS:
        raise UsageError(f"--format: expected a filter of {', '.join(_FILTERS)}, got {name}{_guess(name, _FILTERS)}")
    path = tuple((step["name"] or step["key"], step["name"] is None) for step in _STEP.finditer(found["path"]))
    return _Field(path, _FILTERS[name] if name else _text, found["align"] or "", int(found["width"] or 0))


def _record(shape: Shape) -> Shape:
    """What one line is about."""
    inner = shape.fields[shape.each].items if shape.each else None
    return inner or shape


def _unknown(field: _Field, shape: Shape) -> str | None:
    """What is wrong with a path, as far as a schema can tell; None where it leads to something."""
    inside: Shape | None = shape
    trail = ""
    for step, is_key in field.path:
        if inside is None:
            return f"--format: {trail} has no fields, got {field.text}"
        if is_key and (inside.is_map or inside.items):
            inside = inside.items
            trail += f"[{step}]"
            if inside is None:
                return None if field.path[-1] == (step, is_key) else f"--format: {trail} has no fields"
            continue
        fields = inside.fields
        if step not in fields:
            where = f" of {trail}" if trail else ""
            if not fields:
                hint = f"; write {trail}[{step}]" if inside.is_map or inside.items else ""
                return f"--format: expected no field after {trail}, got {step}{hint}"
            known = ", ".join(sorted(fields))
            return f"--format: expected a field{where}, got {step}{_guess(step, fields)}; there are {known}"
        inside = fields[step]
        trail = f"{trail}.{step}" if trail else step
    return None


def _guess(word: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches

    longer = [name for name in known if name.startswith(f"{word}_")]
    close = longer or get_close_matches(word, known, n=1)
    return f", did you mean {close[0]}?" if close else ""
