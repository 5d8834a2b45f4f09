"""A Python that has casstore imported, and forks for each command: a page of samples runs many, and to start Python for
each of them would cost more than what they do.

`python -m tests.support.forks FIFO` reads the paths of requests from the FIFO, one a line, until it is ended. A request
is two files with that path that `tests/support/shell.py` has made:

    .request  fields, each ended by NUL: the asking process, its descriptors of the three streams, its working
              directory, how many words there are, the words (`casstore ...` or `python FILE`), its exported
              variables as NAME=VALUE
    .reply    a FIFO, into which goes the exit code

The command has the standard streams of the process that asked, whatever they are.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages


def main() -> None:
    """Fork until the end."""
    from casstore.cli.env import prepare

    prepare()
    import casstore

    for module in walk_packages(casstore.__path__, "casstore."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    import_module("cryptography.hazmat.primitives.serialization")  # of others, what is slow and only some verbs load
    gc.freeze()  # a collection in a child would touch, and so copy, all of it
    os.fsync = os.fdatasync = lambda fd: None  # what is tried here need not survive a power cut
    with os.fdopen(os.open(sys.argv[1], os.O_RDWR), "rb") as requests:  # also for writing: so it has no end
        print("ready", flush=True)  # noqa: T201  (to who has started this)
        for line in requests:
            _reap()
            if os.fork() == 0:
                _answer(os.fsdecode(line.rstrip(b"\n")))


def _reap() -> None:
    """Take note of the children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(request: str) -> None:
    fields = Path(f"{request}.request").read_bytes().split(b"\0")[:-1]
    pid, streams, directory, count, rest = int(fields[0]), fields[1:4], fields[4], fields[5], fields[6:]
    words, variables = [os.fsdecode(word) for word in rest[: int(count)]], rest[int(count) :]
    for descriptor, stream in enumerate(streams):
        opened = os.open(f"/proc/{pid}/fd/{int(stream)}", os.O_WRONLY | os.O_APPEND if descriptor else os.O_RDONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(directory)
    os.environb.clear()
    for variable in variables:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    code: object = 0
    try:
        _run(words)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  (what Python itself would do)
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    number = code if isinstance(code, int) else int(code is not None)
    Path(f"{request}.reply").write_text(f"{number}\n")
    os._exit(0)


def _run(words: list[str]) -> None:
    if words[0] == "python":
        sys.argv = words[1:]
        sys.path[0] = os.path.dirname(words[1])
        runpy.run_path(words[1], run_name="__main__")
        return
    from casstore.cli.start import main as command

    sys.argv = words
    command()


if __name__ == "__main__":
    main()
