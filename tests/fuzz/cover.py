"""`python -m tests.fuzz.cover [TARGET...]`: which lines of its modules the inputs of a target reach.

The inputs are those that are kept with the source and those that fuzzing kept in .cache/fuzz. Lines that only run while
a module is imported do not count.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import ROOT, Target
from tests.fuzz.targets import TARGETS


def _functions(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & 0x2:  # CO_NEWLOCALS: a function; the body of a class has none
                yield each
            yield from _functions(each)


def lines_of(path: str) -> set[int]:
    """The lines of a file's functions."""
    with open(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    return {line for each in _functions(code) for _, _, line in each.co_lines() if line and line != each.co_firstlineno}


def reached(target: Target) -> dict[str, tuple[int, list[int]]]:
    """Per module of the target: how many lines its functions have, and which of them no input reaches."""
    files = {str(importlib.import_module(f"casstore.{name}").__file__): name for name in target.modules}
    seen: dict[str, set[int]] = {path: set() for path in files}

    def local(frame: FrameType, event: str, _: Any) -> Any:
        seen[frame.f_code.co_filename].add(frame.f_lineno)
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename in seen else None

    kept = ROOT / ".cache" / "fuzz" / target.name
    inputs = [path.read_bytes() for path in [*target.seeds, *(kept.iterdir() if kept.is_dir() else [])]]
    sys.settrace(trace)
    try:
        for data in inputs:
            target(data)
    finally:
        sys.settrace(None)
    lines = {path: lines_of(path) for path in files}
    return {files[path]: (len(lines[path]), sorted(lines[path] - seen[path])) for path in files}


def main() -> None:
    """Print a line for each module of each target."""
    for name in sys.argv[1:] or TARGETS:
        for module, (total, missed) in reached(TARGETS[name]).items():
            print(f"{name:16}{module:28}{total - len(missed):5} of {total:4}   not: {' '.join(map(str, missed))}")


if __name__ == "__main__":
    main()
