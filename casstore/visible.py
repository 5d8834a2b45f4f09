"""Text that can be shown as it is. What comes from a disk, a registry or a manifest may be anything."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""`text` with everything that is no visible character escaped, as `\u001b`.

    Control and bidirectional characters in it must reach no terminal, no log and no page. Spaces stay; so do letters of
    all scripts.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
