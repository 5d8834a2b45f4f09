"""casstore.policy.toml: what must be signed by whom, by the place that content comes from.

The file is checked against schemas/policy.schema.json, and then here for what a schema cannot say. A policy that is not
understood to the last key is refused as a whole: half a policy would let through what the other half is for.
"""

from __future__ import annotations

import posixpath
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from casstore import spec, units
from casstore.errors import DocumentError, InvalidKey, InvalidPolicy, UsageError
from casstore.schema import validate
from casstore.signatures.keys import PublicKey
from casstore.signatures.redaction import without_private
from casstore.trust.baseimage import BaseImage
from casstore.trust.requirement import Requirement, distinct
from casstore.trust.scopes import Scope, place_parts

VERSION = 1
MAX_POLICY = spec.MIB
"""Bytes of the file."""
TOP_KEYS = ("version", "default", "keys", "rules")
_PEM = "-----BEGIN "
_INT_RANGE = range(-(2**63), 2**63)  # TOML's
_ONLY_SIGNED = ("keys", "threshold", "signed_for", "repository", "max_age", "base_images")
"""What says something about signatures, and so says nothing without them."""
RULE_KEYS = ("scope", "require", *_ONLY_SIGNED, "no_rollback")

ReadKey = Callable[[str], bytes]
"""Gives the bytes of the file that a policy names, relative to itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of the places in one scope; None where nothing is."""

    scope: Scope
    requirement: Requirement | None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one file; use `parse`."""

    subject: str
    rules: tuple[Rule, ...]
    default: Rule
    """For places that no rule is for."""
    path: str | None = None
    """The file it is from, if it is from one."""

    @classmethod
    def parse(
        cls,
        raw: bytes,
        *,
        subject: str,
        read_key: ReadKey,
        real_path: Callable[[str], str] = posixpath.normpath,
    ) -> Policy:
        """Parse a policy; `real_path` makes the directories in scopes those that places are told with.

        Raises:
            InvalidPolicy: it cannot be followed to the letter; the text says where in it, and why.
        """
        document = _load(raw, subject)
        keys = {
            name: _key(value, name=name, subject=subject, read_key=read_key)
            for name, value in document.get("keys", {}).items()
        }
        rules: dict[tuple[str, ...], Rule] = {}
        for n, entry in enumerate(document.get("rules", [])):
            rule = _rule(entry, keys, subject=subject, at=f"rules[{n}]", real_path=real_path)
            if rule.scope.parts in rules:
                other = rules[rule.scope.parts].scope.text
                problem = f"expected one rule for each scope, got two for {_shown(rule.scope.text)}"
                _refuse(
                    subject,
                    problem + (f" and {_shown(other)}" if other != rule.scope.text else ""),
                    f"rules[{n}].scope",
                )
            rules[rule.scope.parts] = rule
        refuses = document["default"] == "refuse"
        everything = Requirement(told=f"{subject}, default", refuse=True) if refuses else None
        return cls(subject, tuple(rules.values()), Rule(Scope("default", ()), everything))

    def rule_for(self, place: str) -> Rule:
        """The rule for a place: of those whose scope covers it, the one with the longest scope; else the default.

        Raises:
            InvalidReference: it is no place.
        """
        parts = place_parts(place)
        covering = [rule for rule in self.rules if rule.scope.covers(parts)]
        return max(covering, key=lambda rule: len(rule.scope.parts), default=self.default)


def _load(raw: bytes, subject: str) -> dict[str, Any]:
    """The file as a document that its schema lets through."""
    if len(raw) > MAX_POLICY:
        _refuse(subject, f"expected at most {MAX_POLICY} bytes, got {len(raw)}")

    def whole(number: str) -> NoReturn:
        _refuse(subject, f"expected whole numbers, got {number[:40]}")

    try:
        document = tomllib.loads(raw.decode("utf-8"), parse_float=whole)
    except UnicodeDecodeError as error:
        _refuse(subject, f"expected UTF-8, got byte {raw[error.start]:#04x}", f"byte {error.start}")
    except (ValueError, RecursionError) as error:  # ValueError: tomllib's own, and integers of thousands of digits
        _refuse(subject, f"expected TOML: {str(error)[:200] or 'it is nested too deeply'}")
    if not all(number in _INT_RANGE for number in _integers(document)):
        _refuse(subject, "expected numbers of 64 bits, got a larger one")  # which Python may not even print
    version = document.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version != VERSION:
        _refuse(subject, f"expected version {VERSION}, got {version}; use the casstore that it was made for", "version")
    try:
        validate(document, "policy", subject=subject)
    except DocumentError as error:
        known = RULE_KEYS if error.at.startswith("rules[") else TOP_KEYS
        more = f"; expected only {', '.join(known)}" if "unexpected)" in error.problem else ""
        _refuse(subject, error.problem + more, error.at)
    return document


def _integers(document: dict[str, Any]) -> Iterator[int]:
    """All integers in a document, however deep."""
    left: list[Any] = [document]
    while left:
        value = left.pop()
        if isinstance(value, int):
            yield value
        elif isinstance(value, (dict, list)):
            left += value.values() if isinstance(value, dict) else value


def _key(value: str, *, name: str, subject: str, read_key: ReadKey) -> PublicKey:
    """The key of this name, which is a file or its text."""
    at = f"keys.{name}"
    try:
        raw = value.encode() if value.lstrip().startswith(_PEM) else read_key(value)
        return PublicKey.parse(raw, name=name)
    except InvalidKey as error:
        _refuse(subject, str(error), at)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        problem = getattr(error, "strerror", None) or error
        _refuse(subject, f"expected a file with a public key, or its text, got {_shown(value)}: {problem}", at)


def _rule(
    entry: Mapping[str, Any],
    keys: Mapping[str, PublicKey],
    *,
    subject: str,
    at: str,
    real_path: Callable[[str], str],
) -> Rule:
    with _told(subject, f"{at}.scope"):
        scope = Scope.parse(entry["scope"], real_path=real_path)
    require, no_rollback = entry["require"], entry.get("no_rollback", False)
    told = f"{subject}, rule for {scope.text}"
    if require == "refuse":
        _refuse_others(entry, (*_ONLY_SIGNED, "no_rollback"), subject, at)
        return Rule(scope, Requirement(told=told, refuse=True))
    if require == "unsigned":
        _refuse_others(entry, _ONLY_SIGNED, subject, at)
        return Rule(scope, Requirement(told=told, no_rollback=True) if no_rollback else None)
    return Rule(scope, _signed(entry, keys, told=told, subject=subject, at=at))


def _signed(
    entry: Mapping[str, Any], keys: Mapping[str, PublicKey], *, told: str, subject: str, at: str
) -> Requirement:
    """What a rule asks that wants signatures."""
    if "keys" not in entry:
        _refuse(subject, 'expected keys with require = "signed", got none', f"{at}.keys")
    for n, name in enumerate(entry["keys"]):
        if name not in keys:
            known = ", ".join(keys) or "none"
            _refuse(subject, f"expected the name of a key in [keys] ({known}), got {_shown(name)}", f"{at}.keys[{n}]")
    wanted = distinct(keys[name] for name in entry["keys"])
    threshold = entry.get("threshold", 1)
    if threshold > len(wanted):
        problem = f"expected at most {len(wanted)}, the number of different keys, got {threshold}"
        _refuse(subject, problem, f"{at}.threshold")
    max_age = None
    if "max_age" in entry:
        with _told(subject, f"{at}.max_age"):
            max_age = timedelta(seconds=units.parse_age(entry["max_age"]))
    signed_for, base_images = [], []
    for n, text in enumerate(entry.get("signed_for", [])):
        with _told(subject, f"{at}.signed_for[{n}]"):
            signed_for.append(Scope.of_repositories(text))
    for n, text in enumerate(entry.get("base_images", [])):
        with _told(subject, f"{at}.base_images[{n}]"):
            base_images.append(BaseImage.parse(text))
    return Requirement(
        told=told,
        signed=True,
        keys=wanted,
        threshold=threshold,
        signed_for=tuple(signed_for),
        repository_always=entry.get("repository", "if-named") == "always",
        max_age=max_age,
        base_images=tuple(base_images),
        no_rollback=entry.get("no_rollback", False),
    )


def _refuse_others(entry: Mapping[str, Any], keys: tuple[str, ...], subject: str, at: str) -> None:
    """Refuse a rule that says what it has no use for: whoever wrote it meant something else."""
    for key in keys:
        if key in entry:
            problem = f"expected no {key} with require = {_shown(entry['require'])}, got one; leave out one of the two"
            _refuse(subject, problem, f"{at}.{key}")


@contextmanager
def _told(subject: str, at: str) -> Iterator[None]:
    """Tell an error in a value as one of the policy."""
    try:
        yield
    except (UsageError, ValueError) as error:
        _refuse(subject, str(error), at)


def _refuse(subject: str, problem: str, at: str = "") -> NoReturn:
    where = f" (at {at})" if at else ""
    raise InvalidPolicy(without_private(f"{subject}: {problem}{where}; nothing is taken until the policy is right"))


def _shown(text: str) -> str:
    return ascii(text[:200])
