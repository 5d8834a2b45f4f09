"""files, cat and cp on the command line: what they write, refuse and fetch."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.command import Casstore
from tests.support.disks import MIB
from tests.support.filesystems import make_image, tool, write_files
from tests.support.servers import registry

pytestmark = pytest.mark.needs("mke2fs")

ODD = b"\x1b[31m\xff\nend"
"""A name that no terminal should see, and that is no UTF-8."""
SHOWN = "\\u001b[31m\\udcff\\u000aend"
IN_SUMS = "\\u001b[31m\\udcff\\nend"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    tree = write_files(
        folder / "tree",
        {
            "etc/hosts": b"127.0.0.1 localhost\n",
            "etc/sub/a": b"a",
            "bin": bytes(range(256)),
            "large": os.urandom(3 * MIB),
        },
    )
    with open(os.path.join(os.fsencode(tree), ODD), "wb") as file:
        file.write(b"odd")
    (tree / "link").symlink_to("etc/hosts")
    (tree / "back\\slash").write_bytes(b"")
    os.mkfifo(tree / "fifo")
    (tree / "etc" / "hosts").chmod(0o640)
    for path in (tree / "etc" / "hosts", tree / "etc" / "sub"):
        os.utime(path, (10**9, 10**9))
    image = make_image(folder / "image", tree, "-t", "ext4", "-b", "4096", "-O", "extent", "-I", "256", size=16 * MIB)
    tool("debugfs", "-w", "-R", "sif /etc/hosts mtime_extra 28", image)  # 7 ns, which mke2fs has left out
    return image


@pytest.fixture
def kept(casstore: Casstore, image: Path) -> Casstore:
    casstore("create", "base", "--disk", image)
    return casstore


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_disk_with_another_format_is_to_be_restored(casstore: Casstore, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(65536))
    casstore("create", "chained", "--disk", tmp_path / "disk")
    told = casstore("files", "chained", code=16).stderr
    assert "got one of format qcow2; restore it to look into it" in told
    assert told.count("restore") == 1, "and not to mount it"


def test_names_of_a_directory(kept: Casstore) -> None:
    names = [SHOWN, "back\\slash", "bin", "etc/", "fifo", "large", "link", "lost+found/"]
    assert kept("files", "base").lines == names
    assert kept("files", "base", "/etc").lines == ["hosts", "sub/"]
    assert kept("files", "base", "etc/", "-R").lines == ["hosts", "sub/", "sub/a"]
    assert kept("files", "base", "/etc/hosts").lines == ["/etc/hosts"]
    assert kept("files", "base", "/link").lines == ["/link"]
    assert kept("files", "base", "/lost+found").out == b""
    raw = kept("files", "base", "-0").out
    assert raw.startswith(ODD + b"\0back\\slash\0bin\0etc/\0")
    assert raw.endswith(b"lost+found/\0")
    assert kept("files", "base", "/none", code=10).stderr == "error: base: expected a file at '/none', got none\n"


def test_the_long_form(kept: Casstore) -> None:
    head, hosts, sub = kept("files", "base", "/etc", "-l").lines
    owner = f"{os.getuid():>6}  {os.getgid():>6}"
    assert head.split() == ["MODE", "UID", "GID", "SIZE", "MODIFIED", "(UTC)", "NAME"]
    assert hosts == f"-rw-r-----  {owner}        20 B    2001-09-09 01:46:40    hosts"
    assert sub.startswith("drwx")
    assert sub.endswith("    2001-09-09 01:46:40    sub/")
    assert kept("files", "base", "-l").lines[-2].endswith("    link -> etc/hosts")
    (_, *lines) = kept("files", "base", "/etc", "-l", "--sha256").lines
    assert [line.split()[-2][:8] for line in lines] == ["081ef9d5", "-"]


def test_digests_are_those_of_sha256sum(kept: Casstore, image: Path) -> None:
    listed = kept("files", "base", "-R", "--sha256").stdout
    ours = [line for line in listed.splitlines() if not line.endswith(IN_SUMS)]
    assert any(line.startswith("\\") and line.endswith("  back\\\\slash") for line in ours)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input="\n".join([*ours, ""]).encode(),
        cwd=image.parent / "tree",
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b": OK") == len(ours) == 5
    raw = kept("files", "base", "-R", "--sha256", "-0").out.split(b"\0")
    assert sorted(line.partition(b"  ")[2] for line in raw[:-1]) == sorted(
        [ODD, b"back\\slash", b"bin", b"etc/hosts", b"etc/sub/a", b"large"]
    )


def test_the_document(kept: Casstore) -> None:
    document = kept.json("files", "base", "etc", "-R", "--sha256")
    assert (document["subject"], document["path"], document["problems"]) == ("base", "etc", [])
    hosts, sub, a = document["files"]
    assert hosts == {
        "path": "/etc/hosts",
        "type": "file",
        "mode": "0640",
        "uid": os.getuid(),
        "gid": os.getgid(),
        "size_bytes": 20,
        "mtime": "2001-09-09T01:46:40.000000007Z",
        "target": None,
        "inode": hosts["inode"],
        "links": 1,
        "sha256": "081ef9d5367595d16e30b4b4549d9f43537320508b4ce0788963e10e4f808857",
    }
    assert (sub["type"], sub["sha256"], a["path"]) == ("directory", None, "/etc/sub/a")
    assert kept.json("files", "base", "/lost+found")["files"] == []
    odd, *_, link, _ = kept.json("files", "base")["files"]
    assert odd["path"].encode("utf-8", "surrogateescape") == b"/" + ODD
    assert (link["target"], link["type"], odd["sha256"]) == ("etc/hosts", "symlink", None)
    assert kept("files", "base", "/etc", "--format", "{mode} {path}").lines[0] == "0640 /etc/hosts"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["files", "base", "-0", "-l"], "--null: expected neither --long nor --json"),
        (["files", "base", "-0", "--json"], "--null: expected neither --long nor --json"),
        (["files", "base", "-l", "--json"], "--long: expected no --json"),
        (["cp", "base", "/", "-", "-f"], "--force: expected a path as DEST, got -"),
        (["cp", "base", "/", "-", "--owners"], "--owners: expected a path as DEST, got -"),
        (["cp", "base", "/", ""], "destination '': expected a path"),
    ],
)
def test_words_that_do_not_go_together(kept: Casstore, words: list[str], says: str) -> None:
    assert says in kept(*words, code=2).stderr


def test_what_is_damaged_or_encrypted_is_told_and_the_rest_is_listed(
    casstore: Casstore, image: Path, tmp_path: Path
) -> None:
    shutil.copyfile(image, tmp_path / "image")
    tool("debugfs", "-w", "-R", "sif /bin flags 0x80800", tmp_path / "image")
    tool("debugfs", "-w", "-R", "sif /etc flags 0x80800", tmp_path / "image")
    casstore("create", "base", "--disk", tmp_path / "image")
    document = casstore.json("files", "base", "-R", "--sha256", code=16)
    assert {file["path"]: file["sha256"] for file in document["files"]}["/bin"] is None
    assert len(document["problems"]) == 2
    done = casstore("files", "base", "-R", code=16)
    assert "etc/" in done.lines
    assert "etc/hosts" not in done.lines
    assert "'/etc': expected what can be read, got what the file system has encrypted" in done.stderr
    told = casstore("cat", "base", "/bin", code=16).stderr
    assert "'/bin': expected what can be read, got what the file system has encrypted" in told
    casstore("cp", "base", "/", tmp_path / "copy", code=16)
    assert not (tmp_path / "copy").exists()


# --- cat -------------------------------------------------------------------------------------------------------------


def test_content_goes_out_as_it_is(kept: Casstore, image: Path) -> None:
    tree = image.parent / "tree"
    assert kept("cat", "base", "/link", "bin").out == b"127.0.0.1 localhost\n" + bytes(range(256))
    assert kept("cat", "base", "/large").out == (tree / "large").read_bytes()
    told = kept("cat", "base", "/etc", code=10).stderr
    assert told == "error: base: '/etc': expected a file, got a directory; casstore files base /etc lists it\n"
    assert "got a fifo" in kept("cat", "base", "/fifo", code=10).stderr


def test_a_terminal_sees_text_only(kept: Casstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casstore.cli.env._is_terminal", lambda _: True)
    assert kept("cat", "base", "/etc/hosts").stdout == "127.0.0.1 localhost\n"
    shown = kept("cat", "base", "/bin").stdout
    assert "\x1b" not in shown
    assert "\\u001b" in shown
    assert "\\udcff" in shown
    assert "\t\n" in shown
    assert "expected a pipe or file as standard output" in kept("cp", "base", "/", "-", code=2).stderr


def test_a_reader_that_has_gone(kept: Casstore) -> None:
    for words in (
        ["cat", "base", "/large"],
        ["files", "base", "-R"],
        ["files", "base", "-0"],
        ["cp", "base", "/", "-"],
    ):
        reader, writer = os.pipe()
        os.close(reader)
        with kept.start(*words, "-q", stdout=writer) as process:
            os.close(writer)
            _, told = process.communicate(timeout=60)
        assert process.returncode != 0
        assert told == b"" or b"fifo: left out" in told


# --- cp --------------------------------------------------------------------------------------------------------------


def test_a_copy_says_where_it_is_and_what_was_left_out(kept: Casstore, tmp_path: Path) -> None:
    done = kept("cp", "base", "/", tmp_path / "copy")
    assert done.lines == [str(tmp_path / "copy")]
    assert "warning: /fifo: left out: fifo" in done.stderr
    assert "copied /: 6 files, 4 directories, 1 symlink, 3.0 MiB, " in done.stderr
    assert (tmp_path / "copy" / "etc" / "hosts").stat().st_mtime_ns == 10**18 + 7
    assert kept("cp", "base", "/etc/hosts", tmp_path, "-q").stderr == ""
    assert "exists already" in kept("cp", "base", "/etc/hosts", tmp_path, code=15).stderr
    kept("cp", "base", "/etc/hosts", tmp_path, "-f")
    assert "expected a regular file or directory, got a fifo" in kept("cp", "base", "/fifo", tmp_path, code=10).stderr


def test_a_copy_to_standard_output_is_a_tar(kept: Casstore, tmp_path: Path) -> None:
    (tmp_path / "out.tar").write_bytes(kept("cp", "base", "/etc", "-").out)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["etc", "etc/hosts", "etc/sub", "etc/sub/a"]
        hosts = archive.getmember("etc/hosts")
        assert (hosts.mode, hosts.uid, hosts.pax_headers["mtime"]) == (0o640, os.getuid(), "1000000000.000000007")
        extracted = archive.extractfile(hosts)
        assert extracted is not None
        assert extracted.read() == b"127.0.0.1 localhost\n"


def test_owners_are_given_by_root_only(kept: Casstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--owners: expected to run as root" in kept("cp", "base", "/", tmp_path / "copy", "--owners", code=2).stderr


# --- disks without such files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["files", "s1"], ["cat", "s1", "/file"], ["cp", "s1", "/", "OUT"]])
def test_other_disks_say_what_they_are_and_what_to_do(casstore: Casstore, tmp_path: Path, verb: list[str]) -> None:
    words = [word.replace("OUT", str(tmp_path / "out")) for word in verb]
    (tmp_path / "xfs").write_bytes(b"XFSB".ljust(MIB, b"\0"))
    casstore("create", "s1", "--disk", tmp_path / "xfs")
    told = casstore(*words, code=16).stderr
    assert "s1: expected ext2, ext3 or ext4, got XFS; casstore restore writes the disk to a file" in told
    casstore("push", "s1", f"oci:{tmp_path / 'layout'}:s1")
    words[1] = f"oci:{tmp_path / 'layout'}:s1"
    assert "casstore pull, then casstore restore writes the disk" in casstore(*words, code=16).stderr
    assert not (tmp_path / "out").exists()


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.mark.needs("docker-registry")
def test_a_snapshot_in_a_registry_is_looked_into_there(kept: Casstore, there: Casstore, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as running:
        place = f"{running.host}/team/disks:base"
        kept("push", "base", place, "--plain-http", "-q")
        done = there("cat", place, "/etc/hosts", "--plain-http")
        assert done.out == b"127.0.0.1 localhost\n"
        assert done.stderr.startswith("fetched ")
        assert there("files", place, "-R", "--plain-http", "-q").out == kept("files", "base", "-R").out
        assert there("files", place, "--plain-http", "-q").stderr == ""
        listed = there.json("files", place, "-R", "--sha256", "--plain-http")
        assert listed["files"] == kept.json("files", "base", "-R", "--sha256")["files"]
        there("cp", place, "/etc", tmp_path / "etc", "--plain-http")
    assert (tmp_path / "etc" / "sub" / "a").read_bytes() == b"a"
    assert not there.store.exists()


def test_what_must_be_signed_is_not_looked_into_unsigned(kept: Casstore, tmp_path: Path) -> None:
    kept("key", "generate", tmp_path / "release", "--no-passphrase", "-q")
    place = f"oci:{tmp_path}/layout:base"
    kept("push", "base", place, "-q")
    for words in (["files", place], ["cat", place, "/etc/hosts"], ["cp", place, "/", str(tmp_path / "out")]):
        assert kept(*words, "--key", tmp_path / "release.pub", code=13).stdout == ""
    assert not (tmp_path / "out").exists()
    assert kept("files", place, "/etc").lines == ["hosts", "sub/"]
