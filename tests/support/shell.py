"""A bash that runs one command after the other, as a reader types them: variables, $? and background jobs stay.

    with Forks.running(folder) as forks, Shell(folder, environment, forks) as shell:
        done = shell.run("casstore create base --disk disk.ext4 | head -1")
        assert done.code == 0, done.output

`casstore` (and `python`, for a file) is a function there, which has a fork of a ready Python do it
(tests/support/forks.py); what other programs start is the real one, of the PATH.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]

_LOOP = r"""
__forked() {
  local __stem=$__own __name __code __reply __in __out __err
  if ((BASH_SUBSHELL)); then  # of a pipe, all are run at once
    __stem=$(mktemp "$__own-XXXXXXXX")
    mkfifo "$__stem.reply"
  fi
  exec {__in}<&0 {__out}>&1 {__err}>&2  # the streams have other numbers while something is redirected here
  {
    printf '%s\0' "$BASHPID" "$__in" "$__out" "$__err" "$PWD" "$#" "$@"
    for __name in $(compgen -e); do printf '%s=%s\0' "$__name" "${!__name}"; done
  } > "$__stem.request"
  exec {__reply}<>"$__stem.reply"
  echo "$__stem" > "$__forks"
  read -r -t 100 -u "$__reply" __code
  exec {__reply}>&- {__in}<&- {__out}>&- {__err}>&-
  return "${__code:-99}"
}
casstore() { __forked casstore "$@"; }
__so() { return "$1"; }
__last=0
exec 3<&0 4>&1 < /dev/null
while IFS= read -r -d '' -u 3 __command; do
  __so "$__last"
  eval "$__command" 3<&- 4>&- >> "$__output" 2>&1
  __last=$?
  echo "$__last" >&4
done
"""


@dataclass(frozen=True, slots=True)
class Forks:
    """A Python that forks for commands, which are asked for in `folder`."""

    folder: Path

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """One that runs until the end of the block."""
        folder.mkdir()
        os.mkfifo(folder / "fifo")
        command = [sys.executable, "-m", "tests.support.forks", str(folder / "fifo")]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as process:  # type: ignore[call-overload]
            try:
                assert process.stdout.readline() == b"ready\n", "it did not start"
                yield cls(folder)
            finally:
                process.terminate()


@dataclass(frozen=True, slots=True)
class Done:
    """A command's exit code, and what it wrote to stdout and stderr, in the order in which it came."""

    code: int
    output: str


class Shell:
    """A bash in `folder`, which must exist, with just these environment variables."""

    def __init__(self, folder: Path, environment: Mapping[str, str], forks: Forks) -> None:
        own = Path(tempfile.mkdtemp(dir=forks.folder)) / "shell"
        os.mkfifo(f"{own}.reply")
        self._output = Path(f"{own}.output")
        self._output.touch()
        given = f"__own={own} __output={self._output} __forks={forks.folder / 'fifo'}"
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-c", f"{given}\n{_LOOP}"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, command: str) -> Done:
        """Run a command, of one line or several."""
        before = self._output.stat().st_size
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(command.encode() + b"\0")
        stdin.flush()
        answer = stdout.readline()
        with self._output.open("rb") as output:
            output.seek(before)
            said = output.read().decode()
        assert answer, f"the shell ended with: {command}\n{said}"
        return Done(int(answer), said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its streams, and waits
            pass
