"""`python -m tests.fuzz [TARGET...] [--seconds N | --runs N]`: fuzz each target, and say what came of it.

Inputs that reach something new are kept in .cache/fuzz/TARGET for the next run. What is found goes to
fixtures/fuzz/TARGET, to be committed with the repair.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.target import FIXTURES, ROOT, Target

LIMITS = ("-timeout=10", "-rss_limit_mb=1024")
"""Seconds and MiB that one input may take."""
_STATUS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_LOG = 4000
"""Characters of the fuzzer's own words that are shown of a finding."""


@dataclass(frozen=True)
class Outcome:
    """What came of one target. Edges and features are libFuzzer's; `found` is the input that it stopped at."""

    executions: int
    seconds: float
    edges: int
    features: int
    kept: int
    found: list[Path]
    exit_code: int
    log: str


def fuzz(atheris: Any, target: Target, arguments: Sequence[str], *, corpus: Path, findings: Path) -> Outcome:
    """Fuzz one target in a child process: libFuzzer ends its process, after its time or at the first finding."""
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / f"seed-{seed.parent.name}-{seed.name}").write_bytes(seed.read_bytes())
    words, log = corpus.parent / f"{target.name}.words", corpus.parent / f"{target.name}.log"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    before, begun = set(findings.iterdir()), time.monotonic()
    child = os.fork()
    if child == 0:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        options = [*LIMITS, f"-max_len={target.max_len}", f"-artifact_prefix={findings}/found-", *arguments]
        options += [f"-dict={words}"] if target.words else []
        _run(atheris, target, [*options, str(corpus)], findings)
    _, status = os.waitpid(child, 0)
    text = log.read_text(errors="replace")
    runs, edges, features, kept = map(int, (_STATUS.findall(text) or [("0",) * 4])[-1])
    found = sorted(set(findings.iterdir()) - before)
    return Outcome(
        runs, time.monotonic() - begun, edges, features, kept, found, os.waitstatus_to_exitcode(status), text
    )


def _run(atheris: Any, target: Target, arguments: Sequence[str], findings: Path) -> None:
    def attempt(data: bytes) -> None:
        try:
            target(data)
        except Exception:  # noqa: BLE001  (whatever it is, it is a finding)
            traceback.print_exc()
            (findings / f"found-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            sys.stderr.flush()
            os._exit(1)

    mutate, options = target.mutate, {}
    if mutate is not None:

        def havoc(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, len(part) + 64))

        options["custom_mutator"] = lambda data, most, seed: mutate(data, havoc, seed)[:most]
    atheris.Setup([target.name, *arguments], attempt, **options)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> int:
    """Fuzz the targets one after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, help="for each target, instead of a time")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".cache" / "fuzz")
    parser.add_argument("--findings", type=Path, default=FIXTURES)
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("expected atheris, which has wheels for Python 3.11 to 3.13 on x86-64 Linux, got none", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["casstore"]), contextlib.redirect_stderr(io.StringIO()):  # it names each
        from tests.fuzz.scratch import scratch
        from tests.fuzz.targets import TARGETS
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"expected some of {', '.join(TARGETS)}, got {', '.join(unknown)}")
    # Some runs are a test of others' changes, and try the same each time; whoever looks for something gives it a time.
    arguments = [f"-runs={options.runs}", "-seed=1"] if options.runs else [f"-max_total_time={options.seconds}"]
    print(f"{'TARGET':16}{'EXECUTIONS':>12}{'SECONDS':>9}{'EDGES':>7}{'FEATURES':>10}{'KEPT':>6}  FOUND", flush=True)
    scratch()  # for all children, of which none clears up
    failed = False
    for name in options.targets or TARGETS:
        done = fuzz(atheris, TARGETS[name], arguments, corpus=options.corpus / name, findings=options.findings / name)
        files = " ".join(os.path.relpath(path, ROOT) for path in done.found) or "-"
        print(
            f"{name:16}{done.executions:12}{done.seconds:9.1f}{done.edges:7}{done.features:10}{done.kept:6}  {files}",
            flush=True,
        )
        if done.found or done.exit_code:
            failed = True
            print(f"{name}: exit code {done.exit_code}\n{done.log[-_LOG:]}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
