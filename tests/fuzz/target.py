"""What a target is: something that reads hostile bytes, and what must hold of it whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casstore.errors import CasstoreError
from casstore.signatures.reasons import Rejected

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures" / "fuzz"
"""A folder per target: `seed-*`, where the fuzzer begins, and `found-*`, what it found, to be replayed for ever."""

MAX_TEXT = 4096
"""Characters of an error's text: whatever came in, a person has to read it."""

Havoc = Callable[[bytes], bytes]
"""The fuzzer's own changes of some bytes: it knows which of them led somewhere."""
Mutate = Callable[[bytes, Havoc, int], bytes]
"""Changes an input in a way that the havoc alone would hardly find; the number is a seed."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """`read` takes anything, and refuses with one of `refuses`; what it gives back has to stand `check`.

    Any other error, and an AssertionError of `check`, is a finding; so is running for too long, or out of memory.
    """

    name: str
    read: Callable[[bytes], Any]
    refuses: tuple[type[CasstoreError | Rejected], ...] = ()
    check: Callable[[Any], None] = lambda _: None
    modules: Collection[str]
    """What it is there to cover."""
    mutate: Mutate | None = None
    vectors: Collection[str] = ()
    """Patterns of golden vectors, under fixtures/vectors, that are seeds as well."""
    words: Collection[bytes] = ()
    """What the fuzzer may put in."""
    max_len: int = 4096
    """Bytes of an input."""

    def __call__(self, data: bytes) -> None:
        """Try one input; raises whatever is a finding."""
        try:
            value = self.read(data)
        except self.refuses as error:
            text = str(error)
            assert text, "a refusal without a word"
            assert len(text) <= MAX_TEXT, f"a refusal of {len(text)} characters"
            assert text.isprintable(), f"a refusal that a terminal would obey: {text!r}"
        else:
            self.check(value)

    @property
    def seeds(self) -> list[Path]:
        """The inputs that are kept with the source."""
        vectors = ROOT / "fixtures" / "vectors"
        found = [path for pattern in self.vectors for path in vectors.glob(pattern)]
        folder = FIXTURES / self.name
        return sorted(found) + sorted(folder.iterdir() if folder.is_dir() else [])
