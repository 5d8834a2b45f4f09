"""What to type next after an error: one command, complete, in the user's own words. It is shown as `Try: ...`.

An error's text says what is wrong, and what can be done; here one of these things is made a command line that can be
copied. Nothing is suggested that overwrites or removes something.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from casstore.errors import (
    AlreadyExists,
    CasstoreError,
    CorruptContent,
    InvalidKey,
    InvalidName,
    InvalidReference,
    NotFound,
    RegistryError,
    SandboxNotFound,
    SandboxNotStopped,
    SourceError,
    StorageError,
    StoreLocked,
    Unauthorized,
    Unavailable,
    UnsupportedVersion,
    UntrustedContent,
    UsageError,
)

_DOCUMENTS = ("manifest.json", "snapshot.json")
"""One of them lies beside the disk of an artifact directory."""
_SECRET = re.compile(r"@(?!sha256:)")
"""What may be a user and password before a host: such words are not repeated."""
# What a registry says stands in a text, too, but neither at its beginning nor at its end.
_END = r"(?: \([^()]*\))?\Z"
_MEANT = re.compile(r"(?:snapshot |oci:).*; did you mean ([^\s;]+)\?")
_UNDO = re.compile(r"snapshot .*; it was removed, and casstore undo (\S+) takes it back")
_LOGIN = re.compile(r"run: casstore login ([\w.:\[\]-]+)(?: --plain-http)?" + _END)
_HTTP = re.compile(r"; it seems to speak http: try --plain-http" + _END)
_HTTPS = re.compile(r"; it speaks https: leave out --plain-http" + _END)
_SUBJECT = re.compile(r"(?:snapshot|sandbox not found:) ([^\s:;]+)")


@dataclass(frozen=True, slots=True)
class Typed:
    """A command line that failed, taken apart."""

    words: Sequence[str]
    """All but `casstore`."""
    verb: str
    before: Sequence[str]
    """The options before the verb."""
    params: dict[str, Any] = field(default_factory=dict)
    """The verb's, by the names of the parameters."""

    def again(self, *more: str) -> str:
        """The same once more, with these words at its end."""
        return shlex.join(["casstore", *self.words, *more])

    def other(self, *words: str) -> str:
        """Another verb with the same options before it."""
        return shlex.join(["casstore", *self.before, *words])

    def replaced(self, old: str, new: str) -> str | None:
        """The same with the last word `old`, or the last option's value `=old`, replaced; None where there is none."""
        words = list(self.words)
        for at in reversed(range(len(words))):
            if words[at] == old or words[at].endswith(f"={old}"):
                words[at] = words[at].removesuffix(old) + new
                return shlex.join(["casstore", *words])
        return None

    @property
    def plain_http(self) -> Sequence[str]:
        """The option, if it was given."""
        connection = self.params.get("plain_http")
        return ["--plain-http"] if connection else []


Rules = Sequence[tuple[type[BaseException], Callable[[BaseException, Typed], str | None]]]
"""For a class of errors each: what knows the command to type next, or None."""


def take_apart(root: click.Group, words: Sequence[str]) -> Typed | None:
    """The parts of a command line, as far as they make sense; None where there is no verb."""
    options = {name: param for param in root.params if isinstance(param, click.Option) for name in param.opts}
    at = 0
    while at < len(words) and words[at].startswith("-"):
        option = options.get(words[at])
        at += 2 if option is not None and not option.is_flag else 1
    if at >= len(words):
        return None
    params: dict[str, Any] = {}
    with (
        contextlib.suppress(click.ClickException, click.exceptions.Exit),
        click.Context(root, **root.context_settings) as ctx,
    ):
        command = root.get_command(ctx, words[at])
        if command is not None:
            rest = list(words[at + 1 :])
            params = command.make_context(words[at], rest, parent=ctx, resilient_parsing=True).params
    return Typed(words, words[at], words[:at], params)


def advise(error: BaseException, typed: Typed, first: Rules = ()) -> str | None:
    """The command to type next; None where there is nothing better to do than to read the text.

    The rules in `first` are asked before those of this module.
    """
    for kind, rule in (*first, *_RULES):
        if isinstance(error, kind) and (found := rule(error, typed)) is not None:
            return None if _SECRET.search(found) else found
    return None


def _no_store(error: BaseException, typed: Typed) -> str | None:
    found = re.match(r"store '(.*)': there is no store; ", str(error))
    if found is None:
        return None
    if os.path.exists(os.path.join(found[1], "oci-layout")):
        return shlex.join(["casstore", "list", f"oci:{found[1]}"])
    return typed.other("init")


def _not_found(error: BaseException, typed: Typed) -> str | None:
    text = str(error)
    undo, meant, subject = _UNDO.match(text), _MEANT.match(text), _SUBJECT.match(text)
    if undo is not None:
        return typed.other("undo", undo[1])
    if meant is not None:
        wanted = subject[1] if subject else text.partition(": ")[0].rpartition(":")[2]
        for old in (wanted, *(word for word in typed.words if word.endswith(f":{wanted}"))):
            replaced = typed.replaced(old, old.removesuffix(wanted) + meant[1])
            if replaced is not None:
                return replaced
    if subject is not None:
        return typed.other("list")
    layout = re.match(r"oci:(.+): expected an OCI layout", text)
    if layout is not None:
        return shlex.join(["ls", "-l", os.path.dirname(layout[1]) or "."])
    place = repository(text.partition(": ")[0])
    if place is not None and typed.verb != "list":
        return typed.other("list", place, *typed.plain_http)
    return None


def repository(text: str) -> str | None:
    """A reference without tag and digest; None of what is none."""
    from casstore.reference import parse_reference

    try:
        return parse_reference(text).name
    except CasstoreError:
        return None


def _no_sandbox(error: BaseException, typed: Typed) -> str | None:
    found = re.match(r"sandbox not found: (\S+); the home '.*' has (.+)$", str(error))
    if found is not None and found[2] != "no sandboxes":
        from casstore.names import nearest

        close = nearest(found[1], found[2].split(", "))
        if close is not None and (replaced := typed.replaced(found[1], close)) is not None:
            return replaced
    return "msb ls" if found is not None else typed.other("doctor")


def _running(error: BaseException, typed: Typed) -> str | None:
    found = re.search(r"sandbox '(.+)' is not stopped", str(error))
    return shlex.join(["msb", "stop", found[1]]) if found else None


def _taken(error: BaseException, typed: Typed) -> str | None:
    text = str(error)
    name = re.match(r"snapshot (\S+): expected a free name", text)
    if name is not None:
        free = f"{name[1]}-2"
        replaced = typed.replaced(name[1], free) if typed.verb in {"create", "tag"} else None
        if replaced is None and typed.verb == "pull":
            replaced = typed.replaced(name[1], free) if "--name" in typed.words else typed.again("--name", free)
        return replaced
    path = re.match(r"'(.*)' exists already", text)
    if path is not None:
        stem, suffix = os.path.splitext(path[1])
        free = next(each for n in range(2, 1000) if not os.path.lexists(each := f"{stem}-{n}{suffix}"))
        return typed.replaced(path[1], free)
    return None


def _no_disk(error: BaseException, typed: Typed) -> str | None:
    from casstore.names import nearest

    found = re.match(r"(?:disk|archive|artifact directory) '(.*)': (.*)", str(error))
    if found is None:
        return None
    path, said = found[1], found[2]
    if os.path.isfile(path):
        return None
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if any(os.path.exists(os.path.join(path, each)) for each in _DOCUMENTS):
        name = typed.params.get("destination")
        return typed.other("create", *([name] if name else []), "--from-artifact", path)
    if not os.path.isdir(path) and ("No such file" in said or "there is none" in said):
        with contextlib.suppress(OSError):
            close = nearest(os.path.basename(path), sorted(os.listdir(folder)))
            if close is not None:
                return typed.replaced(path, os.path.join(os.path.dirname(path), close))
    return shlex.join(["ls", "-l", folder])


def _no_archive(error: BaseException, typed: Typed) -> str | None:
    found = re.match(r"archive '(.*)': expected a tar archive", str(error))
    if found is None or typed.verb not in {"import", "load"}:
        return None
    from casstore.names import as_name

    name = as_name(os.path.splitext(os.path.basename(found[1]))[0]) or "disk"
    return typed.other("create", name, "--disk", found[1])


def _other_name(error: BaseException, typed: Typed) -> str | None:
    from casstore.names import as_name

    for word in typed.words:
        if f"snapshot name {ascii(word)}" in str(error) and (name := as_name(word)) is not None and name != word:
            return typed.replaced(word, name)
    return None


def _reference(error: BaseException, typed: Typed) -> str | None:
    for word in typed.words:
        if re.match(r"https?://", word) and "://" in str(error):
            return typed.replaced(word, re.sub(r"^https?://", "", word).rstrip("/"))
        if typed.verb in {"pull", "copy"} and f"reference {word!r}: no registry host" in str(error):
            return typed.other("push" if typed.verb == "copy" else "list", *_rest_of_copy(typed, word))
    return typed.other(typed.verb, "--help")


def _rest_of_copy(typed: Typed, name: str) -> Sequence[str]:
    """What a push of `name` takes of the words of a copy; nothing of a pull."""
    after = typed.words[len(typed.before) + 1 :]
    return after if typed.verb == "copy" and after[:1] == [name] else []


def _tag_wanted(error: BaseException, typed: Typed) -> str | None:
    found = re.search(r" of (\S+): expected a tag or digest, got neither", str(error))
    return typed.other("list", found[1], *typed.plain_http) if found else None


def _login(error: BaseException, typed: Typed) -> str | None:
    found = _LOGIN.search(str(error))  # not where what is kept was refused: there login would not help
    return typed.other("login", found[1], *typed.plain_http) if found else None


def _unreachable(error: BaseException, typed: Typed) -> str | None:
    text = str(error)
    if _HTTP.search(text):
        return typed.again("--plain-http")
    if _HTTPS.search(text):
        return shlex.join(["casstore", *(word for word in typed.words if word != "--plain-http")])
    place = text.partition(": ")[0]
    if repository(place.partition("@")[0]) is None:
        return None
    return typed.other("doctor", place.partition("/")[0], *typed.plain_http)


def _key(error: BaseException, typed: Typed) -> str | None:
    found = re.match(r"key '(.*)': it cannot be read: No such file", str(error))
    if found is None:
        return None
    stem = os.path.splitext(found[1])[0]
    is_private = typed.verb == "sign" or "--sign" in typed.words
    return (
        typed.other("key", "generate", stem) if is_private else shlex.join(["ls", "-l", os.path.dirname(stem) or "."])
    )


def _untrusted(error: BaseException, typed: Typed) -> str | None:
    place = next((word for word in typed.words if repository(word) is not None), None)
    return typed.other("inspect", place, *typed.plain_http) if place and typed.verb in {"pull", "copy"} else None


def _locked(error: BaseException, typed: Typed) -> str | None:
    if "held by another process" not in str(error):
        return typed.other("doctor")
    without = [word for at, word in enumerate(typed.words) if "--wait" not in {word, *typed.words[max(at - 1, 0) : at]}]
    return shlex.join(["casstore", "--wait", "10m", *without])


def _newer(error: BaseException, typed: Typed) -> str | None:
    if "use a newer casstore" in str(error):
        return "pipx upgrade casstore"
    if "it is no snapshot of casstore" not in str(error) or typed.verb == "list":
        return None
    places = (repository(word) for word in typed.words if "/" in word or ":" in word)
    place = next(filter(None, places), None)
    return typed.other("list", place, *typed.plain_http) if place else None


def _damage(error: BaseException, typed: Typed) -> str | None:
    text = " ".join([str(error), *getattr(error, "__notes__", ())])
    if "casstore check" not in text or typed.verb == "check":
        return None
    return typed.other("check", *(["--read-data"] if "--read-data" in text else []))


def _storage(error: BaseException, typed: Typed) -> str | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if error is cause and error.filename is None:  # of a stream: nothing of casstore is full
        return None
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return typed.other("gc", "--dry-run")
    where = re.search(r"No such file or directory \((.*)\)$", str(error))
    if where is not None and number == errno.ENOENT:
        return shlex.join(["mkdir", "-p", where[1]])
    return typed.other("doctor") if number in {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO} else None


_RULES: Rules = (
    (NotFound, _no_store),
    (SandboxNotFound, _no_sandbox),
    (SandboxNotStopped, _running),
    (NotFound, _damage),
    (NotFound, _no_disk),
    (NotFound, _not_found),
    (AlreadyExists, _taken),
    (SourceError, _no_disk),
    (InvalidName, _other_name),
    (InvalidReference, _reference),
    (InvalidKey, _key),
    (UsageError, _tag_wanted),
    (Unauthorized, _login),
    (Unavailable, _unreachable),
    (RegistryError, _unreachable),
    (UntrustedContent, _untrusted),
    (StoreLocked, _locked),
    (UnsupportedVersion, _newer),
    (CorruptContent, _no_archive),
    (CorruptContent, _damage),
    (StorageError, _damage),
    (StorageError, _storage),
    (OSError, _storage),
)
"""Asked in their order, until one has an answer."""
