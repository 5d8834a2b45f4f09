"""The exceptions of microsandbox 0.4.4's Python SDK, by the same names and with the same `code`.

An exception that casstore raised for it is the `__cause__`; its text says more.
"""

from __future__ import annotations


class MicrosandboxError(Exception):
    """Base of all, and the class of whatever is wrong with a snapshot."""

    code: str = "microsandbox-error"


class InvalidConfigError(MicrosandboxError):
    """A name, or a sandbox, that no snapshot can be made with."""

    code = "invalid-config"


class SandboxNotFoundError(MicrosandboxError):
    """There is no such sandbox."""

    code = "sandbox-not-found"


class SandboxNotRunningError(MicrosandboxError):
    """Never raised here."""

    code = "sandbox-not-running"


class SandboxAlreadyExistsError(MicrosandboxError):
    """Never raised here."""

    code = "sandbox-already-exists"


class SandboxStillRunningError(MicrosandboxError):
    """Never raised here: a snapshot of a running sandbox is a MicrosandboxError, as in 0.4.4."""

    code = "sandbox-still-running"


class ExecTimeoutError(MicrosandboxError):
    """Never raised here."""

    code = "exec-timeout"


class ExecFailedError(MicrosandboxError):
    """Never raised here."""

    code = "exec-failed"


class FilesystemError(MicrosandboxError):
    """Never raised here."""

    code = "filesystem-error"


class PathNotFoundError(MicrosandboxError):
    """Never raised here."""

    code = "path-not-found"


class VolumeNotFoundError(MicrosandboxError):
    """Never raised here."""

    code = "volume-not-found"


class ImageNotFoundError(MicrosandboxError):
    """Never raised here."""

    code = "image-not-found"


class ImagePullFailedError(MicrosandboxError):
    """Never raised here."""

    code = "image-pull-failed"


class NetworkPolicyError(MicrosandboxError):
    """Never raised here."""

    code = "network-policy-error"


class SecretViolationError(MicrosandboxError):
    """Never raised here."""

    code = "secret-violation"


class TlsError(MicrosandboxError):
    """Never raised here."""

    code = "tls-error"


class IoError(MicrosandboxError):
    """The file system refused."""

    code = "io-error"
