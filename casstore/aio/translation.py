"""casstore's errors in the words of microsandbox 0.4.4, which programs may compare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from casstore.aio.errors import InvalidConfigError, IoError, MicrosandboxError
from casstore.errors import (
    AlreadyExists,
    CasstoreError,
    CorruptContent,
    DigestMismatch,
    InvalidDigest,
    InvalidName,
    NotFound,
    SandboxNotStopped,
    StorageError,
    UnsuitableSandbox,
    UnsupportedVersion,
    UsageError,
)


@contextmanager
def in_its_words(*, missing: str | None = None, taken: str | None = None) -> Iterator[None]:
    """Raise the SDK's exceptions in place of casstore's and the system's. `missing` is what is told to be not there
    when that is what is wrong, and `taken` what is there already.
    """
    try:
        yield
    except (CasstoreError, OSError) as error:
        raise _translated(error, missing, taken) from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise IoError("io error: file name contained an unexpected NUL byte") from error


def _translated(error: CasstoreError | OSError, missing: str | None, taken: str | None) -> MicrosandboxError:
    if isinstance(error, SandboxNotStopped):
        return MicrosandboxError(error.problem)
    if isinstance(error, UnsuitableSandbox):
        return InvalidConfigError(f"invalid config: {error.problem}")
    if missing is not None and isinstance(error, NotFound | InvalidName | InvalidDigest):
        return not_found(missing)
    if taken is not None and isinstance(error, AlreadyExists):
        return MicrosandboxError(f"snapshot already exists: {taken}")
    if isinstance(error, DigestMismatch) and "upper digest mismatch" in error.subject:
        got = error.got.partition(" or ")[0]
        return integrity_failed(f"upper digest mismatch: manifest={error.expected}, file={got}")
    if isinstance(error, UnsupportedVersion):
        is_known = error.problem.startswith("unsupported upper integrity")
        return integrity_failed(error.problem) if is_known else MicrosandboxError(str(error))
    if isinstance(error, CorruptContent):
        return integrity_failed(str(error))
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:
        return IoError(f"io error: {system_text(cause.errno)}")
    if isinstance(error, StorageError | OSError):
        return IoError(f"io error: {error}")
    if isinstance(error, UsageError):
        return InvalidConfigError(f"invalid config: {error}")
    return MicrosandboxError(str(error))


def system_text(number: int) -> str:
    """A system's error, as Rust says it."""
    return f"{os.strerror(number)} (os error {number})"


def not_found(subject: str) -> MicrosandboxError:
    """No such snapshot."""
    return MicrosandboxError(f"snapshot not found: {subject}")


def integrity_failed(problem: str) -> MicrosandboxError:
    """A snapshot is not what its documents say."""
    return MicrosandboxError(f"snapshot integrity check failed: {problem}")
