"""casstore.tar reads what others write, and they read what it writes: Python's tarfile, GNU tar, and microsandbox."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.disk import DiskSource
from casstore.errors import DocumentError, UnsupportedVersion
from casstore.tar import compression, fields
from casstore.tar.compression import Output
from casstore.tar.sparse import Ranges, rounded, within_header
from casstore.tar.stream import Buffered
from casstore.tar.writer import TarWriter
from tests.support import tars
from tests.support.microsandbox import FIXTURES

MICROSANDBOX_ARCHIVES = sorted(FIXTURES.glob("0.[67]*/exports/*.tar"))
GNU_FORMATS = (
    ("--format=gnu",),
    ("--format=posix", "--sparse-version=0.0"),
    ("--format=posix", "--sparse-version=0.1"),
    ("--format=posix", "--sparse-version=1.0"),
)


@st.composite
def sparse_files(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A size, and extents in it: (offset, length), in order, not touching."""
    gaps = draw(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), max_size=60))
    extents, at = [], draw(st.sampled_from([0, 0, 4096])) - 1
    for gap, length in gaps:
        extents.append((at + gap, length))
        at += gap + length
    return at + 1 + draw(st.sampled_from([0, 1, 511, 512, 100_000])), extents


def content_of(size: int, extents: Sequence[tuple[int, int]]) -> bytes:
    """A file that is not zero in its extents, and nowhere else."""
    file = bytearray(size)
    for offset, length in extents:
        file[offset : offset + length] = bytes(1 + (offset + n) % 255 for n in range(length))
    return bytes(file)


def ranges_for(size: int, extents: Sequence[tuple[int, int]]) -> Ranges:
    return rounded(np.array(extents, np.int64).reshape(-1, 2), size)


def write_sparse(name: str, data: bytes, ranges: Ranges | None) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    rows = [[0, len(data)]] if ranges is None else ranges.tolist()
    writer.stream(name, len(data), ranges, (data[offset : offset + length] for offset, length in rows))
    writer.close()
    return out.getvalue()


# --- what it writes ---------------------------------------------------------------------------------------------------


@given(sparse_files())
def test_a_map_within_the_header_keeps_the_largest_holes(file: tuple[int, list[tuple[int, int]]]) -> None:
    whole = ranges_for(*file)
    few = within_header(whole)
    assert len(few) == min(len(whole), 4)
    starts, ends = whole[:, 0].tolist(), whole.sum(axis=1).tolist()
    assert [few[0, 0], few[-1].sum()] == [starts[0], ends[-1]]
    holes = sorted(start - end for end, start in zip(ends, starts[1:], strict=False))
    kept = [(end, start) for end, start in zip(few.sum(axis=1).tolist(), few[1:, 0].tolist(), strict=False)]
    assert set(kept) <= set(zip(ends, starts[1:], strict=False))
    assert sorted(start - end for end, start in kept) == holes[-3:]
    data = content_of(*file)
    written = write_sparse("disk", data, few)
    assert written[482] == 0
    assert tars.files(written) == {"disk": data}


@pytest.mark.parametrize("path", MICROSANDBOX_ARCHIVES, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_sparse_members_are_written_byte_for_byte_as_microsandbox_does(path: Path, tmp_path: Path) -> None:
    """From the file that it wrote them of: the same extents give the same headers, ranges and bytes."""
    raw = path.read_bytes()
    sparse = 0
    for each in tars.reader(raw):
        if each.ranges is None:
            continue
        sparse += 1
        data = tars.content(each)
        file = tmp_path / "disk"
        with file.open("wb") as out:
            out.truncate(each.size)
            for offset, length in each.ranges.tolist():
                out.seek(offset)
                out.write(data[offset : offset + length])
        with DiskSource.open(file) as source:
            ranges = rounded(np.array(list(source.extents()), np.int64).reshape(-1, 2), each.size)
        written = io.BytesIO()
        header = raw[raw.index(each.name.encode() + b"\0") :]
        writer = TarWriter(written.write, mtime=int(header[136:147], 8))
        writer.stream(each.name, each.size, ranges, (data[at : at + length] for at, length in ranges.tolist()))
        assert written.getvalue() in raw
    assert sparse >= 1


@given(sparse_files())
def test_python_reads_what_is_written(file: tuple[int, list[tuple[int, int]]]) -> None:
    size, extents = file
    data = content_of(size, extents)
    written = write_sparse("dir/disk.raw", data, ranges_for(size, extents))
    with tarfile.open(fileobj=io.BytesIO(written)) as opened:
        [member] = opened.getmembers()
        extracted = opened.extractfile(member)
        assert extracted is not None
        assert (member.name, member.size, member.mtime, member.uid) == ("dir/disk.raw", size, 0, 0)
        assert extracted.read() == data
    assert tars.files(written) == {"dir/disk.raw": data}


@settings(max_examples=10)
@given(sparse_files())
def test_gnu_tar_reads_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[int, list[tuple[int, int]]]
) -> None:
    size, extents = file
    data = content_of(size, extents)
    folder = tmp_path_factory.mktemp("gnu")
    written = write_sparse("disk.raw", data, ranges_for(size, extents))
    subprocess.run(["tar", "-xf", "-", "-C", folder], input=written, check=True)
    assert (folder / "disk.raw").read_bytes() == data


def test_a_file_of_more_than_8_gib_is_written_with_numbers_in_base_256() -> None:
    size = 5 << 40
    ranges = np.array([[4 << 40, 512], [size, 0]], np.int64)
    out = io.BytesIO()
    TarWriter(out.write).stream("big", size, ranges, [b"x" * 512])
    [each] = list(tars.reader(out.getvalue() + tars.END))
    assert each.ranges is not None
    assert (each.size, each.stored, each.ranges.tolist()) == (size, 512, ranges.tolist())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue() + tars.END)) as opened:
        assert opened.getmembers()[0].size == size


def test_the_same_members_give_the_same_bytes() -> None:
    assert write_sparse("a", b"data", None) == write_sparse("a", b"data", None)


def test_too_many_or_too_few_bytes_for_a_member_are_noticed() -> None:
    for pieces in ([b"12"], [b"1234"]):
        with pytest.raises(ValueError, match="bytes too few"):
            TarWriter(io.BytesIO().write).stream("a", 3, None, pieces)


# --- what it reads ----------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(sparse_files())
@pytest.mark.parametrize("options", GNU_FORMATS, ids=lambda options: options[-1])
def test_sparse_members_of_gnu_tar_are_read(
    tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...], file: tuple[int, list[tuple[int, int]]]
) -> None:
    size, extents = file
    data = content_of(size, extents)
    folder = tmp_path_factory.mktemp("gnu")
    with (folder / "disk.raw").open("wb") as out:
        out.truncate(size)
        for offset, length in extents:
            out.seek(offset)
            out.write(data[offset : offset + length])
    made = subprocess.run(
        ["tar", *options, "-S", "-cf", "-", "-C", folder, "disk.raw"], capture_output=True, check=True
    )
    assert tars.files(made.stdout) == {"disk.raw": data}


NAMES = (
    st.lists(st.text("abcXYZ09._-é😀 ", min_size=1, max_size=60), min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda name: len(name.encode()) <= 255 and "/./" not in f"/{name}/" and "/../" not in f"/{name}/")
)


@given(
    st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_python_writes_is_read(files: dict[str, bytes], form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if form == tarfile.PAX_FORMAT else 1
            opened.addfile(info, io.BytesIO(data))
    assert tars.files(out.getvalue()) == files


def test_a_name_in_two_parts_is_read() -> None:
    out = io.BytesIO()
    name = "/".join(["d" * 60] * 3)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as opened:
        opened.addfile(tarfile.TarInfo(name))
    assert list(tars.files(out.getvalue())) == [name]


def test_what_is_not_read_of_a_member_is_passed_over() -> None:
    data = tars.of_files({"a": b"x" * 1000, "b": b"y" * 700, "c": b"z"})
    got = [(each.name, each.read(5)) for each in tars.reader(data)]
    assert got == [("a", b"xxxxx"), ("b", b"yyyyy"), ("c", b"z")]


@given(st.integers(0, 2**63 - 1), st.sampled_from([8, 12]))
def test_numbers_come_back(value: int, width: int) -> None:
    if value < 1 << 8 * (width - 1):
        assert fields.number(fields.format_number(value, width), subject="x", what="a number") == value


# --- compression ------------------------------------------------------------------------------------------------------

PLAIN = tars.of_files({"a": b"some text, " * 40_000, "b": bytes(300_000)})


def compressed(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]


SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
FRAMES = {
    "one": compressed(PLAIN),
    "with a checksum": compressed(PLAIN, write_checksum=True),
    "several": b"".join(compressed(PLAIN[at : at + 100_000]) for at in range(0, len(PLAIN), 100_000)),
    "skippable ones between": SKIPPABLE + compressed(PLAIN[:9]) + SKIPPABLE + compressed(PLAIN[9:]) + SKIPPABLE,
    "empty ones between": compressed(b"") + compressed(PLAIN) + compressed(b""),
}
_streaming = zstandard.ZstdCompressor(level=19).compressobj()
FRAMES["without a size"] = _streaming.compress(PLAIN) + _streaming.flush()


@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES.keys())
def test_frames_are_read_as_one_stream(frames: bytes) -> None:
    read = compression.plain(Dribble(frames).read, subject="test")
    assert b"".join(iter(lambda: read(10_000), b"")) == PLAIN


class Dribble:
    """Gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, 1000))


@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES.keys())
def test_a_stream_that_ends_too_early_is_noticed_wherever(frames: bytes) -> None:
    ends = {0, len(frames)}
    at = 0
    while (at := frames.find(b"\x28\xb5\x2f\xfd", at + 1)) > 0:
        ends.add(at)
    at = 0
    while (at := frames.find(SKIPPABLE, at + 1)) > 0:
        ends |= {at, at + len(SKIPPABLE)}
    ends.add(len(SKIPPABLE))
    cuts = [*range(1, 30), *range(30, len(frames), 97), *range(len(frames) - 30, len(frames))]
    for cut in sorted(set(cuts) - ends):
        with pytest.raises(DocumentError):
            list(tars.reader(frames[:cut]))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_is_compressed_comes_back_and_is_one_frame(workers: int) -> None:
    out = io.BytesIO()
    output = Output(out.write, compress=True, workers=workers)
    for at in range(0, len(PLAIN), 70_000):
        output.write(memoryview(PLAIN)[at : at + 70_000])
    output.close()
    assert zstandard.ZstdDecompressor().stream_reader(out.getvalue()).read() == PLAIN
    assert tars.files(out.getvalue()) == tars.files(PLAIN)


def test_what_is_compressed_is_the_same_whatever_the_number_of_workers() -> None:
    data = random.Random(1).randbytes(1 << 16) * 400 + PLAIN * 5
    made = set()
    for workers in (0, 1, 2, 5):
        out = io.BytesIO()
        output = Output(out.write, compress=True, workers=workers)
        for at in range(0, len(data), 300_000 + workers):
            output.write(data[at : at + 300_000 + workers])
        output.close()
        made.add(out.getvalue())
    assert len(made) == 1


@given(st.binary(max_size=3000), st.lists(st.integers(1, 400), max_size=20))
def test_looking_ahead_takes_nothing(data: bytes, sizes: list[int]) -> None:
    stream, at = Buffered(io.BytesIO(data).read), 0
    for size in sizes:
        assert stream.peek(size) == data[at : at + size]
        assert stream.take(size) == data[at : at + size]
        at += size


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_other_compressions_are_named(compress: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UnsupportedVersion, match=r"plain or compressed with zstd, got (gzip|bzip2|xz)"):
        tars.reader(compress(PLAIN))
