"""How the command line starts: help, completion, and what it does not import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import casstore as package
from casstore.cli.main import main
from tests.support import disks
from tests.support.command import Casstore

VERBS = (
    *("create", "list", "inspect", "verify", "restore", "tag", "remove", "undo", "prune", "export", "import"),
    *("tree", "report"),
    *(
        "key",
        "sign",
        "push",
        "pull",
        "copy",
        "login",
        "logout",
        "check",
        "diff",
        "files",
        "cat",
        "cp",
        "stats",
        "init",
        "doctor",
        "adopt",
        "gc",
        "reindex",
        "completion",
    ),
)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    disks.random_sparse_file(path, seed=1)
    return path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_writes_a_script(casstore: Casstore, shell: str) -> None:
    assert "_CASSTORE_COMPLETE" in casstore("completion", shell).stdout


def test_names_and_verbs_complete(casstore: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("key", "generate", casstore.folder / "k", "--no-passphrase")
    casstore("sign", "base", "--key", casstore.folder / "k.key")

    def complete(words: str, *, store: Path) -> list[str]:
        count = len(words.split())
        environ = {
            "_CASSTORE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(count - 1),
            "CASSTORE_STORE": str(store),
        }
        result = subprocess.run(
            [sys.executable, "-m", "casstore"], env={**os.environ, **environ}, capture_output=True, check=True
        )
        return [line.partition(",")[2] for line in result.stdout.decode().split()]

    assert complete("casstore restore b", store=casstore.store) == ["base"]
    assert complete("casstore restore s", store=casstore.store) == []
    assert complete(f"casstore --store {casstore.store} rm b", store=casstore.folder) == ["base"]
    assert complete("casstore rm b", store=casstore.folder / "nowhere") == []
    assert complete("casstore re", store=casstore.store) == ["restore", "remove", "report", "reindex"]


def test_the_bare_command_shows_where_to_start(casstore: Casstore) -> None:
    start = casstore().stdout
    for verb in ("create", "list", "restore", "push", "pull"):
        assert f"casstore {verb}" in start


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_groups_the_verbs_by_purpose(casstore: Casstore, flag: str) -> None:
    text = casstore(flag).stdout
    assert re.search(r"Snapshots:\n  create ", text)
    assert re.search(r"Registries and OCI layouts:\n  push ", text)
    assert "  remove, rm" in text


def test_help_is_a_word_too(casstore: Casstore) -> None:
    assert casstore("help").stdout == casstore("--help").stdout
    assert casstore("help", "key", "generate").stdout == casstore("key", "generate", "--help").stdout
    assert "no such verb: nothing" in casstore("help", "nothing", code=2).stderr


def test_what_few_need_stands_under_a_heading_of_its_own(casstore: Casstore) -> None:
    text = casstore("push", "--help").stdout
    options, connection = text.split("\nConnection:\n")
    assert "--dry-run" in options
    assert "--ca-bundle" not in options
    assert "--ca-bundle" in connection


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_summary_and_examples(casstore: Casstore, verb: str) -> None:
    text = casstore(verb, "--help").stdout
    assert re.search(r"\n\n  [A-Z][^\n]*", text)
    assert f"Examples:\n  casstore {verb}" in text
    assert casstore(verb, "-h").stdout == text


def test_the_verbs_are_those_of_the_help(casstore: Casstore) -> None:
    with main.make_context("casstore", []) as ctx:
        assert sorted(main.list_commands(ctx)) == sorted(VERBS)


def test_version(casstore: Casstore) -> None:
    assert casstore("--version").stdout == f"casstore {package.__version__}\n"


SLOW = ("numpy", "rich", "oras", "requests", "jsonschema", "cryptography", "zstandard", "sqlite3")


@pytest.mark.parametrize(
    ("args", "allowed"), [(["--version"], ()), (["--help"], ()), (["create", "--help"], ()), (["list"], ("sqlite3",))]
)
def test_slow_modules_are_imported_by_the_verbs_that_need_them(
    casstore: Casstore, disk: Path, args: list[str], allowed: tuple[str, ...]
) -> None:
    casstore("create", "base", "--disk", disk)
    code = (
        "import sys\nfrom casstore.cli.main import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)"
    )
    environ = {**os.environ, "CASSTORE_STORE": str(casstore.store)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == str(list(allowed))


def test_who_trusts_everybody_pays_nothing_for_signatures(casstore: Casstore, there: Casstore, disk: Path) -> None:
    casstore("create", "base", "--disk", disk)
    casstore("push", "base", f"oci:{casstore.folder}/layout")
    code = (
        "import sys\nfrom casstore.cli.main import main\n"
        f"try:\n    main(['pull', 'oci:{casstore.folder}/layout:base', *sys.argv[1:]])\nexcept SystemExit:\n    pass\n"
        "print('cryptography' in sys.modules, file=sys.stderr)"
    )
    environ = {**os.environ, "CASSTORE_STORE": str(there.store)}
    for options, imported in ((["--key", "nowhere"], False), ([], False), (["--no-rollback", "-f"], False)):
        done = subprocess.run(
            [sys.executable, "-c", code, *options], env=environ, capture_output=True, text=True, check=False
        )
        assert done.stderr.splitlines()[-1] == str(imported), options
    assert there.json("list")["snapshots"]


def test_only_one_module_reads_the_environment_and_the_home_directory() -> None:
    folder = Path(package.__file__).parent / "cli"
    reading = re.compile(r"\benviron\[|os\.environ|getenv|expanduser|Path\.home")
    assert [path.name for path in folder.glob("*.py") if reading.search(path.read_text())] == ["env.py"]
