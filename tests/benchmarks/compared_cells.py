"""What the comparison says in words. Each is checked by the run, or carries the address of where it is documented.

`Asked` cells are only written when the command exits with `code` and says `expects`; `Absent` ones when the tool's own
help has none of the words. `Cited` cells are of tools that cannot be run here, or of what no command shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """The answer of a contestant's method, or of `words`."""

    text: str
    method: str = ""
    words: tuple[str, ...] = ()
    expects: str = ""
    code: int = 0


@dataclass(frozen=True)
class Absent:
    """The tool has no such thing: none of `words` is in what `help` says."""

    text: str
    help: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Cited:
    """What the tool's documentation, or its maintainers, say."""

    text: str
    url: str


Cell = Asked | Absent | Cited

_RESTIC = ("restic", "help")
_BORG = ("borg", "--help")
_CASYNC = ("casync", "--help")
_GIT = ("git", "help", "-a")
_SKOPEO = ("skopeo", "--help")
_DOCKER = ("docker", "--help")

RESTIC_INSTALL = "https://restic.readthedocs.io/en/v0.17.2/_sources/020_installation.rst.txt"
BORG_INSTALL = "https://borgbackup.readthedocs.io/en/latest/installation.html"
BORG_2015 = "https://github.com/NixOS/nixpkgs/blob/15.09-beta/pkgs/tools/backup/borg/default.nix"
VORTA = "https://raw.githubusercontent.com/borgbase/vorta/master/README.md"
BACKREST = "https://github.com/garethgeorge/backrest"
CASYNC = "http://0pointer.net/blog/casync-a-tool-for-distributing-file-system-images.html"
ORAS_CP = "https://oras.land/docs/commands/oras_cp"
ORAS_RELEASES = "https://github.com/oras-project/oras/releases"
ORAS_FIRST = "https://pkg.go.dev/github.com/oras-project/oras@v0.2.0"
NOTATION = "https://manpages.ubuntu.com/manpages/resolute/man1/notation.1.html"
REGCLIENT = "https://pkg.go.dev/github.com/regclient/regclient"
REGCTL_FIRST = "https://pkg.go.dev/github.com/regclient/regclient@v0.0.1"
TART = "https://github.com/cirruslabs/tart/wiki"
TART_LAYERS = "https://github.com/openai/tart/discussions/1038"
DOCKER_RESUME = "https://github.com/moby/moby/issues/46372"
SKOPEO_BREW = "https://formulae.brew.sh/formula/skopeo"
SKOPEO_WINDOWS = "https://github.com/containers/skopeo/issues/391"

SNAPSHOTS: Mapping[str, Mapping[str, Cell]] = {
    "list": {
        "casstore": Asked("sizes, what each one has alone, digest", "list", expects="UNIQUE"),
        "restic": Asked("time, host, tags, paths", "list", expects="Tags"),
        "borg": Asked("name, time, id", "list", expects="first"),
        "casync": Asked("the names of files", "list", expects="first.caibx"),
        "git": Asked("names", "list", expects="first"),
    },
    "history": {
        "casstore": Asked("tree of parents, with what each step added", "history", expects="first"),
        "restic": Asked("the parent's id, in the JSON", "json", expects='"parent"'),
        "borg": Absent("no", _BORG, ("lineage", "parent", "history")),
        "casync": Absent("no", _CASYNC, ("parent", "history")),
        "git": Asked("graph of commits", "history", expects="second"),
    },
    "diff of two disks": {
        "casstore": Asked("files, and ranges of the disk", "diff", expects="usr/lib"),
        "restic": Asked("that the image changed, and by how many bytes", "diff", expects="disk.ext4"),
        "borg": Asked("that the image changed, and by how many bytes", "diff", expects="disk.ext4"),
        "casync": Absent("no", _CASYNC, ("diff",)),
        "git": Asked("that the image changed", "diff", expects="Bin"),
    },
    "a file inside the disk, with nothing restored": {
        "casstore": Asked("`casstore cat`, of ext2/3/4", "inside"),
        "restic": Absent("no: the disk is one file; mount that", _RESTIC, ("ext4", "image")),
        "borg": Absent("no: the disk is one file; mount that", _BORG, ("ext4",)),
        "casync": Cited("by `casync mkdev`, as a block device", CASYNC),
        "git": Absent("no", _GIT, ("ext4",)),
    },
    "mount (FUSE, or a device)": {
        "casstore": Absent("**no**", ("casstore", "--help"), ("mount", "fuse")),
        "restic": Asked("yes: directories with the image in them", words=("restic", "mount", "--help"), expects="fuse"),
        "borg": Asked("yes: directories with the image in them", words=("borg", "mount", "--help"), expects="FUSE"),
        "casync": Asked("yes: the disk itself", words=("casync", "--help"), expects="mkdev"),
        "git": Absent("no", _GIT, ("fuse",)),
    },
    "names a snapshot by its content": {
        "casstore": Asked("sha256 digest, the same everywhere", "pin", expects="sha256:"),
        "restic": Asked("an id, of one repository", "list", expects="ID"),
        "borg": Asked("a fingerprint, of one repository", "pin", expects="fingerprint"),
        "casync": Asked("digest of the disk", "pin"),
        "git": Asked("hash of the commit", "pin"),
    },
    "sign, and refuse what is not signed": {
        "casstore": Asked("keys, policies", words=("casstore", "pull", "--help"), expects="--key"),
        "restic": Absent("no", _RESTIC, ("sign ", "signature")),
        "borg": Absent("no; keyed repositories authenticate", _BORG, (" sign ", "signature")),
        "casync": Absent("no", _CASYNC, ("sign",)),
        "git": Asked("signed commits and tags", words=("git", "help", "-a"), expects="verify-commit"),
    },
    "encryption at rest": {
        "casstore": Absent("**no**", ("casstore", "create", "--help"), ("encrypt",)),
        "restic": Asked("always", words=("restic", "key", "--help"), expects="password"),
        "borg": Asked("yes", words=("borg", "init", "--help"), expects="--encryption"),
        "casync": Absent("no", _CASYNC, ("encrypt",)),
        "git": Absent("no", _GIT, ("encrypt",)),
    },
    "push to a container registry": {
        "casstore": Asked("yes", words=("casstore", "push", "--help"), expects="registry"),
        "restic": Absent("no; S3, sftp, REST and others", _RESTIC, ("registry",)),
        "borg": Absent("no; ssh", _BORG, ("registry",)),
        "casync": Absent("no; any web server", _CASYNC, ("registry",)),
        "git": Absent("no; git servers", _GIT, ("registry",)),
    },
    "let old ones go by rule": {
        "casstore": Asked("`prune`", words=("casstore", "prune", "--help"), expects="--keep-daily"),
        "restic": Asked("`forget`", words=("restic", "forget", "--help"), expects="--keep-daily"),
        "borg": Asked("`prune`", words=("borg", "prune", "--help"), expects="--keep-daily"),
        "casync": Absent("no; `gc` keeps what it is told", _CASYNC, ("prune", "daily")),
        "git": Absent("no", _GIT, ("daily",)),
    },
    "undo of a removal": {
        "casstore": Asked("`undo`", words=("casstore", "undo", "--help"), expects="Take back"),
        "restic": Asked("`recover`, until a prune", words=("restic", "recover", "--help"), expects="snapshot"),
        "borg": Absent("no", _BORG, ("undelete", "undo")),
        "casync": Absent("no", _CASYNC, ("undelete",)),
        "git": Asked("`reflog`, while nothing is collected", words=("git", "help", "-a"), expects="reflog"),
    },
    "repair from another copy": {
        "casstore": Asked("`check --repair --from`", words=("casstore", "check", "--help"), expects="--from"),
        "restic": Absent("no; what is whole can be copied out", _RESTIC, ("repair",)),
        "borg": Asked("no; `--repair` leaves out what is lost", words=("borg", "check", "--help"), expects="--repair"),
        "casync": Absent("no; delete the chunk, and make again", _CASYNC, ("repair",)),
        "git": Absent("by hand: fetch into the repository", _GIT, ("repair",)),
    },
    "JSON": {
        "casstore": Asked("yes, with schemas", "json", expects='"version"'),
        "restic": Asked("yes", "json", expects='"tags"'),
        "borg": Asked("yes", "json", expects='"archives"'),
        "casync": Absent("no", _CASYNC, ("json",)),
        "git": Absent("no; formats of one's own", _GIT, ("json",)),
    },
    "completion of commands in bash": {
        "casstore": Asked("yes", words=("casstore", "completion", "bash"), expects="complete"),
        "restic": Asked("yes", words=("restic", "generate", "--help"), expects="--bash-completion"),
        "borg": Asked("yes", words=("ls", "/usr/share/bash-completion/completions/borg")),
        "casync": Asked("yes", words=("ls", "/usr/share/bash-completion/completions/casync")),
        "git": Asked("yes", words=("ls", "/usr/share/bash-completion/completions/git")),
    },
    "systems": {
        "casstore": Cited("**Linux only**", "../tutorial.md"),
        "restic": Cited("Linux, macOS, Windows, BSD", RESTIC_INSTALL),
        "borg": Cited("Linux, macOS, BSD; Windows from source", BORG_INSTALL),
        "casync": Cited("Linux", CASYNC),
        "git": Cited("all", "https://git-scm.com/downloads"),
    },
    "graphical interface": {
        "casstore": Cited("**no**; a report in HTML", "../reference/cli.md"),
        "restic": Cited("by others: Backrest", BACKREST),
        "borg": Cited("by others: Vorta", VORTA),
        "casync": Absent("no", _CASYNC, ("gui",)),
        "git": Asked("`git gui`, `gitk`, and many others", words=("git", "help", "-a"), expects="gui"),
    },
    "schedules": {
        "casstore": Cited("**no**: a timer of yours", "../how-to/unattended.md"),
        "restic": Absent("no: a timer; Backrest has", _RESTIC, ("schedule",)),
        "borg": Absent("no: a timer; Vorta has", _BORG, ("schedule",)),
        "casync": Absent("no", _CASYNC, ("schedule",)),
        "git": Asked("`git maintenance`, of itself", words=("git", "help", "-a"), expects="maintenance"),
    },
    "first release": {
        "casstore": Asked("**2026**", words=("casstore", "--version"), expects="casstore 0."),
        "restic": Cited("2015 or before", "https://github.com/restic/restic/issues/79"),
        "borg": Cited("2015", BORG_2015),
        "casync": Cited("2017", CASYNC),
        "git": Cited("2005", "https://git-scm.com/book/en/v2/Getting-Started-A-Short-History-of-Git"),
    },
}

REGISTRIES: Mapping[str, Mapping[str, Cell]] = {
    "put a file there as an artifact": {
        "casstore": Asked("a disk: chunks, packs, a map", words=("casstore", "push", "--help"), expects="registry"),
        "skopeo": Absent("no: copies what is an image already", _SKOPEO, ("push", "artifact")),
        "docker": Asked("no: builds and pushes images", words=("docker", "push", "--help"), expects="push"),
        "oras": Cited("yes, as it is", ORAS_FIRST),
        "regctl": Cited("yes, as it is", REGCLIENT),
        "tart": Cited("its own VM disks, in compressed layers", TART),
    },
    "what exists already is sent again": {
        "casstore": Asked("no, by pack", words=("casstore", "push", "--help"), expects="there"),
        "skopeo": Asked("no, by layer", words=("skopeo", "copy", "--help"), expects="copy"),
        "docker": Cited("no, by layer", DOCKER_RESUME),
        "oras": Cited("no, by file", ORAS_CP),
        "regctl": Cited("no, by layer", REGCLIENT),
        "tart": Cited("no, by layer of 500 MB of disk", TART_LAYERS),
    },
    "list of tags, from afar": {
        "casstore": Asked("with sizes and dates", words=("casstore", "list", "--help"), expects="tags"),
        "skopeo": Asked("names", words=("skopeo", "list-tags", "--help"), expects="tags"),
        "docker": Absent("no", _DOCKER, ("list-tags", "tags of a rep")),
        "oras": Cited("names (`repo tags`)", "https://github.com/oras-project/oras/issues/564"),
        "regctl": Cited("names (`tag ls`)", REGCLIENT),
        "tart": Cited("not found in its documentation", TART),
    },
    "sign, and refuse what is not signed": {
        "casstore": Asked("keys, policies", words=("casstore", "pull", "--help"), expects="--policy"),
        "skopeo": Asked("keys, policies", words=("skopeo", "copy", "--help"), expects="--sign-by"),
        "docker": Asked("`docker trust`", words=("docker", "--help"), expects="trust"),
        "oras": Cited("with notation", NOTATION),
        "regctl": Cited("copies signatures along", REGCLIENT),
        "tart": Cited("not found in its documentation", TART),
    },
    "JSON": {
        "casstore": Asked("yes, with schemas", words=("casstore", "list", "--help"), expects="--json"),
        "skopeo": Asked("of what it inspects", words=("skopeo", "inspect", "--help"), expects="format"),
        "docker": Asked("yes, templates", words=("docker", "images", "--help"), expects="json"),
        "oras": Cited("yes, templates", ORAS_RELEASES),
        "regctl": Cited("yes, templates", REGCLIENT),
        "tart": Cited("not found in its documentation", TART),
    },
    "systems": {
        "casstore": Cited("**Linux only**", "../tutorial.md"),
        "skopeo": Cited("Linux, macOS; no Windows", SKOPEO_WINDOWS),
        "docker": Cited("all", "https://docs.docker.com/engine/install/"),
        "oras": Cited("all", ORAS_FIRST),
        "regctl": Cited("all, a Go program", REGCLIENT),
        "tart": Cited("macOS on Apple silicon", TART),
    },
    "library": {
        "casstore": Cited("Python", "../reference/api.md"),
        "skopeo": Cited("Go, of which it is the command", SKOPEO_BREW),
        "docker": Cited("an API of the daemon", "https://docs.docker.com/engine/api/"),
        "oras": Cited("Go, Python", "https://github.com/oras-project/oras-py"),
        "regctl": Cited("Go", REGCLIENT),
        "tart": Cited("not found in its documentation", TART),
    },
    "first release": {
        "casstore": Asked("**2026**", words=("casstore", "--version"), expects="casstore 0."),
        "skopeo": Cited("2018 or before", SKOPEO_WINDOWS),
        "docker": Cited("2014 or before", "https://github.com/moby/moby/pull/5848"),
        "oras": Cited("2019 or before", "https://pkg.go.dev/github.com/werf/oras"),
        "regctl": Cited("2020", REGCTL_FIRST),
        "tart": Cited("2022 or after", TART),
    },
}
