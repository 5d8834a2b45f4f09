"""The documentation does not rot: links lead somewhere, commands exist, tables equal the code."""

from __future__ import annotations

import re
import runpy
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from casstore import errors

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fixtures/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^( *)(```+|~~~+)(\w*)[^\n]*\n(.*?)^\1\2", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)((?: {4}[^\n]*\n?)+)")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)")
SHELL = {"", "bash", "console", "sh", "shell", "text"}
CALL = re.compile(r"(?:^|[|;&(]|\$)\s*(?:[A-Z_]+=\S* +)*casstore ([a-z][a-z-]*)", re.MULTILINE)


def _prose(text: str) -> str:
    return INLINE.sub("", INDENTED.sub("", FENCE.sub("", text)))


def _code(text: str) -> Iterator[str]:
    for fence in FENCE.finditer(text):
        if fence[3] in SHELL:
            yield fence[4]
    rest = FENCE.sub("", text)
    yield from INDENTED.findall(rest)
    yield from INLINE.findall(INDENTED.sub("", rest))


def _slugs(text: str) -> set[str]:
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_between_files_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(_prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _slugs(target.read_text())):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_the_text_exist(page: Path) -> None:
    verbs = {verb for code in _code(page.read_text()) for verb in CALL.findall(code)}
    if not verbs:
        return
    root: click.Group = import_module("casstore.cli.main").main
    context = click.Context(root, info_name="casstore")
    assert not sorted(verb for verb in verbs if root.get_command(context, verb) is None)


def test_command_reference_is_up_to_date() -> None:
    generator = runpy.run_path(str(ROOT / "docs/generate_cli.py"))
    page = generator["PAGE"].read_text()
    assert generator["render"](page) == page, "run: python docs/generate_cli.py"


def test_exit_codes_equal_the_table() -> None:
    text = (ROOT / "docs/reference/exit-codes.md").read_text()
    table: dict[int, set[str]] = {}
    for code, names in re.findall(r"^\| (\d+) \|([^|]*)\|", text, re.MULTILINE):
        table[int(code)] = set(re.findall(r"`(\w+)`", names))
    in_code: defaultdict[int, set[str]] = defaultdict(set)
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.CasstoreError):
            in_code[kind.exit_code].add(name)
    assert table == {0: set(), **in_code, 129: set(), 130: set(), 143: set()}


@pytest.mark.parametrize(
    ("text", "verbs"),
    [
        ("Run `casstore create base`.", ["create"]),
        ("```console\n$ casstore ls --json | casstore rm x\n```\n", ["ls", "rm"]),
        ("Say\n\n    CASSTORE_STORE=/x casstore push a b\n", ["push"]),
        ("In prose casstore keeps disks, and `casstore` is a word.", []),
        ("```python\ncasstore create\n```\n", []),
    ],
)
def test_commands_are_found_in_code_only(text: str, verbs: list[str]) -> None:
    assert [verb for code in _code(text) for verb in CALL.findall(code)] == verbs
