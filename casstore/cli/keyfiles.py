"""The files of keys, and what opens private ones: a passphrase from a file, from the environment, or from who sits at
the terminal.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from casstore.cli.env import Settings
from casstore.cli.options import F, GroupedOption
from casstore.errors import InvalidKey, UsageError

if TYPE_CHECKING:
    from casstore.signatures.keys import PrivateKey

_MAX = 4096
_WITHOUT = "--no-passphrase leaves the key unencrypted"


@dataclass(slots=True)
class Passphrases:
    """Where passphrases come from: --passphrase-file, else $CASSTORE_PASSPHRASE, else a question on the terminal."""

    settings: Settings
    file: str | None = None
    """Its only line is the passphrase of every key; `-` is standard input."""
    _line: bytes | None = field(default=None, repr=False)

    def open(self, name: str) -> bytes:
        """The passphrase of a key that is there; `name` is for the question.

        Raises:
            UsageError: none is to be had.
        """
        told = self._told()
        return self._ask(f"Passphrase of {name}") if told is None else told

    def choose(self, name: str) -> bytes:
        """The passphrase for a new key; a question is asked twice.

        Raises:
            UsageError: none is to be had.
        """
        told = self._told()
        if told is None:
            told = self._ask(f"Passphrase for {name}", again="The same again", instead=f"; or {_WITHOUT}")
            if not told:
                raise UsageError(f"expected a passphrase, got an empty one; {_WITHOUT}")
        return told

    def _told(self) -> bytes | None:
        if self.file == "-" and self.settings.stdin_is_terminal:
            raise UsageError("--passphrase-file '-': expected a pipe or file as standard input, got a terminal")
        if self.file is not None:
            self._line = _read(self.file) if self._line is None else self._line
            return self._line
        known = self.settings.passphrase
        return None if known is None else os.fsencode(known)

    def _ask(self, question: str, *, again: str | bool = False, instead: str = "") -> bytes:
        if not self.settings.stdin_is_terminal:
            raise UsageError(
                "expected a passphrase: give --passphrase-file, set $CASSTORE_PASSPHRASE, or run it on a terminal"
                f"{instead}"
            )
        # Without a default it would ask again after an empty line, and not say why.
        text = str(
            click.prompt(question, default="", show_default=False, hide_input=True, confirmation_prompt=again, err=True)
        )
        return text.encode("utf-8", "surrogateescape")


def read_key_file(path: str) -> bytes:
    """The bytes of the file of a key, or of a pipe.

    Raises:
        InvalidKey: it cannot be read.
    """
    from casstore.signatures.keys import MAX_KEY_FILE

    try:
        with open(path, "rb") as file:
            return file.read(MAX_KEY_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        problem = getattr(error, "strerror", None) or error
        raise InvalidKey(f"key {path!r}: it cannot be read: {problem}") from None


def private_key(path: str, passphrases: Passphrases) -> PrivateKey:
    """The private key in a file.

    Raises:
        InvalidKey: there is none in it, or the passphrase is wrong.
        UsageError: it has a passphrase, and none is to be had.
    """
    from casstore.signatures.keys import PrivateKey

    return PrivateKey.parse(read_key_file(path), name=path, passphrase=lambda: passphrases.open(path))


def passphrase_option(function: F, *, heading: str = "Options") -> F:
    """--passphrase-file."""
    option = click.option(
        "--passphrase-file",
        cls=GroupedOption,
        heading=heading,
        metavar="FILE",
        help="A file with the key's passphrase as its only line; - is standard input [else $CASSTORE_PASSPHRASE, else"
        " it is asked for].",
    )
    return option(function)


def _read(file: str) -> bytes:
    try:
        if file == "-":
            raw = b"" if sys.stdin is None else sys.stdin.buffer.read(_MAX + 1)
        else:
            with open(file, "rb") as stream:
                raw = stream.read(_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        # What was given may be the passphrase itself: it is not repeated.
        problem = getattr(error, "strerror", None) or error
        raise UsageError(f"--passphrase-file: it cannot be read: {problem}") from None
    words = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not words or b"\n" in words or len(raw) > _MAX:
        got = f"more than {_MAX} bytes" if len(raw) > _MAX else "several" if words else "an empty one"
        raise UsageError(f"--passphrase-file {file!r}: expected one line with the passphrase, got {got}")
    return words
