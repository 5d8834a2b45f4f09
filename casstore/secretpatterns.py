"""What files that hold credentials are called, and what is in them.

A pattern looks into files of certain names only, so that most of a disk is never read. docs/how-to/secrets.md has the
table of them, which a test compares with this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

_SHELL: Final = (
    *(".env", ".env.*", "*.env", ".envrc", "etc/environment", ".bashrc", ".bash_profile", ".bash_aliases", ".profile"),
    *(".zshrc", ".zshenv", ".bash_history", ".zsh_history", ".ash_history", ".sh_history", "fish_history"),
)
"""Where a shell's variables are set, and what was typed. Globs of the last parts of a path."""

SETTINGS: Final = (
    *("*.json", "*.yaml", "*.yml", "*.toml", "*.ini", "*.cfg", "*.conf", "*.config", "*.properties", "*.xml"),
    *("*.sh", "*.bash", "*.zsh", "*.tf", "*.tfvars", "*.tfstate", ".npmrc", ".netrc", ".pypirc", ".python_history"),
    *("*.py", "*.ipynb", "*.js", "*.mjs", "*.ts", "*.rb", "*.php", "*.go", "*.java", "*.rs", "Dockerfile"),
    *(".git-credentials", ".gitconfig", ".git/config", "token", "*.token", *_SHELL),
)
"""Settings, scripts, sources and histories: where tokens are left."""

PASSED_OVER: Final = (
    *("usr/lib", "usr/lib32", "usr/lib64", "usr/libexec", "usr/share", "usr/include", "usr/src"),
    *("usr/local/lib", "usr/local/share", "usr/local/go", "lib/python*/test", "etc/ssl/certs"),
    *("site-packages", "dist-packages", "node_modules", ".cargo/registry", ".rustup/toolchains", "go/pkg/mod"),
)
"""Directories that are not entered: what packages bring, with the keys and tokens of their tests and documentation."""

_PLACEHOLDERS: Final = re.compile(
    rb"(?i)example|change[-_]?me|placeholder|your[-_ ]|x{4}|\*{3}|\.\.\.|dummy|redacted|replace[-_ ]?me|insert[-_ ]"
    rb"|secret[-_ ]?here|password[-_ ]?here|fake|0123456|1234567|abcdef|^[<$%{]|^(?:true|false|none|null|yes|no)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One kind of credentials."""

    id: str
    description: str
    files: tuple[str, ...]
    """Globs of the last parts of a path, in which * stands for no "/"."""
    content: str
    """A regular expression over bytes. Its group `value`, if it has one, must be no placeholder."""
    spared: str
    """What does not count, in words."""
    marks: tuple[bytes, ...] = ()
    """One of these is in all content that matches: to be quick about the rest."""

    def found_in(self, content: bytes) -> bool:
        """Whether a file with this content holds such credentials."""
        if self.marks and not any(mark in content for mark in self.marks):
            return False
        for match in _compiled(self.content).finditer(content):
            value = match.groupdict().get("value")
            if value is None or not is_placeholder(value):
                return True
        return False


_PLACE: Final = "placeholders"

PATTERNS: Final = (
    Pattern(
        id="private-key",
        description="A private key, encrypted or not: PEM, OpenSSH or PuTTY",
        files=("id_*", "*.pem", "*.key", "*.p8", "*.pk8", "*.ppk", "*.asc", "ssh_host_*_key", "*.json"),
        content=r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?[A-Za-z0-9+/]{40}"
        r"|PuTTY-User-Key-File-\d",
        spared="public keys, certificates; Debian's `ssl-cert-snakeoil.key`",
        marks=(b"PRIVATE KEY", b"PuTTY-User"),
    ),
    Pattern(
        id="keystore",
        description="A file made to hold keys or passwords",
        files=("*.p12", "*.pfx", "*.jks", "*.kdbx", ".gnupg/private-keys-v1.d/*.key", ".vault-token"),
        content=r"[^\s]",
        spared="empty files",
    ),
    Pattern(
        id="netrc",
        description="Passwords in a .netrc",
        files=(".netrc", "_netrc"),
        content=r"\bpassword\s{1,8}(?P<value>\S{1,256})",
        spared=_PLACE,
    ),
    Pattern(
        id="docker-auth",
        description="Credentials for container registries",
        files=(".docker/config.json", ".dockercfg", "containers/auth.json", ".dockerconfigjson"),
        content=r'"(?:auth|password|identitytoken|registrytoken)"\s{0,8}:\s{0,8}"(?P<value>[^"]{4,8192})"',
        spared="`credsStore` and `credHelpers`, empty entries",
    ),
    Pattern(
        id="aws-credentials",
        description="Secret keys or session tokens of AWS",
        files=(".aws/credentials", ".aws/config", ".s3cfg", ".boto", *_SHELL),
        content=r"(?i)\b(?:aws_secret_access_key|aws_session_token|secret_key)\s{0,8}[=:]\s{0,8}[\"']?"
        r"(?P<value>[A-Za-z0-9/+=]{16,4096})",
        spared=_PLACE,
    ),
    Pattern(
        id="gcloud",
        description="Credentials of Google Cloud's command line, and of service accounts",
        files=(".config/gcloud/*.json", ".config/gcloud/*.db", ".config/gcloud/*/*/adc.json", "*credentials*.json"),
        content=r'"(?:refresh_token|private_key|client_secret)"\s{0,8}:\s{0,8}"(?P<value>[^"]{8,8192})"',
        spared=_PLACE,
    ),
    Pattern(
        id="azure",
        description="Tokens of Azure's command line",
        files=(".azure/*.json", ".azure/*.bin"),
        content=r'"(?:secret|refreshToken|accessToken|client_secret)"\s{0,8}:\s{0,8}"(?P<value>[^"]{8,8192})"',
        spared=_PLACE,
    ),
    Pattern(
        id="kubeconfig",
        description="Keys, tokens or passwords for a Kubernetes cluster",
        files=(".kube/config", "kubeconfig", "*.kubeconfig", "etc/kubernetes/*.conf", "k3s.yaml"),
        content=r"\b(?:client-key-data|token|password)\s{0,8}:\s{0,8}[\"']?(?P<value>[^\s\"'{}]{8,8192})",
        spared="client certificates alone; placeholders",
    ),
    Pattern(
        id="git-credentials",
        description="A URL with a password",
        files=(".git-credentials", ".git/config", ".gitconfig", "pip.conf", ".condarc", "sources.list", *_SHELL),
        content=r"\bhttps?://[^\s/:@\"']{1,128}:(?P<value>[^\s/@\"']{4,512})@[^\s/@]",
        spared="URLs without a password; placeholders",
        marks=(b"://",),
    ),
    Pattern(
        id="npm-token",
        description="A token for a registry of npm",
        files=(".npmrc", ".yarnrc", ".yarnrc.yml"),
        content=r"(?:_authToken|_auth|_password|npmAuthToken)\s{0,8}[=:]\s{0,8}[\"']?(?P<value>[^\s\"']{8,4096})",
        spared="`${NPM_TOKEN}` and other placeholders",
    ),
    Pattern(
        id="pypirc",
        description="A password or token for PyPI",
        files=(".pypirc",),
        content=r"(?m)^\s{0,8}password\s{0,8}[=:][ \t]{0,8}(?P<value>\S{1,4096})",
        spared=_PLACE,
    ),
    Pattern(
        id="cargo-token",
        description="A token for a registry of Cargo, RubyGems, Terraform or Hugging Face",
        files=(
            *(".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", "credentials.tfrc.json"),
            *(".cache/huggingface/token", ".huggingface/token"),
        ),
        content=r"(?:token|api_key)\"?\s{0,8}[=:]\s{0,8}[\"']?(?P<value>[^\s\"']{8,4096})|\Ahf_[A-Za-z0-9]{20,64}",
        spared=_PLACE,
    ),
    Pattern(
        id="database-password",
        description="A password for PostgreSQL or MySQL",
        files=(".pgpass", ".my.cnf", ".mylogin.cnf"),
        content=r"(?m)^(?:[^#:\n]{1,256}:){4}(?P<value>[^\s:]{1,256})$"
        r"|^\s{0,8}password\s{0,8}=\s{0,8}[\"']?[^\s\"']{1,256}",
        spared="empty passwords",
    ),
    Pattern(
        id="env-secret",
        description="A variable that is named like a secret, with a value",
        files=_SHELL,
        content=r"(?i)\b\w{0,64}(?:SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|PRIVATE_KEY|ACCESS_KEY)"
        r"\w{0,32}[ \t]{0,4}=[ \t]{0,4}[\"']?(?P<value>[^\s\"'#;&|<>$`(){}]{8,4096})",
        spared="fewer than 8 characters, other variables as values, `.env.example` and the like; placeholders",
    ),
    Pattern(
        id="shadow",
        description="A password hash",
        files=("etc/shadow", "etc/shadow-", "etc/gshadow", "etc/gshadow-"),
        content=r"(?m)^[^:\n]{1,64}:!?(?:\$[0-9A-Za-z]{1,8}\$[^:\n]{10,256}|[./0-9A-Za-z]{13}):",
        spared="`*`, `!`, `x` and empty fields",
    ),
    Pattern(
        id="github-token",
        description="A token of GitHub",
        files=SETTINGS,
        content=r"\b(?:gh[pousr]_(?P<value>[A-Za-z0-9]{36,255})|github_pat_[A-Za-z0-9_]{60,255})",
        spared=_PLACE,
        marks=(b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
    ),
    Pattern(
        id="gitlab-token",
        description="A token of GitLab",
        files=SETTINGS,
        content=r"\bglpat-(?P<value>[A-Za-z0-9_-]{20,255})",
        spared=_PLACE,
        marks=(b"glpat-",),
    ),
    Pattern(
        id="slack-token",
        description="A token or webhook of Slack",
        files=SETTINGS,
        content=r"\b(?:xox[abeoprs]-(?:\d{1,3}-)?|hooks\.slack\.com/services/T)(?P<value>[0-9A-Za-z/-]{16,255})",
        spared=_PLACE,
        marks=(b"xox", b"hooks.slack.com"),
    ),
    Pattern(
        id="aws-access-key",
        description="The id of an access key of AWS",
        files=(".aws/credentials", ".aws/config", *SETTINGS),
        content=r"\b(?P<value>(?:AKIA|ASIA)[0-9A-Z]{16})\b",
        spared="ids that end in EXAMPLE; placeholders",
        marks=(b"AKIA", b"ASIA"),
    ),
    Pattern(
        id="anthropic-key",
        description="A key of Anthropic",
        files=SETTINGS,
        content=r"\bsk-ant-(?P<value>[A-Za-z0-9_-]{24,255})",
        spared=_PLACE,
        marks=(b"sk-ant-",),
    ),
    Pattern(
        id="openai-key",
        description="A key of OpenAI",
        files=SETTINGS,
        content=r"\bsk-(?:proj-|svcacct-|admin-)(?P<value>[A-Za-z0-9_-]{40,255})|\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}",
        spared=_PLACE,
        marks=(b"sk-",),
    ),
    Pattern(
        id="google-api-key",
        description="An API key of Google",
        files=SETTINGS,
        content=r"\bAIza(?P<value>[0-9A-Za-z_-]{35})(?![0-9A-Za-z_-])",
        spared=_PLACE,
        marks=(b"AIza",),
    ),
    Pattern(
        id="package-token",
        description="A token of npm, PyPI or Hugging Face",
        files=SETTINGS,
        content=r"\b(?:npm_(?=[A-Za-z0-9]{36}\b)|pypi-AgEIcHlwaS5vcmc|hf_(?=[A-Za-z0-9]{34}\b))(?P<value>[A-Za-z0-9_-]{34,512})",
        spared=_PLACE,
        marks=(b"npm_", b"pypi-AgEI", b"hf_"),
    ),
    Pattern(
        id="stripe-key",
        description="A live key of Stripe",
        files=SETTINGS,
        content=r"\b[rs]k_live_(?P<value>[0-9A-Za-z]{20,255})",
        spared="test keys; placeholders",
        marks=(b"k_live_",),
    ),
)

_SPARED_FILES: Final = re.compile(
    rb"/(?:ssl-cert-snakeoil\.key|\.env\.(?:example|sample|template|dist)|[^/]*\.(?:example|sample|template|dist)\.env)\Z"
)


def candidates(path: bytes) -> tuple[Pattern, ...]:
    """The patterns that look into a file of this path, which begins with "/"."""
    name = path[path.rindex(b"/") :]
    if not _any_name().search(name) or _SPARED_FILES.search(name):
        return ()
    wanted = {files for files in _file_lists() if _paths(files).search(path)}
    return tuple(pattern for pattern in PATTERNS if pattern.files in wanted) if wanted else ()


def is_passed_over(directory: bytes) -> bool:
    """Whether nothing in a directory is looked at."""
    return _paths(PASSED_OVER).search(directory) is not None


def is_placeholder(value: bytes) -> bool:
    """Whether a value is none that anybody would keep secret: an example, a reference, the same letters all along."""
    return _PLACEHOLDERS.search(value) is not None or len(set(value)) < min(6, len(value))


@cache
def _compiled(content: str) -> re.Pattern[bytes]:
    return re.compile(content.encode())


@cache
def _paths(globs: tuple[str, ...]) -> re.Pattern[bytes]:
    return re.compile(b"/(?:" + b"|".join(map(_translate, globs)) + rb")\Z")


@cache
def _file_lists() -> tuple[tuple[str, ...], ...]:
    """Each list of globs once: many patterns look into the same files."""
    return tuple(dict.fromkeys(pattern.files for pattern in PATTERNS))


@cache
def _any_name() -> re.Pattern[bytes]:
    last: Iterable[str] = (glob.rpartition("/")[2] for pattern in PATTERNS for glob in pattern.files)
    return _paths(tuple(dict.fromkeys(last)))


def _translate(glob: str) -> bytes:
    return rb"[^/]*".join(re.escape(part).encode() for part in glob.split("*"))
