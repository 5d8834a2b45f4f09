"""Computed parts of a page that people write: what stands between `<!-- computed: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BLOCK = re.compile(r"(<!-- computed: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """The page with every block made anew.

    Raises:
        KeyError: the page has a block that nothing is known for.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]].strip()}\n\n{match[3]}", page)


def names(page: str) -> list[str]:
    """The blocks of a page, in its order."""
    return [match[2] for match in _BLOCK.finditer(page)]
