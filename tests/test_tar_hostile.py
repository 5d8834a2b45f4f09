"""Tar archives that no tool would write, or that somebody wrote to do harm: each is refused, and none takes memory.

Numbers are rows of docs/explanation/faults.md.
"""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import CorruptContent, DocumentError, UnsupportedVersion
from casstore.tar import compression, limits, reader, sparse
from casstore.tar.names import safe_path
from casstore.tar.reader import TarReader
from tests.support import tars
from tests.support.tars import END, archive, header, member, padded, pax, slots

MIB = 1 << 20
GOOD = member("a", b"data")
BIG = b"\x80" + (1 << 62).to_bytes(11, "big")


def refused(data: bytes, match: str, error: type[Exception] = DocumentError) -> None:
    with pytest.raises(error, match=match):
        tars.files(data)


# --- rows 69 and 70: names, links -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "/etc/passwd",
            "a/../../x",
            "a//b",
            ".",
            "..",
            "a/./b",
            "././a",
            "",
            "./",
            "//",
            "a/..",
            "C:/x",
            "C:x",
        ),
        *("a\\b", "\\\\host\\share", "a\nb", "a\x1b[2J", "a\u202eb", "a/"[:1] + "\x7f"),
    ],
)
def test_69_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(DocumentError, match="expected a relative path"):
        safe_path(name, subject="test")


@pytest.mark.parametrize(("name", "parts"), [("a/b", ("a", "b")), ("./a", ("a",)), ("a/b/", ("a", "b")), ("é", ("é",))])
def test_69_names_that_do_not(name: str, parts: tuple[str, ...]) -> None:
    assert safe_path(name, subject="test") == parts


def test_69_what_follows_a_nul_is_no_part_of_a_name() -> None:
    assert [each.name for each in tars.reader(archive(member(b"a\0/../../x", b"1")))] == ["a"]


def test_69_a_name_that_is_no_utf8() -> None:
    refused(archive(member(b"\xff\xfe")), "expected a name in UTF-8")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        *((b"1", "a hard link"), (b"2", "a symbolic link"), (b"3", "a character device"), (b"4", "a block device")),
        *((b"6", "a FIFO"), (b"7", "type '7'"), (b"V", "type 'V'"), (b"M", "type 'M'"), (b"\xff", "type ")),
    ],
)
def test_70_what_is_no_file_or_directory(kind: bytes, what: str) -> None:
    refused(archive(GOOD, header("b", 0, kind=kind, link=b"../../etc/passwd")), what, UnsupportedVersion)


# --- row 71: sparse members -------------------------------------------------------------------------------------------


def sparse_member(*ranges: tuple[int, int], size: int, data: bytes, extended: int = 0) -> bytes:
    head = header("s", len(data), kind=b"S", sparse=slots(*ranges, size=size, extended=extended))
    return head + tars.padded(data)


BLOCK = bytes(512)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (sparse_member((0, 512), size=256, data=BLOCK), "ranges in order within 256 bytes"),
        (sparse_member((512, 512), (0, 512), size=2048, data=BLOCK * 2), "ranges in order"),
        (sparse_member((0, 1024), (512, 512), size=2048, data=BLOCK * 3), "ranges in order"),
        (sparse_member((0, 512), size=2048, data=BLOCK * 2), "expected ranges of 1024 bytes, got 512"),
        (sparse_member((0, 100), (512, 100), size=2048, data=bytes(200)), "multiples of 512"),
        (sparse_member((0, 512), size=2048, data=BLOCK, extended=1) + BLOCK, "expected full sparse slots"),
        (header("s", 0, kind=b"S", sparse=b"\xff" * 24 + slots(size=1)[24:]), "in octal digits, got"),
    ],
)
def test_71_maps_that_break_the_rules(data: bytes, match: str) -> None:
    refused(data + END, match)


def test_71_a_huge_file_of_holes_costs_nothing() -> None:
    data = archive(sparse_member((0, 512), (64 << 30, 0), size=64 << 30, data=b"x" * 512))
    read = [(each.size, each.stored, each.read(10**9)) for each in tars.reader(data)]
    assert read == [(64 << 30, 512, b"x" * 512)]


def test_71_too_many_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "MAX_RANGES", 3)
    ranges = [(n * 1024, 512) for n in range(4)]
    refused(archive(sparse_member(*ranges, size=9000, data=BLOCK * 4)), "at most 3 sparse ranges")
    text = "4\n" + "".join(f"{offset}\n{length}\n" for offset, length in ranges)
    head = pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name="s", GNU__sparse__realsize="9000")
    refused(archive(head, member("x", tars.padded(text.encode()) + BLOCK * 4)), "at most 3 sparse ranges")


def test_71_too_many_ranges_in_all_members_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ALL_RANGES", 5)
    head = slots((0, 512), (1024, 512), (2048, 512), size=9000)
    members = [header(name, 1536, kind=b"S", sparse=head) + bytes(1536) for name in "ab"]
    assert len(tars.files(archive(members[0]))) == 1
    refused(archive(*members), "at most 5 sparse ranges in all")


@pytest.mark.parametrize(
    ("records", "data", "match"),
    [
        ({"GNU__sparse__major": "1", "GNU__sparse__minor": "1", "GNU__sparse__realsize": "9"}, b"", "map of version"),
        ({"GNU__sparse__major": "1", "GNU__sparse__minor": "0"}, b"", "expected the real size"),
        ({"GNU__sparse__map": "0,512,7", "GNU__sparse__size": "9"}, BLOCK, "pairs of numbers"),
        ({"GNU__sparse__map": "0,-1", "GNU__sparse__size": "9"}, BLOCK, "expected a number"),
        ({"GNU__sparse__map": "0,512", "GNU__sparse__size": "9" * 19}, BLOCK, "expected a number"),
        ({"GNU__sparse__numbytes": "1", "GNU__sparse__size": "9"}, BLOCK, "an offset before"[3:9]),
        ({"GNU__sparse__map": "0,512", "GNU__sparse__size": "٣"}, BLOCK, "expected a number"),
    ],
)
def test_71_maps_in_pax_headers(records: dict[str, str], data: bytes, match: str) -> None:
    refused(archive(pax(**records), member("x", data)), match)


@pytest.mark.parametrize("text", [b"x\n", b"1\n0\n", b"1\n0\n-5\n", b"9" * 600, b"1\n" + b"0" * 30 + b"\n"])
def test_71_maps_before_the_data(text: bytes) -> None:
    head = pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name="s", GNU__sparse__realsize="9000")
    refused(archive(head, member("x", text)), "expected")


# --- row 72: extended headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
@pytest.mark.parametrize("size", [2 << 30, limits.MAX_HEADERS + 1])
def test_72_extended_headers_of_gigabytes_are_not_read(kind: bytes, size: int) -> None:
    def endless(_: int) -> bytes:
        return bytes(MIB)

    head = io.BytesIO(header("x", size, kind=kind))
    with pytest.raises(DocumentError, match=f"at most {limits.MAX_HEADERS} bytes"):
        list(TarReader(lambda count: head.read(count) or endless(count), subject="test"))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
@pytest.mark.parametrize("limit", ["MAX_ALL_HEADERS", "MAX_MEMBERS"])
def test_72_extended_headers_without_end(monkeypatch: pytest.MonkeyPatch, kind: bytes, limit: str) -> None:
    """They compress to nothing: a few MB of zstd took hours to read."""
    many = []
    for n in range(4):
        text = b"name%d\0" % n if kind == b"L" else b"11 k=value\n"
        many += [member("x", text, kind=kind), *([] if kind == b"g" else [member(f"m{n}")])]
    assert len(tars.files(archive(*many, GOOD))) == (1 if kind == b"g" else 5)
    monkeypatch.setattr(reader, limit, 40 if limit == "MAX_ALL_HEADERS" and kind != b"L" else 3)
    refused(archive(*many, GOOD), "extended headers")


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_72_a_member_has_one_extended_header_of_a_kind(kind: bytes) -> None:
    """Of two, some readers believe the first and others the last."""
    text = {b"x": b"9 path=a\n", b"L": b"a\0"}[kind]
    one = member("x", text, kind=kind)
    assert list(tars.files(archive(one, member("b")))) == ["a"]
    refused(archive(one, one, member("b")), "expected one extended header . of a member, got two")
    refused(archive(one, member("x", b"", kind=kind), member("b")), "got two")
    refused(archive(member("c"), one), "expected a member after its extended header, got the end")
    refused(archive(member("c"), member("x", b"", kind=kind)), "expected a member after its extended header")


def test_73_a_size_has_to_be_a_number_where_a_record_overrides_it() -> None:
    refused(archive(pax(size="1"), header("a", b"x" * 12) + padded(b"b")), "expected a size in octal digits")
    assert tars.files(archive(pax(size="1"), header("a", 0) + padded(b"b"))) == {"a": b"b"}


@pytest.mark.parametrize("first", [b"x", b"L"])
def test_72_a_member_has_one_name(first: bytes) -> None:
    both = [pax(path="a"), member("x", b"b\0", kind=b"L")]
    refused(
        archive(*both[:: 1 if first == b"x" else -1], member("c")), "expected one name of a member, got 'b' and another"
    )
    assert list(tars.files(archive(pax(comment="c"), both[1], member("c")))) == ["b"]


@pytest.mark.parametrize("nothing", [pax(path=""), member("x", b"\0", kind=b"L"), member("x", kind=b"L")])
def test_72_an_empty_name_is_none(nothing: bytes) -> None:
    """Some readers then take that of the header."""
    refused(archive(nothing, member("c")), "expected a name of 1 to 1024 bytes, got 0")


@pytest.mark.parametrize("records", [b"5 a=\n7", b"99 a=b\n", b"x a=b\n", b"6 ab\n\n", b"0 \n", b"11 path=\xff\n\n"])
def test_72_records_that_are_none(records: bytes) -> None:
    refused(archive(member("x", records, kind=b"x"), GOOD), "expected")


@pytest.mark.parametrize("records", [{"path": "../x"}, {"size": "5"}, {"GNU__sparse__size": "5"}])
def test_72_a_global_header_must_not_say_what_members_are(records: dict[str, str]) -> None:
    block = pax(**records).replace(b"PaxHeaders/x", b"PaxHeaders/g")
    head = header("g", int(block[124:135], 8), kind=b"g")
    refused(archive(head + block[512:], GOOD), "expected a global header without")


def test_72_a_harmless_global_header_is_passed_over() -> None:
    text = b"20 comment=some text\n"
    text = b"%d comment=some text\n" % len(text)
    assert tars.files(archive(member("g", text, kind=b"g"), GOOD)) == {"a": b"data"}


def test_72_an_extended_header_of_nothing() -> None:
    refused(archive(pax(path="b")), "expected a member after its extended header")


@pytest.mark.parametrize("name", ["", "n" * (limits.MAX_NAME + 1)])
def test_72_names_without_end(name: str) -> None:
    refused(archive(member("L", name.encode() + b"\0", kind=b"L"), member(b"", b"x")), "a name of 1 to")


# --- row 73: sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        *(b"\xff" * 12, b"-0000000001\0", b"0000000009\0\0", b"0x000000010\0", b"           \0", b"\0" * 12),
        *(b"1 2        \0", b"\x80" + b"\xff" * 11, b"+0000000001\0", b"0.000000001\0"),
    ],
)
def test_73_sizes_that_are_none(size: bytes) -> None:
    refused(archive(header("a", size), bytes(512)), "expected a? ?size")


def test_73_a_size_in_pax() -> None:
    for size in ("-1", "1e3", "", "9" * 30, str(1 << 63)):
        refused(archive(pax(size=size), GOOD), "expected a number")
    assert tars.files(archive(pax(size="4"), header("a", 0) + tars.padded(b"data"))) == {"a": b"data"}


def test_73_a_size_of_exabytes_is_not_allocated() -> None:
    tracemalloc.start()
    refused(header("a", BIG) + bytes(10_000), "truncated")
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()


def test_73_a_wrong_checksum() -> None:
    refused(archive(GOOD.replace(b"a", b"b", 1)), "checksum")


def test_73_a_header_of_no_tar() -> None:
    refused(archive(header("a", 0, magic=bytes(8))), "ustar or GNU", UnsupportedVersion)
    refused(b"PK\x03\x04" + bytes(600), "expected a tar archive, plain or compressed with zstd")
    refused(bytes(1024) + b"a disk", "expected a tar archive, plain or compressed with zstd")
    refused(GOOD[:10] + b"x" + GOOD[11:], "checksum")
    refused(GOOD + b"PK\x03\x04" + bytes(600), "checksum")


def test_73_a_directory_with_content() -> None:
    refused(archive(member("d", b"data", kind=b"5")), "a directory of 0 bytes")


# --- rows 74, 76: members ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["a", "./a", "a/"])
def test_74_a_name_comes_once(other: str) -> None:
    refused(archive(GOOD, member(other, b"", kind=b"5" if other.endswith("/") else b"0")), "once, got it twice")


def test_76_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_MEMBERS", 10)
    refused(archive(*(member(f"m{n}") for n in range(11))), "at most 10 members")


def test_76_a_bomb_is_read_in_little_memory() -> None:
    """A gibibyte of zeros in 32 KiB, as a member and after the end."""
    compressor = zstandard.ZstdCompressor().compressobj(size=(1 << 30) + 512)
    packed = compressor.compress(header("zeros", 1 << 30)[:512])
    packed += b"".join(compressor.compress(bytes(MIB)) for _ in range(1024)) + compressor.flush()
    assert len(packed) < 100_000
    tracemalloc.start()
    with pytest.raises(DocumentError, match="truncated"):
        list(tars.reader(packed))
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


def test_76_archives_in_archives_are_files() -> None:
    inner = zstandard.ZstdCompressor().compress(archive(GOOD))
    assert tars.files(archive(member("inner.tar.zst", inner))) == {"inner.tar.zst": inner}


def frame(descriptor: int, rest: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + rest


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (frame(0x00, bytes([17 << 3 | 1])), "window of at most"),  # 2^27 and an eighth
        (frame(0xE0, (1 << 40).to_bytes(8, "little")), "window of at most"),  # all of it at once
        (frame(0x01, bytes([0x58, 7])), "without a dictionary"),
        (frame(0x00, bytes([0x58]) + (6 | 1000 << 3).to_bytes(3, "little")), "a zstd block of at most"),  # reserved
        (frame(0x00, bytes([0x58]) + (4 | (1 << 18) << 3).to_bytes(3, "little")), "a zstd block of at most"),
        (frame(0x08, bytes([0x58]) + bytes(40)), "zstd"),
    ],
)
def test_76_frames_that_ask_for_much(data: bytes, match: str) -> None:
    refused(data + bytes(600), match)


# --- row 77: the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 513, 515, 516, 1000, 1023, 1024, 1535])
def test_77_a_truncated_archive(cut: int) -> None:
    refused(archive(GOOD)[:cut], "truncated")


def test_77_an_archive_without_its_end() -> None:
    refused(GOOD, "truncated")
    refused(b"", "truncated")


def test_77_one_block_of_zeros_is_no_end() -> None:
    refused(GOOD + bytes(512) + GOOD + END, "two blocks of zeros")


@pytest.mark.parametrize("padding", [0, 1, 512, 10_240, 1_000_000])
def test_77_more_zeros_are_no_harm(padding: int) -> None:
    assert tars.files(archive(GOOD) + bytes(padding)) == {"a": b"data"}


def test_77_anything_else_after_the_end_is(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(archive(GOOD) + bytes(5000) + b"x", "zeros after the end")
    refused(archive(GOOD) + archive(GOOD), "zeros after the end")
    monkeypatch.setattr(reader, "MAX_PADDING", 2000)
    refused(archive(GOOD) + bytes(2001), "at most 2000 zeros")


def test_77_anything_after_the_last_frame_is_refused() -> None:
    refused(zstandard.ZstdCompressor().compress(archive(GOOD)) + b"junk", "another zstd frame or the end")


# --- all of it --------------------------------------------------------------------------------------------------------

SEED = archive(
    GOOD, pax(path="long"), member("x", b"y" * 700), sparse_member((0, 512), (4096, 0), size=4096, data=BLOCK)
)


@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_damage_anywhere_is_refused_or_harmless(changes: list[tuple[int, int]], packed: bool) -> None:
    data = bytearray(zstandard.ZstdCompressor().compress(SEED) if packed else SEED)
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(CorruptContent):
        tars.files(bytes(data))


@given(st.binary(max_size=2000))
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptContent):
        tars.files(data)


def test_an_error_of_the_source_comes_through() -> None:
    def broken(_: int) -> bytes:
        raise OSError(5, "Input/output error")

    for read in (broken, _after(zstandard.ZstdCompressor().compress(SEED)[:40], broken)):
        with pytest.raises(OSError, match="Input/output"):
            list(TarReader(compression.plain(read, subject="test"), subject="test"))


def _after(data: bytes, then: Callable[[int], bytes]) -> Callable[[int], bytes]:
    first = io.BytesIO(data)
    return lambda size: first.read(size) or then(size)
