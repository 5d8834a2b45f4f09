"""casstore between three versions of microsandbox, which run here too.

What each of them made is imported, has the same id here, and what casstore writes back in that version's form is read
and verified by that version: the same digest, the same bytes, the same holes. And each form that casstore writes is
read by all three: the table of that is printed at the end of the run, and stands in docs/reference/microsandbox.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pytest

from tests.conftest import TALLY
from tests.support import disks
from tests.support.command import Casstore
from tests.support.microsandbox import (
    DIALECTS,
    VERSIONS,
    Reading,
    RealTool,
    RealToolFailed,
    Version,
    copy_artifact,
    exports,
    make_home,
    snapshots,
    unpack,
)
from tests.support.sandboxes import IMAGE, IMAGE_DIGEST

pytestmark = pytest.mark.needs("microsandbox")

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "microsandbox.md"

# What each version prints for its own artifacts (of 0.7.11: the members of the groups).
DIGESTS: Mapping[Version, Mapping[str, str]] = {
    "0.4.4": {
        "after-pip": "sha256:6812edfb73f1f92d0ab3b94064030cc77a54d7cd6007b4c1781184f7b78b304c",
        "chain-head": "sha256:6b0c50c73829616500a84a056dae5f9adf60d63515606360fa9a281abafdf793",
        "chain-mid": "sha256:2a855df00208f00a414b20b58913ae86d1d4cae5583a8aa1e4e09405d4b931e9",
        "chain-root": "sha256:6867ef42209efc6622641cd63118890ba1f206600b7483fa98427c9e6eae3fc9",
        "plain": "sha256:3d4f50b910c245b6f278f9a4fbafb06a8bc07e2f29fa20487a14d8a7aa8ff7e9",
        "tiny-integrity": "sha256:a895e4b09a640e0731837e235b2ffab34f3e2294455488c222b7408147698f90",
    },
    "0.6.18": {
        "after-pip": "sha256:e1ff97e91dbeb9cb182f538c555178171ee590864b5bf7afff091755eaf65a33",
        "chain-head": "sha256:0a67375291929040f722eecf698a97fd09a172189644e0a5eebcbf907dcdda1a",
        "chain-mid": "sha256:648b65ef3d47dc4dbfc4467b6e8f4b0bb8ecaef42c8252e9032c74a2c24a6bd3",
        "chain-root": "sha256:4f1566fafbef995cf1f3caa01a17639eec97dffd8d9ef006aa12740443f701ad",
        "plain": "sha256:a48b231d7e9cbb88aa587daf6a062a1367a1ced7849ab1909da853cc0d728c2a",
    },
    "0.7.11": {
        "snap_85c54ae41d242a4f477cb8703173e01d": (
            "sha256:34b704a7719462cf01af6cf43c0192148a1b0f93e29bf653fd852d80b0ea1327"
        ),
        "snap_cf1994c6f8a09f330f69f57a6cf09c5b": (
            "sha256:ca571b962aa935fb24a96f0d2aa5cb873412028d3eeedff73114b4fa94adee53"
        ),
        "snap_6d89838d511245e9d37028a2bd4fdf2d": (
            "sha256:c198481b46acb5064d87382301f139d79eb9f782e791ab013a33cdd9c1248cca"
        ),
    },
}
# What the exports are exports of, where their name does not say it.
EXPORTED: Mapping[Version, Mapping[str, str]] = {
    "0.4.4": {"chain-with-parents.tar.zst": "chain-head"},
    "0.6.18": {"chain-with-parents.tar": "chain-head"},
    "0.7.11": {
        "after-pip.msb": "snap_85c54ae41d242a4f477cb8703173e01d",
        "plain.tar": "snap_cf1994c6f8a09f330f69f57a6cf09c5b",
        "plain-last-layer.tar": "snap_cf1994c6f8a09f330f69f57a6cf09c5b",
        "plain-with-parents.tar": "snap_cf1994c6f8a09f330f69f57a6cf09c5b",
    },
}


@dataclass(frozen=True)
class Made:
    """What casstore gets to import, and the artifact directory of a real tool that it must be equal to."""

    source: Path
    original: Reading


def _fixtures(tool: RealTool, folder: Path) -> Iterator[Made]:
    """All directories and archives that this version made, as it made them."""
    folders = [unpack(tool.version, name, folder) for name in snapshots(tool.version)]
    if tool.version == "0.7.11":
        folders = sorted(member.parent for group in folders for member in group.rglob("snapshot.json"))
    originals = {Path(told.path).name: told for told in tool.read(*folders)}
    assert {name: told.digest for name, told in originals.items()} == DIGESTS[tool.version]
    for told in originals.values():
        yield Made(Path(told.path), told)
    for archive in exports(tool.version):
        stem = archive.name.partition(".")[0]
        yield Made(archive, originals[EXPORTED[tool.version].get(archive.name, stem)])


def _live(tool: RealTool, folder: Path) -> Iterator[Made]:
    """Two snapshots that it takes now of a stopped sandbox, and their exports."""
    folder.mkdir()
    disk = folder / "disk"
    disks.unpack_fixture("base", disk)
    for name, labels, integrity in (("first", {}, False), ("second", {"a": "b", "é": "ü\n"}, True)):
        tool.add_sandbox(name, upper=disk)  # 0.7.11 makes the next snapshot of one sandbox a child of the last one
        told = tool.create(name, name, labels=labels, integrity=integrity)
        assert (told.upper, told.error) == ("verified" if integrity else "not_recorded", "")
        assert disks.same_bytes(_disk(told), disk)
        yield Made(Path(told.path), told)
        for plain in (False, True):
            archive = folder / (f"{name}.tar" if plain else f"{name}.tar.zst")
            tool.save(told.path, archive, plain=plain)
            yield Made(archive, told)


def _disk(told: Reading) -> Path:
    """The one disk of an artifact directory."""
    [disk] = [path for path in Path(told.path).rglob("*") if path.suffix in {".ext4", ".raw"}]
    return disk


def _require_same(told: Reading, original: Reading) -> None:
    """A real tool says the same of two artifacts, and their disks are equal."""
    assert replace(told, path="") == replace(original, path="")
    _require_equal(_disk(told), _disk(original))


def _require_equal(disk: Path, original: Path) -> None:
    """The same bytes and holes. What they take may differ by what the file system needs to list their extents."""
    assert disks.same_bytes(disk, original)
    assert disks.extents(disk) == disks.extents(original)
    assert abs(disks.allocated(disk) - disks.allocated(original)) <= 2 * disks.BLOCK


@pytest.mark.parametrize("make", [_fixtures, _live], ids=["fixtures", "live"])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_version_made_comes_back_to_it(
    version: Version, make: Callable[[RealTool, Path], Iterator[Made]], casstore: Casstore, tmp_path: Path
) -> None:
    made = list(make(RealTool(version, tmp_path / "real"), tmp_path / "made"))
    out = tmp_path / "out"
    out.mkdir()
    for number, each in enumerate(made):
        name = f"s{number}"
        casstore("import", each.source, "--name", name)
        assert casstore.json("inspect", name, "--verify")["id"] == each.original.digest
        casstore("restore", name, f"{out / name}/", "--as", DIALECTS[version])
        parents = ["--with-parents"] if "with-parents" in each.source.name else []
        casstore("export", name, out / f"{name}.tar.zst", "--as", DIALECTS[version], *parents)
    tool = RealTool(version, tmp_path / "there")
    assert tool.index(out) == {each.original.digest for each in made}
    names = [f"s{number}" for number in range(len(made))]
    read = tool.read(*(out / name for name in names))
    loaded = tool.load_all(*((out / f"{name}.tar.zst", tmp_path / "loaded" / name) for name in names))
    for each, directory, archive in zip(made, read, loaded, strict=True):
        _require_same(directory, each.original)
        _require_same(archive, each.original)


def test_what_the_oldest_version_exported_in_vain(casstore: Casstore, tmp_path: Path) -> None:
    """It fills the holes of a disk that it recorded the holes of, and refuses its own archive. Here it comes in, and if
    zeros were allocated, which nobody can tell from holes any more, that is what a verification says.
    """
    disk, archive = tmp_path / "disk", tmp_path / "second.tar.zst"
    kinds: tuple[disks.Kind, ...] = ("random", "zeros", "hole", "text")
    disks.write_segments(disk, [disks.Segment(kind, 64 * disks.KIB) for kind in kinds])
    tool = make_home("0.4.4", tmp_path / "real", disk, "box")
    made = tool.create("box", "second", integrity=True)
    tool.save(made.path, archive)
    with pytest.raises(RealToolFailed, match="upper digest mismatch"):
        RealTool("0.4.4", tmp_path / "there").load(archive)
    casstore("import", archive, "--name", "refused", "--strict", code=12)
    assert "second" in casstore("import", archive).stderr
    assert casstore.json("inspect", "second")["id"] == made.digest
    assert "unverifiable" in casstore("verify", "second", code=3).stdout
    casstore("restore", "second", tmp_path / "restored")
    assert disks.same_bytes(tmp_path / "restored", disk)


CONVERSIONS: Sequence[tuple[Version, Version]] = [("0.4.4", "0.6.18"), ("0.4.4", "0.7.11"), ("0.6.18", "0.7.11")]


@pytest.mark.parametrize(("older", "newer"), CONVERSIONS, ids=[f"{older} to {newer}" for older, newer in CONVERSIONS])
def test_a_conversion_has_the_id_that_the_newer_version_gives(
    older: Version, newer: Version, casstore: Casstore, tmp_path: Path
) -> None:
    archives = exports(older)
    out = tmp_path / "out"
    out.mkdir()
    for number, archive in enumerate(archives):
        casstore("import", archive, "--name", f"s{number}")
        casstore("restore", f"s{number}", f"{out / str(number)}/", "--as", DIALECTS[newer])
        casstore("export", f"s{number}", out / f"{number}.tar.zst", "--as", DIALECTS[newer])
    theirs = RealTool(newer, tmp_path / "theirs").load_all(*((one, tmp_path / one.name) for one in archives))
    ours = RealTool(newer, tmp_path / "ours").read(*(out / str(number) for number in range(len(archives))))
    written = ((out / f"{number}.tar.zst", tmp_path / "loaded" / str(number)) for number in range(len(archives)))
    loaded = RealTool(newer, tmp_path / "there").load_all(*written)
    assert [told.digest for told in loaded] == [told.digest for told in ours]
    for told, real in zip(ours, theirs, strict=True):
        if real.error:  # 0.4.4's digest of what is allocated, under the name that means something else now
            assert (told.upper, told.algorithm) == ("verified", "sha256")
        else:
            assert told.digest == real.digest


@pytest.mark.parametrize(("older", "newer"), CONVERSIONS, ids=[f"{newer} to {older}" for older, newer in CONVERSIONS])
def test_an_older_version_reads_what_a_newer_one_made(
    older: Version, newer: Version, casstore: Casstore, tmp_path: Path
) -> None:
    made = [each for each in _fixtures(RealTool(newer, tmp_path / "real"), tmp_path / "made") if each.source.is_dir()]
    out = tmp_path / "out"
    out.mkdir()
    names = [f"s{number}" for number in range(len(made))]
    for name, each in zip(names, made, strict=True):
        casstore("import", each.source, "--name", name)
        casstore("restore", name, f"{out / name}/", "--as", DIALECTS[older])
        casstore("export", name, out / f"{name}.tar.zst", "--as", DIALECTS[older])
    tool = RealTool(older, tmp_path / "there")
    read = tool.read(*(out / name for name in names))
    loaded = tool.load_all(*((out / f"{name}.tar.zst", tmp_path / "loaded" / name) for name in names))
    for each, directory, archive in zip(made, read, loaded, strict=True):
        for told in (directory, archive):
            assert (told.error, told.upper) == ("", each.original.upper)
            assert told.labels == each.original.labels
            _require_equal(_disk(told), _disk(each.original))
        assert directory.digest == archive.digest


# --- who reads what --------------------------------------------------------------------------------------------------

INTEGRITY = {
    "none": None,
    "sha256": "sha256",
    "sparse (0.4)": "sparse",
    "sparse (0.5.8)": "sparse-zero",
    "Merkle": "blake3-merkle",
}
"""What a snapshot records, and how `casstore create --integrity` calls it."""

FORMS: Mapping[str, Sequence[str]] = {
    "archive": (),
    "archive, 0.4": ("--as", "0.4"),
    "archive, 0.6": ("--as", "0.6"),
    "archive, 0.7": ("--as", "0.7"),
    "directory, 0.4": ("--as", "0.4"),
    "directory, 0.6": ("--as", "0.6"),
    "directory, 0.7": ("--as", "0.7"),
}
"""What casstore writes, and the options that say so."""


def _make_disk(path: Path) -> None:
    """A small one that says to be ext4: in the form of 0.4 the newer versions take no others."""
    disks.random_sparse_file(path, seed=2)
    _say_ext4(path)


def _say_ext4(path: Path) -> None:
    with path.open("r+b") as out:
        out.seek(1080)
        out.write(b"\x53\xef")


def _verdict(told: Reading, disk: Path) -> str:
    """What a reader made of an artifact, in a word; what it let in must be the disk."""
    if not told.digest:
        return "refused"
    _require_equal(_disk(told), disk)
    return {"verified": "verified", "not_recorded": "read"}.get(told.upper, "read, not verifiable")


def _table(verdicts: Mapping[tuple[str, str], tuple[str, ...]]) -> str:
    """As Markdown: a row for each form, and in it one for each kind of integrity that fares differently."""
    lines = ["| written by casstore | integrity | " + " | ".join(VERSIONS) + " |", "|---|---|" + "---|" * len(VERSIONS)]
    for (form, cells), keys in groupby(verdicts, key=lambda key: (key[0], verdicts[key])):
        lines.append(f"| {form} | {', '.join(kind for _, kind in keys)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_an_archive_for_all_is_read_whatever_the_disk_was_called(casstore: Casstore, tmp_path: Path) -> None:
    disk, archive = tmp_path / "disk", tmp_path / "named.tar.zst"
    _make_disk(disk)
    casstore("create", "named", "--disk", f"rootfs.img={disk}", "--image", f"{IMAGE}@{IMAGE_DIGEST}")
    casstore("export", "named", archive)
    for version in VERSIONS:
        told = RealTool(version, tmp_path / version).load(archive)
        assert (told.upper, told.error) == ("verified", "")
        _require_equal(_disk(told), disk)


def test_a_line_of_snapshots_is_read_however_many_holes_they_have(casstore: Casstore, tmp_path: Path) -> None:
    """0.4.4 takes just one sparse map that is longer than its header; see archive/writing.py."""
    pieces = [segment for n in range(12) for segment in (disks.Segment("random", 8192, n), disks.Segment("hole", 8192))]
    parent: list[str] = []
    for name in ("first", "second", "third"):
        disks.write_segments(tmp_path / name, [*pieces, disks.Segment("text", 4096, len(parent))])
        _say_ext4(tmp_path / name)
        image = ["--image", f"{IMAGE}@{IMAGE_DIGEST}"]
        casstore("create", name, "--disk", f"upper.ext4={tmp_path / name}", *image, *parent)
        parent = ["--parent", name]
    for form, verdict in ((), "verified"), (("--as", "0.4"), "not_recorded"):
        archive = tmp_path / f"third{len(form)}.tar.zst"
        casstore("export", "third", archive, "--with-parents", *form)
        for version in VERSIONS:
            told = RealTool(version, tmp_path / version / archive.name).load(archive)
            assert (told.upper, told.error) == (verdict, "")
            assert told.parent is not None
            _require_equal(_disk(told), tmp_path / "third")


def test_who_reads_what(casstore: Casstore, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    disk = tmp_path / "disk"
    _make_disk(disk)
    names = [f"s{number}" for number in range(len(INTEGRITY))]
    for name, algorithm in zip(names, INTEGRITY.values(), strict=True):
        recorded = [f"--integrity={algorithm}"] if algorithm else []
        image = ["--image", f"{IMAGE}@{IMAGE_DIGEST}", "--label", f"name={name}"]
        casstore("create", name, "--disk", disk, *image, *recorded)
    verdicts: dict[tuple[str, str], list[str]] = {}
    for form, options in FORMS.items():
        folder = tmp_path / form
        folder.mkdir()
        written: list[Path | None] = []
        for name in names:
            target = folder / (name if "directory" in form else f"{name}.tar.zst")  # 0.4.4 goes by the file's name
            verb = ["restore", name, f"{target}/"] if "directory" in form else ["export", name, target]
            result = casstore.run(*verb, *options)
            written.append(None if result.code else target)
        for version in VERSIONS:
            # One home for each form: an artifact may have one identity in two of them, and 0.7.11 wants each once.
            tool = RealTool(version, tmp_path / "homes" / form / version)
            there = [path for path in written if path]
            if "directory" in form:
                read = iter(tool.read(*(copy_artifact(path, tool.folder / path.name) for path in there)))
            else:
                read = iter(tool.load_all(*((path, tool.folder / path.name) for path in there)))
            for kind, path in zip(INTEGRITY, written, strict=True):
                verdict = _verdict(next(read), disk) if path else "not written"
                verdicts.setdefault((form, kind), []).append(verdict)
    table = _table({key: tuple(cells) for key, cells in verdicts.items()})
    record_property(TALLY, f"\n\n{table}\n")
    for cells in (verdicts["archive", kind] for kind in INTEGRITY):
        assert cells == ["verified"] * 3, "the form that casstore writes by itself is for all of them"
    assert table in PAGE.read_text(), f"{PAGE.name} has another table:\n{table}"
