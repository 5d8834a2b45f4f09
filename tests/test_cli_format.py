r"""--format: templates over the JSON of each verb. What a field names must be there; if not, nothing is done."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.cli import outputs
from casstore.cli.main import main
from casstore.cli.outputs import output
from casstore.cli.template import Template
from casstore.errors import UsageError
from tests.support import disks
from tests.support.command import Casstore
from tests.support.words import commands

CLI = Path(main.callback.__code__.co_filename).parent if main.callback else Path()
SCHEMAS = Path(__file__).parents[1] / "schemas"
SHARED = {"common", "error", "progress"}
LISTS = [output("list")]


WITH_JSON = [name for name, command in commands() if any("--json" in param.opts for param in command.params)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """Two snapshots."""
    casstore = Casstore(tmp_path_factory.mktemp("format"))
    disk = casstore.folder / "disk"
    disks.random_sparse_file(disk, seed=1)
    casstore("create", "base", "--disk", disk, "--label", "app=web", "--label", "org.example/x=1\n2")
    casstore("create", "edited", "--disk", disk, "--parent", "base")
    return casstore


def made(template: str, document: dict[str, Any]) -> str:
    """What a template makes of a document of any shape."""
    return "".join(Template.parse(template, []).lines(document))


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_line_for_each_snapshot(two: Casstore) -> None:
    documents = {each["name"]: each for each in two.json("list")["snapshots"]}
    lines = two("list", "--format", r"{name:<8}|{name:>8}|{size_bytes}\t{labels[app]}|{labels[none]}|{parent}").lines
    expected = [
        f"{name:<8}|{name:>8}|{documents[name]['size_bytes']}\t{app}||{documents[name]['parent'] or ''}"
        for name, app in (("edited", ""), ("base", "web"))
    ]
    assert lines == expected
    assert two("list", "--format", "{labels[org.example/x]}").lines[-1] == r"1\u000a2"


def test_filters(two: Casstore) -> None:
    found = two.json("inspect", "base")
    text = two("inspect", "base", "--format", "{size_bytes|size}|{digest|short}|{names|json}|{created_at|time}").stdout
    mib = f"{found['size_bytes'] / (1 << 20):.1f} MiB"
    time = re.sub(r"T(.{8}).*", r" \1", found["created_at"])
    assert text == f"{mib}|{found['digest'][:19]}|{json.dumps(found['names'])}|{time}\n"


def test_one_text_for_a_document_that_is_no_list(two: Casstore) -> None:
    digest = two.json("inspect", "base")["digest"]
    assert two("inspect", "base", "--format", "{names[0]} {names[7]}{integrity.digest} {version}").stdout == "base  1\n"
    assert two("push", "base", f"oci:{two.folder}/l", "--format", "{digest} {moved_blobs}").lines == [f"{digest} 4"]
    assert two("list", f"oci:{two.folder}/l", "--format", "{name} {kind}").lines == ["base snapshot"]
    two("tag", "edited", "old")
    two("rm", "old")
    assert two("undo", "--list", "--format", "{name}").lines == ["old"]
    assert two("gc", "--dry-run", "--format", "{freed_bytes|size}").stdout.endswith("B\n")


def test_it_may_say_json(two: Casstore) -> None:
    assert two("list", "--format", "json").out == two("list", "--json").out
    assert "--format TEMPLATE" in two("list", "--help").stdout


def test_people_are_told_in_words(two: Casstore) -> None:
    """Unlike with --json: only stdout is for programs."""
    done = two("push", "base", f"oci:{two.folder}/told", "--format", "{name}")
    assert (done.lines, done.stderr.startswith("pushed ")) == (["base"], False)
    assert two("inspect", "none", "--format", "{digest}", code=10).stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{{a}}}", "{1}"),
        (r"\\{a}\n", "\\1\n"),
        ("{b.c} {b[c]} {d[1]} {d[9]} {d[x]}", "é é 3  "),
        ("{e}{f}{g}", "true2.5"),
        ("{d} {b}", '[2, 3] {"c": "\\u00e9"}'),
        ("{a:^5}|", "  1  |"),
        ("{h}", "\\u001b[31m\\ud800"),
        ("no field", "no field"),
        ("", ""),
    ],
)
def test_templates(template: str, text: str) -> None:
    document = {"a": 1, "b": {"c": "é"}, "d": [2, 3], "e": True, "f": 2.5, "g": None, "h": "\x1b[31m\ud800"}
    assert made(template, document) == text


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{nam}", "did you mean name?"),
        ("{nam}", "there are allocated_bytes, created_at"),
        ("{labels.app}", "write labels[app]"),
        ("{name.x}", "expected no field after name, got x"),
        ("{name[0]}", "expected no field after name, got 0"),
        ("{}", "got '{}'"),
        ("{name", "got '{name'"),
        ("name}", "got '}'"),
        ("{name!r}", "got '{name!r}'"),
        ("{name.__class__}", "expected no field after name"),
        ("{name:x}", "got '{name:x}'"),
        ("{name:99999}", "expected {FIELD}"),
        ("{name|nosuch}", "expected a filter of size"),
        ("{name|siz}", "did you mean size?"),
        (r"\q", r"got \q"),
        ("\x1b{nam}", "did you mean name?"),
    ],
)
def test_what_is_no_template_of_a_verb_is_refused(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Template.parse(template, LISTS)


def test_nothing_is_done_for_a_template_that_is_wrong(two: Casstore) -> None:
    words = ["create", "third", "--disk", two.folder / "disk", "--format", "{digset}"]
    assert "did you mean digest?" in two(*words, code=2).stderr
    assert two("list", "--format", "{name}").lines == ["edited", "base"]


def test_a_field_of_the_other_document_of_a_verb_is_refused(two: Casstore) -> None:
    two("push", "base", f"oci:{two.folder}/l")
    done = two("list", f"oci:{two.folder}/l", "--format", "{allocated_bytes}", code=2)
    assert "this output has no field allocated_bytes" in done.stderr


@given(st.text(alphabet=r"{}[]\.|:<>nab0 é", max_size=30))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    document = {"a": "x", "n": {"a": [1]}, "b": None}
    try:
        template = Template.parse(text, [])
        lines = list(template.lines(document))
    except UsageError:
        return
    assert len(lines) == 1
    if not set(text) & set("{}\\"):
        assert lines == [text]


@given(st.text(), st.text())
def test_plain_text_and_values_pass_as_they_are(text: str, value: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")
    shown = made(escaped + "{a}", {"a": value})
    assert shown.startswith(text)
    if value.isprintable():
        assert shown == text + value


# --- all verbs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_JSON)
def test_every_verb_with_json_has_schemas_and_a_template(name: str) -> None:
    for shape in outputs.outputs(name):
        assert shape.fields["version"].schema == {"const": 1}
        assert shape.each is None or shape.fields[shape.each].items is not None
    command = dict(commands())[name]
    assert [param.metavar for param in command.params if "--format" in param.opts] == ["TEMPLATE"]


def test_every_schema_of_an_output_is_that_of_a_verb() -> None:
    there = {path.name.removeprefix("cli-").removesuffix(".schema.json") for path in SCHEMAS.glob("cli-*")}
    known = {document for name in WITH_JSON for document in outputs.names(name)}
    assert known == there - SHARED


def test_every_document_passes_the_template() -> None:
    """Only the session makes one."""
    for path in sorted(CLI.glob("*.py")):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert path.name == "session.py" or not {"render.document", "document"} & set(calls), path.name
