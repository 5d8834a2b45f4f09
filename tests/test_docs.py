"""The documentation does not rot: links lead somewhere, commands exist, tables equal the code."""

from __future__ import annotations

import ast
import json
import re
import runpy
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from casstore import errors, spec, survey
from casstore.cli.failures import DAMAGED
from casstore.credentials import HelperOptions
from casstore.graph import DEFAULT_CONCURRENCY
from casstore.registry import RegistryOptions, failures, http, pace, tags, upload
from casstore.schema import validate

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


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")]
    assert sorted(named) == sorted(pages)


def test_the_front_page_leads_to_every_guide() -> None:
    front = set(LINK.findall((ROOT / "docs/index.md").read_text()))
    assert {f"how-to/{page.name}" for page in ROOT.glob("docs/how-to/*.md")} <= front


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
    assert DAMAGED not in in_code  # no error has it: what was asked for was done
    assert table == {0: set(), DAMAGED: set(), **in_code, 129: set(), 130: set(), 143: set()}


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


def test_the_defaults_of_transfers_are_those_in_the_text() -> None:
    text = (ROOT / "docs/reference/registries.md").read_text()
    table = dict(re.findall(r"^\|[^|]*\| `(--[a-z-]+)` \| ([^|]+) \|$", text, re.MULTILINE))
    options = RegistryOptions()
    assert {option: None if value == "none" else value for option, value in table.items()} == {
        "--retries": str(options.attempts - 1),
        "--timeout": f"{options.read_timeout:g}s",
        "--min-rate": f"{options.min_rate}/s",
        "--deadline": options.deadline,
        "--limit-rate": options.limit_rate,
        "--max-requests": options.max_requests,
        "--concurrency": str(DEFAULT_CONCURRENCY),
    }


@pytest.mark.parametrize(
    ("sentence", "values"),
    [
        (r"the answers ([\d, and]+); no other", lambda: failures.PASSING),
        (r"at random up to ([\d.]+) s,", lambda: {RegistryOptions().backoff}),
        (r"A helper has (\d+) seconds", lambda: {HelperOptions("", {}).timeout}),
        (r"more than (\d+) s are not waited", lambda: {pace.MAX_WAIT}),
        (r"At most (\d+) redirects", lambda: {http.MAX_REDIRECTS}),
        (r"`PATCH`\): of (\d+) MiB", lambda: {upload.PART / spec.MIB}),
        (r"(\d+) MiB at ECR", lambda: {upload.ECR_PART / spec.MIB}),
        (r"and so on: ([\d,]+) of them", lambda: {survey.MAX_REFERRERS}),
        (r"and (\d+) levels at most", lambda: {survey.MAX_DEPTH}),
        (r"A manifest has at most (\d+) MiB", lambda: {spec.MAX_MANIFEST / spec.MIB}),
        (r"A list of tags ends\s+at ([\d,]+),", lambda: {tags.MAX_TAGS}),
        (r"an error of a registry at (\d+) KiB", lambda: {failures.ERROR_BODY / 1024}),
    ],
)
def test_the_numbers_about_registries_are_those_of_the_code(sentence: str, values: Callable[[], set[float]]) -> None:
    text = (ROOT / "docs/reference/registries.md").read_text()
    match = re.search(sentence, text)
    assert match is not None
    assert {float(each.replace(",", "")) for each in re.findall(r"\d[\d.]*(?:,\d{3})*", match[1])} == values()


def test_every_document_of_the_command_line_is_named() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    schemas = {path.name.partition(".")[0] for path in (ROOT / "schemas").glob("cli-*.json")} - {"cli-common"}
    assert schemas <= set(re.findall(r"`(cli-[a-z-]+)`", page))


def test_every_schema_of_a_format_is_named() -> None:
    page = (ROOT / "docs/reference/format.md").read_text()
    schemas = {path.name.removesuffix(".schema.json") for path in (ROOT / "schemas").iterdir()}
    assert {name for name in schemas if not name.startswith("cli-")} <= set(re.findall(r"`([a-z0-9.-]+)`", page))


def test_what_each_verb_writes_is_told() -> None:
    root: click.Group = import_module("casstore.cli.main").main
    verbs = set(root.list_commands(click.Context(root)))
    table = (ROOT / "docs/reference/cli.md").read_text().partition("## Output")[2].partition("\n### ")[0]
    told = {verb for row in re.findall(r"^\|([^|]*)\|", table, re.MULTILINE) for verb in re.findall(r"`([a-z]+)`", row)}
    assert verbs - told <= {"tag", "remove", "login", "logout", "completion"}, "these say on stderr what they did"


def test_every_type_that_a_store_takes_or_gives_is_in_the_api_reference() -> None:
    page = (ROOT / "docs/reference/api.md").read_text()
    shown = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", page, re.MULTILINE)}
    aside = {
        "Artifact",
        "Progress",
        "Reference",
        "CasstoreError",
    }  # inner, plain unions or callables, and on a page of its own
    for module in ("store", "openstore", "moving"):
        tree = ast.parse((ROOT / "casstore" / f"{module}.py").read_bytes())
        ours = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("casstore.")
            for alias in node.names
        }
        methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        hints = [
            hint for each in methods for hint in (each.returns, *(arg.annotation for arg in _arguments(each))) if hint
        ]
        used = {node.id for hint in hints for node in ast.walk(hint) if isinstance(node, ast.Name)}
        assert (used & ours) - aside <= shown, module


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.args, *function.args.kwonlyargs]


def test_every_variable_that_is_read_is_documented() -> None:
    read = set(re.findall(r'"([A-Z][A-Z_]{3,}|[a-z]+_proxy)"', (ROOT / "casstore/cli/env.py").read_text()))
    page = (ROOT / "docs/reference/cli.md").read_text()
    known = set(re.findall(r"`(\w+)`", page.partition("## Environment")[2].partition("\n## ")[0]))
    aside = {"OPENBLAS_NUM_THREADS", "REQUEST_METHOD", "TERM"}  # set, or asked for nothing that anybody would set
    assert {name for name in read - aside if name.lower() not in known} <= known


def test_the_json_lines_in_the_text_are_as_their_schema_says() -> None:
    lines = re.findall(r'^\{"version".*\}$', (ROOT / "docs/how-to/unattended.md").read_text(), re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        validate(json.loads(line), "cli-progress", subject=line)
