"""The help texts: each verb has a summary that fits, and examples that the command line takes."""

from __future__ import annotations

import re

import click
import pytest

from casstore.cli.options import Verb
from tests.support.command import Casstore
from tests.support.words import commands, parse, require_valid

WIDTH = 100


COMMANDS = {f"casstore {words}": command for words, command in commands()}
EXAMPLES = [line for command in COMMANDS.values() if isinstance(command, Verb) for line in command.examples]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_examples_of_itself(words: str) -> None:
    command = COMMANDS[words]
    assert isinstance(command, Verb)
    lines = "\n".join(command.examples)
    alias = {"list": "ls", "remove": "rm", "stats": "df"}.get(words.partition(" ")[2], "list")
    assert re.search(rf"casstore (--\S+ \S+ )*{words.removeprefix('casstore ')}\b|casstore {alias}\b", lines), lines


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_one_that_the_command_line_takes(line: str) -> None:
    calls = re.findall(r"casstore .*?(?=\s+(?:[|>;#]|&&)|\)|$)", line)
    assert calls
    for call in calls:
        require_valid(re.sub(r"\$\(.*|\$\w+", "x", call))


@pytest.mark.parametrize(
    "line", ["casstore lst", "casstore list --nothing", "casstore restore base", "casstore --wait x gc"]
)
def test_what_is_no_example(line: str) -> None:
    with pytest.raises(click.UsageError):
        require_valid(line)


def test_words_are_taken_apart_to_the_last_command() -> None:
    assert parse(["key", "show", "a", "b"]).params["files"] == ("a", "b")


def test_no_line_of_a_help_text_is_too_long_or_cut(casstore: Casstore) -> None:
    casstore.env["COLUMNS"] = str(WIDTH)
    lines = casstore("--help").stdout.partition("Snapshots:")[2].splitlines()
    assert max(map(len, lines)) <= WIDTH
    verbs = [line for line in lines if line.startswith("  ")]
    assert len(verbs) == len([words for words in COMMANDS if words.count(" ") == 1])  # none takes a second line
    assert [line for line in verbs if not line.endswith(".") or "..." in line] == []
    for words in COMMANDS:
        for line in casstore(*words.split()[1:], "--help").stdout.splitlines():
            assert len(line) <= WIDTH or line.startswith("  casstore "), line
