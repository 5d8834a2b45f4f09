"""The samples of a page of the documentation: what they are, and whether they do what the page shows.

A sample is a fenced block in `console` or `python`. In the former each line that starts with `$ ` is a command, and
what follows is what it shows: on stdout and stderr, as a terminal has them. A page is executed from top to bottom, by
one bash.

- A command must succeed. It may fail where the page says so: by a line `error: ...` (or that of `--json`), by `echo $?`
  as the next command, or by `# exit code N` at its end.
- Where output is shown, it is all there is, but for `...` or `…`: a whole line stands for any lines, in a line for any
  text. Digests, sizes, times, numbers of requests and extents, and blanks may be others. A digest that was shown stands
  for the real one in the commands that follow.
- Comments before a block, which readers do not see, say what it needs:

    <!-- not executed: REASON -->      the block is shown only, for that reason
    <!-- needs: PROGRAM ... -->        the block is executed where these programs are
    <!-- given                         commands that are executed without being shown: what the reader has, but the
    COMMANDS                           page does not make
    -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

from tests.support.needs import find_program
from tests.support.shell import Done, Shell

LANGUAGES = {"console", "python"}
SHOWN_ONLY = {"text", "json", "toml", "yaml"}
"""What is data, or written by a generator: there is nothing to execute."""

_PART = re.compile(
    r"<!-- (?P<mark>not executed|needs): (?P<what>[^\n]*?) -->\n"
    r"|<!-- given\n(?P<given>.*?)-->\n"
    r"|^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and what the page shows of its output; None where it shows nothing."""

    text: str
    shown: tuple[str, ...] = ()
    may_fail: bool = False

    @property
    def code(self) -> int:
        """The exit code that the page tells; 0 where it tells none."""
        told = re.search(r"# exit code (\d+)", self.text)
        return int(told[1]) if told else 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A block, or what is given before one."""

    line: int
    language: str
    body: str
    unexecuted: str = ""
    """Why not; empty where it is executed."""

    @property
    def commands(self) -> list[Command]:
        """The commands of a block in `console`."""
        found: list[tuple[list[str], list[str]]] = []
        open_line = False
        for line in self.body.splitlines():
            if open_line:
                found[-1][0].append(line)
            elif line.startswith("$ "):
                found.append(([line[2:]], []))
            elif line or (found and found[-1][1]):
                assert found, f"line {self.line}: output without a command"
                found[-1][1].append(line)
            open_line = bool(found) and not found[-1][1] and found[-1][0][-1].endswith("\\")
        asked = [words[0].startswith("echo $?") for words, _ in found[1:]] + [False]
        return [
            Command("\n".join(words), tuple(_trimmed(shown)), ask or any(map(_tells_error, shown)))
            for (words, shown), ask in zip(found, asked, strict=True)
        ]


def _tells_error(line: str) -> bool:
    return line.startswith(("error: ", '{"version": 1, "error": '))


def _trimmed(lines: list[str]) -> list[str]:
    """Without blank lines: they part commands on a page as well as lines of output."""
    return [line for line in lines if line.strip()]


def read_samples(text: str) -> Iterator[Sample]:
    """The samples of a page, in their order; of those that are only shown, the ones that could be executed."""
    mark, what = "", ""
    for part in _PART.finditer(text):
        line = text.count("\n", 0, part.start()) + 1
        if part["given"]:
            yield Sample(line, "given", part["given"])
        elif part["mark"]:
            mark, what = part["mark"], part["what"]
        else:
            reason = what if mark == "not executed" else ""
            if mark == "needs":
                absent = [program for program in what.split() if find_program(program) is None]
                reason = f"needs {', '.join(absent)}" if absent else ""
            mark, what = "", ""
            if part["body"].lstrip().startswith("--8<--"):
                reason = "a file of its own, which has its own test"
            if part["language"] not in SHOWN_ONLY or reason:
                yield Sample(line, part["language"], dedent(part["body"]), reason)


# --- comparing -------------------------------------------------------------------------------------------------------

_HEX = r"\b(?:[0-9a-f]{4,64}…[0-9a-f]*|[0-9a-f]{6,64}\b)"
_TOKEN = re.compile(
    r"(?P<any>…|\.\.\.)"
    rf"|(?P<hex>{_HEX})"
    r"|(?P<size>\b[\d.,]+ (?:B|bytes|[KMGT]iB)(?![A-Za-z]))"
    r"|(?P<count>\b\d+ (?:requests|extents?)\b)"
    r"|(?P<ratio>\b[\d.]+ : 1\b)"
    r"|(?P<time>\b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\dZ?)?)"
    r"|(?P<seconds>\b[\d.]+ m?s\b)"
    r"|(?P<blank>\s+)"
)
_ANY = {
    "any": ".*",
    "hex": "([0-9a-f]+)",
    "size": r"[\d.,]+ (?:B|bytes|[KMGT]iB)",
    "count": r"\d+ (?:requests|extents?)",
    "ratio": r"[\d.]+ : 1",
    "time": r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\dZ?)?",
    "seconds": r"(?:\d+ min )?[\d.]+ m?s",
    "blank": r"\s+",
}
_PROGRESS = re.compile(r"^[a-z ]+: .*/s(?:, .* left)?$")
"""What `--progress plain` says of what takes longer than 3 seconds: on a slow machine anything may."""


@dataclass(slots=True)
class Digests:
    """Which digests of this run the page's digests stand for."""

    known: dict[str, str] = field(default_factory=dict)

    def pattern(self, shown: str) -> tuple[re.Pattern[str], list[str]]:
        """What a line must look like, and the page's digests in it."""
        expression, at, digests = "", 0, []
        for token in _TOKEN.finditer(shown.rstrip()):
            kind = str(token.lastgroup)
            expression += re.escape(shown[at : token.start()]) + _ANY[kind]
            at = token.end()
            if kind == "hex":
                digests.append(token["hex"])
        return re.compile(expression + re.escape(shown.rstrip()[at:]) + r"\s*"), digests

    def compare(self, shown: tuple[str, ...], output: str) -> str:
        """What is wrong with an output; empty if nothing is. Learns the digests."""
        lines = [line for line in output.splitlines() if line.strip() and not _PROGRESS.match(line)]
        at, skipping = 0, False
        for line in shown:
            if line.strip() in {"...", "…"}:
                skipping = True
                continue
            pattern, digests = self.pattern(line)
            candidates = range(at, len(lines) if skipping else min(at + 1, len(lines)))
            found = next(((n, match) for n in candidates if (match := pattern.fullmatch(lines[n]))), None)
            if found is None:
                return f"expected  {line}\ngot       {lines[at] if at < len(lines) else '(no more lines)'}"
            at, skipping = found[0] + 1, False
            self.known.update(zip(digests, found[1].groups(), strict=True))
        return "" if skipping or at == len(lines) else f"not shown on the page:  {lines[at]}"

    def put_into(self, command: str) -> str:
        """The command with this run's digests."""

        def real(token: re.Match[str]) -> str:
            head, _, tail = token[0].partition("…")
            fits = {
                actual
                for shown, actual in self.known.items()
                if shown.startswith(head) and shown.endswith(tail) and "…" not in shown
            }
            return max(fits, key=len)[: None if tail or len(head) == 64 else len(head)] if fits else token[0]

        return re.sub(_HEX, real, command)


# --- executing -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Page:
    """A page that is executed in `shell`. `places` are texts of the page, and what they stand for in this run."""

    shell: Shell
    folder: Path
    places: Mapping[str, str]
    digests: Digests = field(default_factory=Digests)
    executed: int = 0

    def execute(self, sample: Sample) -> None:
        """Run all of a sample; an AssertionError says what is wrong, and where."""
        if sample.language == "given":
            self._succeed(self.shell.run(f"set -e\n{self._here(sample.body)}\nset +e"), sample, "given")
        elif sample.language == "python":
            program = self.folder / f"sample-{sample.line}.py"
            program.write_text(self._here(sample.body))
            self._succeed(self.shell.run(f"__forked python {program}"), sample, "python")
            self.executed += 1
        else:
            for command in sample.commands:
                self._command(sample, command)

    def _command(self, sample: Sample, command: Command) -> None:
        done = self.shell.run(self._here(self.digests.put_into(command.text)))
        if not command.may_fail:
            self._succeed(done, sample, command.text, command.code)
            hidden = [line for line in done.output.splitlines() if line.startswith("error: ")] and not command.code
            assert not hidden, f"line {sample.line}: {command.text}\nfailed in a pipe:\n{done.output}"
        elif any(map(_tells_error, command.shown)):
            assert done.code, f"line {sample.line}: {command.text}\nsucceeded:\n{done.output}"
        if command.shown:
            wrong = self.digests.compare(command.shown, self._there(done.output))
            assert not wrong, f"line {sample.line}: {command.text}\n{wrong}\nall of it:\n{done.output}"
        self.executed += 1

    def _succeed(self, done: Done, sample: Sample, what: str, code: int = 0) -> None:
        assert done.code == code, f"line {sample.line}: {what}\nexit code {done.code}:\n{done.output}"

    def _here(self, text: str) -> str:
        for place, real in self.places.items():
            text = re.sub(rf"(?<![\w/.]){re.escape(place)}(?![\w-])", real, text)
        return text

    def _there(self, text: str) -> str:
        for place, real in self.places.items():
            text = text.replace(real, place)
        return text
