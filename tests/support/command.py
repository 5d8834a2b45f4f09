"""The command line in tests: in this process, or as a process of its own where streams and signals matter.

casstore = Casstore(tmp_path)                         # a home and a store of its own
casstore("create", "base", "--disk", disk)            # asserts exit code 0
casstore("rm", "nothing", code=10).stderr
casstore.json("list")                                 # validated against schemas/cli-list.schema.json

What a run writes are bytes; `stdout` and `stderr` decode them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from casstore.cli.main import main
from casstore.schema import validate

SCHEMAS = {"push": "cli-transfer", "pull": "cli-transfer", "copy": "cli-transfer"}

_UNSET = (
    *("NO_COLOR", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "MSB_HOME"),
    *("CASSTORE_REGISTRY", "CASSTORE_USERNAME", "CASSTORE_PASSWORD", "CASSTORE_TOKEN", "CASSTORE_NETRC"),
    *("CASSTORE_POLICY", "CASSTORE_PASSPHRASE"),
    *("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
"""Variables of the machine that would change what a run does."""


@dataclass(frozen=True)
class Result:
    """What a run wrote, and its exit code."""

    code: int
    out: bytes
    err: bytes

    @property
    def stdout(self) -> str:
        return self.out.decode()

    @property
    def stderr(self) -> str:
        return self.err.decode()

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.stdout.splitlines()


class Casstore:
    """The command line with a home directory and a store in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.docker_config = folder / "docker" / "config.json"
        self.env: dict[str, str | None] = {
            "HOME": str(folder),
            "CASSTORE_STORE": str(self.store),
            "DOCKER_CONFIG": str(self.docker_config.parent),
            "COLUMNS": "100",
            **dict.fromkeys(_UNSET),
        }

    def run(self, *args: object, stdin: bytes = b"") -> Result:
        """Run in this process, whatever the exit code."""
        done = CliRunner(env=self.env).invoke(main, [str(arg) for arg in args], input=stdin)
        return Result(done.exit_code, done.stdout_bytes, done.stderr_bytes)

    def __call__(self, *args: object, code: int = 0, stdin: bytes = b"") -> Result:
        """Run in this process; the exit code must be `code`."""
        result = self.run(*args, stdin=stdin)
        assert result.code == code, f"exit {result.code}: {result.stdout}{result.stderr}"
        return result

    def json(self, *args: object, code: int = 0, schema: str = "") -> dict[str, Any]:
        """Run with --json; the one document on stdout, checked against the schema of the verb, or another one."""
        document: dict[str, Any] = json.loads(self(*args, "--json", code=code).out)
        verb = str(args[0])
        validate(document, schema or SCHEMAS.get(verb, f"cli-{verb}"), subject=verb)
        return document

    def start(self, *args: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a process of its own; the streams are pipes unless `options` say otherwise."""
        env = {name: value for name, value in {**os.environ, **self.env}.items() if value is not None}
        streams = {name: options.pop(name, subprocess.PIPE) for name in ("stdin", "stdout", "stderr")}
        command = [sys.executable, "-m", "casstore", *map(str, args)]
        return subprocess.Popen(command, env=env, **streams, **options)

    def process(self, *args: object, code: int = 0, stdin: bytes = b"", **options: Any) -> Result:
        """Run as a process of its own; the exit code must be `code`."""
        with self.start(*args, **options) as process:
            out, err = process.communicate(stdin or None, timeout=60)
        result = Result(process.returncode, out or b"", err or b"")
        assert result.code == code, f"exit {result.code}: {out!r} {err!r}"
        return result
