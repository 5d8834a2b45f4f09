"""The manual pages: one for casstore and one for each verb, made from the help texts, without a warning of mandoc."""

from __future__ import annotations

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from casstore.cli.main import main

GENERATOR: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "generate_man.py"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    made: dict[str, str] = GENERATOR["pages"]()
    return made


def test_every_verb_has_a_page_with_all_its_options(pages: dict[str, str]) -> None:
    with click.Context(main, info_name="casstore", **main.context_settings) as context:
        verbs = main.list_commands(context)
        assert sorted(pages) == sorted(["casstore.1", *(f"casstore-{verb}.1" for verb in verbs)])
        for verb in verbs:
            command = main.get_command(context, verb)
            assert command is not None
            page = pages[f"casstore-{verb}.1"]
            options = [name for param in command.params for name in param.opts if name.startswith("--")]
            assert [name for name in options if name.replace("-", "\\-") not in page] == []
            assert f"\\fBcasstore\\-{verb}\\fP(1)".replace("_", "-") in pages["casstore.1"]
            assert "\n.SH EXAMPLES\n.nf\ncasstore " in page


@pytest.mark.needs("mandoc")
def test_mandoc_has_nothing_to_say(pages: dict[str, str], tmp_path: Path) -> None:
    write: Callable[[Path], None] = GENERATOR["write"]
    write(tmp_path)
    words = ["mandoc", "-T", "lint", "-W", "warning", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if "missing date" not in line]  # there is no release yet
    assert said == []
    shown = subprocess.run(
        ["mandoc", "-T", "ascii", tmp_path / "casstore-restore.1"], capture_output=True, text=True, check=True
    ).stdout
    assert "--seed" in shown


@pytest.mark.parametrize(
    ("text", "roff"),
    [("a-b", "a\\-b"), (".x", "\\&.x"), ("'x\n.y", "\\&'x\n\\&.y"), ("a\\b", "a\\eb"), ("x.y", "x.y")],
)
def test_no_character_has_a_meaning(text: str, roff: str) -> None:
    assert GENERATOR["escape"](text) == roff
