"""docs/reference/json.md: its tables are those of the schemas, and what it says of templates and jq works."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import disks
from tests.support.command import Casstore
from tests.support.words import require_valid

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reference/json.md").read_text()
GENERATOR: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "generate_json.py"))
LINES = [line.removeprefix("$ ") for line in re.findall(r"^\$ .*", PAGE, re.MULTILINE)]


def test_the_tables_are_up_to_date() -> None:
    assert GENERATOR["render"](PAGE) == PAGE, "run: python docs/generate_json.py"


def test_every_document_is_in_a_table() -> None:
    schemas = {path.name.partition(".")[0] for path in (ROOT / "schemas").glob("cli-*.json")} - {"cli-common"}
    assert schemas == set(re.findall(r"^### (cli-[a-z-]+)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("line", LINES)
def test_the_commands_are_ones(line: str) -> None:
    require_valid(line.partition(" | jq")[0])


@pytest.mark.needs("jq")
def test_the_programs_for_jq_find_what_they_look_for(casstore: Casstore) -> None:
    disk = casstore.folder / "disk"
    disks.random_sparse_file(disk, seed=1)
    casstore("create", "base", "--disk", disk, "--label", "step=pip")
    (casstore.store / "refs" / "broken").symlink_to("../blobs/sha256/" + "0" * 64)
    wanted = ("base", str(casstore.json("stats")["total"]["stored_bytes"]), "blobs/sha256/000", "names: casstore check")
    told = [line.partition(" | ") for line in LINES if "| jq" in line]
    assert len(told) == len(wanted)
    for (command, _, program), expected in zip(told, wanted, strict=True):
        out = casstore.run(*shlex.split(command)[1:]).out
        shown = subprocess.run(shlex.split(program), input=out, capture_output=True, check=True).stdout.decode()
        assert shown.startswith(expected) or f"\n{expected}" in shown, (command, shown)


def test_the_error_in_the_text_is_what_is_written(casstore: Casstore) -> None:
    casstore("init")
    disk = casstore.folder / "disk"
    disks.random_sparse_file(disk, seed=1)
    casstore("create", "base", "--disk", disk)
    [shown] = [json.loads(line) for line in PAGE.splitlines() if line.startswith('{"version"')]
    [command] = [line for line in LINES if "bsae" in line]
    written = json.loads(casstore(*command.split()[1:], code=10).stderr)
    assert list(written) == list(shown)
    assert {**written, "message": ""} == {**shown, "message": ""}
