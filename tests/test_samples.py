"""What the documentation shows is what happens: the commands and programs on its pages are executed, with real
registries.

How samples are read, marked and compared is told in tests/support/samples.py. Each page starts in an empty home, with
`disk.ext4` in the working directory; `$EDITED` is the same disk after some work. Where a page has a sandbox `box`,
microsandbox's home has it, and `other`.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.conftest import TALLY
from tests.support.disks import PROGRAM_PATH, unpack_fixture
from tests.support.hosts import named_registries
from tests.support.samples import LANGUAGES, Digests, Page, read_samples
from tests.support.sandboxes import SandboxHome
from tests.support.servers import registry
from tests.support.shell import Forks, Shell

ROOT = Path(__file__).parents[1]
GENERATED = {"docs/reference/cli.md"}
"""Help texts, which another test holds to the code."""
PAGES = {
    name: samples
    for path in sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
    if (name := str(path.relative_to(ROOT))) not in GENERATED and (samples := list(read_samples(path.read_text())))
}
LOCAL = "127.0.0.1:5000"
"""On pages, a registry without TLS on the reader's machine."""


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """One for all pages."""
    with Forks.running(tmp_path_factory.mktemp("samples") / "forks") as running:
        yield running


@pytest.mark.needs("docker-registry", "mke2fs", "debugfs")
@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_shows_is_what_happens(
    name: str, tmp_path: Path, forks: Forks, record_property: Callable[[str, object], None]
) -> None:
    text = (ROOT / name).read_text()
    folders = {place: tmp_path / place.replace("/", "-")[1:] for place in ("/home/ann", "/media", "/srv")}
    for folder in folders.values():
        folder.mkdir()
    home = folders["/home/ann"]
    work = home / "work"
    work.mkdir()
    unpack_fixture("base", work / "disk.ext4")
    unpack_fixture("edited", tmp_path / "edited.ext4")
    with ExitStack() as stack:
        places = {place: str(folder) for place, folder in folders.items()}
        hosts = {*re.findall(r"\b[a-z]+\.example\b", text)}
        variables = stack.enter_context(named_registries(tmp_path / "hosts", hosts))
        if LOCAL in text:
            (tmp_path / "local").mkdir()
            places[LOCAL] = stack.enter_context(registry(tmp_path / "local")).host
        if "box" in text:
            sandboxes = stack.enter_context(closing(SandboxHome(home / ".microsandbox")))
            for sandbox in ("box", "other"):
                sandboxes.add(sandbox, upper=work / "disk.ext4")
        variables |= {"HOME": str(home), "PATH": _path(), "LC_ALL": "C.UTF-8", "COLUMNS": "120"}
        variables |= {"EDITED": str(tmp_path / "edited.ext4"), "PYTHONPATH": str(ROOT)}
        page = Page(stack.enter_context(Shell(work, variables, forks)), work, places)
        for sample in PAGES[name]:
            if not sample.unexecuted:
                page.execute(sample)
    left_out = Counter(sample.unexecuted for sample in PAGES[name] if sample.unexecuted)
    reasons = "".join(f"; {count} not executed: {reason}" for reason, count in left_out.items())
    record_property(TALLY, f"{page.executed} executed{reasons}")


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), PROGRAM_PATH])


# --- what is executed, and what counts as equal ----------------------------------------------------------------------


def test_no_block_is_left_out_without_a_reason() -> None:
    wrong = [
        f"{name}:{sample.line}: {sample.language or 'a block without a language'}"
        for name, samples in PAGES.items()
        for sample in samples
        if sample.language not in {*LANGUAGES, "given"} and not sample.unexecuted
    ]
    assert not wrong


def test_no_command_hides_in_an_indented_block() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    assert not [path.name for path in pages if re.search(r"(?<=\n\n) {4}(\$ )?casstore ", path.read_text())]


PAGE = """
<!-- given
export WHO=world
-->

```console
$ echo "hello $WHO" 12.5 KiB  # a comment
hello universe 3.0 GiB
$ false
```

<!-- not executed: needs another planet -->

```console
$ launch
```

```text
not a command
```

<!-- needs: no-such-program -->

```console
$ no-such-program
```
"""


def test_samples_are_read_with_their_marks() -> None:
    given, shown, planet, program = read_samples(PAGE)
    assert (given.language, given.body) == ("given", "export WHO=world\n")
    assert [(command.text, command.shown) for command in shown.commands] == [
        ('echo "hello $WHO" 12.5 KiB  # a comment', ("hello universe 3.0 GiB",)),
        ("false", ()),
    ]
    assert [planet.unexecuted, program.unexecuted] == ["needs another planet", "needs no-such-program"]


@pytest.mark.parametrize(
    ("shown", "output", "wrong"),
    [
        (["kept a: 1.0 MiB, 0.5 s"], "kept a:  12 B, 11.2 s\n", ""),
        (["one", "...", "four"], "one\ntwo\nthree\nfour\n", ""),
        (["one … three"], "one two three\n", ""),
        (["one"], "one\ntwo\n", "not shown on the page:  two"),
        (["...", "one"], "one\ntwo\n", "not shown on the page:  two"),
        (["one", "two"], "one\n", "expected  two\ngot       (no more lines)"),
        (["4 blobs"], "5 blobs\n", "expected  4 blobs\ngot       5 blobs"),
        (["sha256:1234abcd"], "sha256:not\n", "expected  sha256:1234abcd\ngot       sha256:not"),
        (["at 2026-01-02 03:04:05 UTC"], "at 2027-11-12 13:14:15 UTC\n", ""),
        (["done"], "pushing: 1.0 MiB of 2.0 MiB (50 %), 1.0 MiB/s, 1 s left\ndone\n", ""),
    ],
)
def test_what_may_differ_and_what_may_not(shown: list[str], output: str, wrong: str) -> None:
    assert Digests().compare(tuple(shown), output) == wrong


def test_a_digest_of_the_page_stands_for_the_real_one() -> None:
    digests = Digests()
    assert digests.compare((f"repo@sha256:{'1' * 64}",), f"repo@sha256:{'a' * 64}\n") == ""
    assert digests.put_into(f"pull x@sha256:{'1' * 64}") == f"pull x@sha256:{'a' * 64}"
    assert digests.put_into("pull x@sha256:111111…1111") == f"pull x@sha256:{'a' * 64}"
    assert digests.put_into("rm sha256:11111111") == "rm sha256:aaaaaaaa"
    assert digests.put_into("rm sha256:2222222") == "rm sha256:2222222"


@pytest.mark.parametrize(
    ("block", "wrong"),
    [
        ("$ casstore list", "there is no store"),
        ("$ casstore list 2>&1 | cat", "failed in a pipe"),
        ("$ casstore --version\nerror: no", "succeeded"),
        ("$ casstore --version\ncasstore nine", "expected  casstore nine"),
        ("$ casstore list    # exit code 2", "exit code 10"),
        ("$ casstore list    # exit code 10", ""),
        ("$ casstore list\nerror: …\n...", ""),
        ("$ casstore list\n$ echo $?\n10", ""),
        ("$ casstore list\n$ echo $?\n11", "expected  11"),
        ("$ NAME=x\n$ casstore init > $NAME && cat x\n...\n…/.casstore", ""),
    ],
)
def test_a_page_that_says_something_wrong_fails(block: str, wrong: str, tmp_path: Path, forks: Forks) -> None:
    (sample,) = read_samples(f"```console\n{block}\n```\n")
    with Shell(tmp_path, {"HOME": str(tmp_path), "PATH": _path()}, forks) as shell:
        page = Page(shell, tmp_path, {})
        if not wrong:
            page.execute(sample)
            return
        with pytest.raises(AssertionError, match=wrong):
            page.execute(sample)
