"""What was meant by words that make no sense as they stand: the command as it should be, for `Try: ...`.

Who comes from other tools writes SNAPSHOT:PATH, names what is written before what is read, gives a disk without --disk,
puts --store behind the verb, or types the verbs of restic, borg, git and docker. As in `advice`, nothing is suggested
that overwrites or removes something.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping

import click

from casstore.cli.advice import Rules, Typed, repository
from casstore.errors import CasstoreError, InvalidName, InvalidReference, NotFound, UsageError

OTHER_WORDS: Mapping[str, str] = {
    "backup": "create",
    "commit": "create",
    "snapshot": "create",
    "snapshots": "list",
    "images": "list",
    "history": "tree",
    "log": "tree",
    "info": "inspect",
    "show": "inspect",
    "dump": "cat",
    "mount": "files",
    "checkout": "restore",
    "extract": "restore",
    "clone": "pull",
    "download": "pull",
    "fetch": "pull",
    "upload": "push",
    "delete": "remove",
    "rmi": "remove",
    "forget": "prune",
    "compact": "gc",
    "fsck": "check",
}
"""What other tools call it, and what it is called here."""

_REMOVING = frozenset({"remove", "rm", "prune", "gc"})
_FORCING = frozenset({"-f", "--force"})
_ELSEWHERE: Mapping[str, str] = {
    "restore": "pull",
    "export": "pull",
    "save": "pull",
    "tag": "pull",
    "tree": "list",
    "stats": "inspect",
    "df": "inspect",
}
"""For verbs that know the store alone: what to do first with what is elsewhere, or instead."""


def _leading(typed: Typed) -> tuple[list[str], list[str]]:
    """The words between the verb and the first option, and those from there on."""
    after = list(typed.words[len(typed.before) + 1 :])
    end = next((at for at, word in enumerate(after) if word.startswith("-")), len(after))
    return after[:end], after[end:]


def _name(text: str) -> str | None:
    from casstore.names import parse_name

    try:
        return parse_name(text)
    except CasstoreError:
        return None


def _is_kept(typed: Typed, text: str) -> bool:
    """Whether the store has a snapshot of this name."""
    from casstore.cli.env import Settings

    store = next((word[8:] for word in typed.before if word.startswith("--store=")), None)
    if store is None and "--store" in typed.before:
        store = typed.before[typed.before.index("--store") + 1]
    return _name(text) is not None and os.path.lexists(os.path.join(Settings.read(store=store).store, "refs", text))


def _verb(error: BaseException, typed: Typed) -> str | None:
    """A verb that was misspelled; of one that has another name the help, as its arguments are others, too."""
    found = re.match(r"no such verb: .*; did you mean (\w+)\?\Z", str(error))
    if found is None:
        return None
    if typed.verb in OTHER_WORDS or found[1] in _REMOVING:
        return typed.other(found[1], "--help")
    return typed.other(found[1], *typed.words[len(typed.before) + 1 :])


def _early(error: BaseException, typed: Typed) -> str | None:
    """An option of casstore itself, behind the verb."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return None
    root = error.ctx.find_root().command
    option = next((each for each in root.params if error.option_name in each.opts and not each.is_eager), None)
    after = list(typed.words[len(typed.before) + 1 :])
    at = next((at for at, word in enumerate(after) if word.partition("=")[0] == error.option_name), None)
    if not isinstance(option, click.Option) or at is None:
        return None
    count = 1 if option.is_flag or "=" in after[at] else 2
    moved = [*typed.before, *after[at : at + count]]
    return shlex.join(["casstore", *moved, typed.verb, *after[:at], *after[at + count :]])


def _option(error: BaseException, typed: Typed) -> str | None:
    """An option that was misspelled."""
    if not isinstance(error, click.NoSuchOption) or typed.verb in _REMOVING:
        return None
    close = error.possibilities or ()
    if len(close) != 1 or close[0] in _FORCING or error.option_name not in typed.words:
        return None
    return typed.replaced(error.option_name, close[0])


def _path_apart(error: BaseException, typed: Typed) -> str | None:
    """SNAPSHOT:PATH, as docker and scp have it."""
    words, rest = _leading(typed)
    if typed.verb not in {"files", "cat", "cp"} or not words or ":/" not in words[0]:
        return None
    snapshot, _, path = words[0].rpartition(":/")
    if snapshot == "oci" or (_name(snapshot) is None and repository(snapshot) is None):
        return None
    here = ["."] if typed.verb == "cp" and len(words) == 1 else []
    return typed.other(typed.verb, snapshot, f"/{path}", *words[1:], *here, *rest)


def _disk(error: BaseException, typed: Typed) -> str | None:
    """A disk without --disk, or without a name for the snapshot."""
    if typed.verb != "create" or not isinstance(error, click.UsageError):
        return None
    words, rest = _leading(typed)
    files = [word for word in words if os.path.isfile(word)]
    if "--disk" in rest:
        given = rest[rest.index("--disk") + 1 :][:1]
        names = [] if words or not given or not os.path.isfile(given[0]) else [_stem(given[0])]
        return typed.other("create", *names, *rest) if names else None
    if len(files) != 1 or len(words) > 2:
        return None
    name = next((word for word in words if word != files[0]), None) or _stem(files[0])
    return typed.other("create", name, "--disk", files[0], *rest)


def _stem(path: str) -> str:
    """A name for a snapshot of the disk in a file."""
    from casstore.names import as_name

    return as_name(os.path.splitext(os.path.basename(path))[0]) or "disk"


def _turned(error: BaseException, typed: Typed) -> str | None:
    """What is written before what is read."""
    words, rest = _leading(typed)
    if len(words) != 2 or _FORCING & set(rest):
        return None
    first, second = words
    is_push = typed.verb == "push" and repository(first) is not None and _name(second) is not None
    is_out = typed.verb in {"restore", "export", "save"} and not _is_kept(typed, first) and _is_kept(typed, second)
    return typed.other(typed.verb, second, first, *rest) if is_push or is_out else None


def _elsewhere(error: BaseException, typed: Typed) -> str | None:
    """A reference where only a snapshot of the store can stand."""
    words, rest = _leading(typed)
    place = repository(words[0]) if words else None
    instead = _ELSEWHERE.get(typed.verb)
    if place is None or instead is None:
        return None
    plain = ["--plain-http"] if "--plain-http" in rest else []
    return typed.other(instead, place if instead == "list" else words[0], *plain)


def _unnamed(error: BaseException, typed: Typed) -> str | None:
    """A pull by digest, which says no name."""
    from casstore.names import as_name

    found = re.match(r"pull of (\S+)@sha256:([0-9a-f]{64}): expected a name", str(error))
    if found is None:
        return None
    name = as_name(f"{found[1].rpartition('/')[2]}-{found[2][:12]}")
    return None if name is None else typed.again("--name", name)


def _listed(error: BaseException, typed: Typed) -> str | None:
    """One snapshot where a place is listed."""
    words, _ = _leading(typed)
    if typed.verb not in {"list", "ls"} or len(words) != 1:
        return None
    if _is_kept(typed, words[0]):
        return typed.other("inspect", words[0])
    found = re.match(r"list of (\S+): expected no tag or digest; write (\S+)\Z", str(error))
    return typed.replaced(found[1], found[2]) if found else None


RULES: Rules = (
    (click.UsageError, _verb),
    (click.UsageError, _early),
    (click.UsageError, _path_apart),
    (InvalidReference, _path_apart),
    (click.UsageError, _disk),
    (InvalidReference, _turned),
    (InvalidName, _turned),
    (NotFound, _turned),
    (click.NoSuchOption, _elsewhere),
    (InvalidName, _elsewhere),
    (click.NoSuchOption, _option),
    (UsageError, _unnamed),
    (UsageError, _listed),
    (InvalidReference, _listed),
)
"""Asked in their order, before those of `advice`."""
