"""Names and selectors (fault 65): one grammar, so that a name is safe as a file name, a tag and an OCI ref.name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import InvalidDigest, InvalidName
from casstore.names import DigestPrefix, is_reserved, parse_disk_name, parse_name, parse_selector
from casstore.reference import parse_tag

HEX = "0123456789abcdef" * 4

GOOD = [
    *("a", "A", "0", "after-pip", "v1.2.3", "a_b", "a--b", "a-b.c_d--e", "index.json", "CON", "NUL", "latest"),
    *("a" * 128, "sha256", f"sha256-{HEX[:-1]}", f"sha256-{HEX}0", f"sha256-{HEX.upper()}", f"sha256-{HEX}-x"),
]
BAD = [
    *("", ".", "..", "-", "_", "-x", ".x", "_x", "x-", "x.", "x_", "a..b", "a__b", "a---b", "a.-b", "a-_b", "a--"),
    *("a/b", "/a", "../a", "a\\b", "%2e%2e", "a%2fb", "a\0", "\0", "v1\n", "v1\r", " v1", "v1 ", "a b", "a\tb"),
    *("~a", "a:b", "a@b", "a+b", "a*", "$a", "a\x1b[2J", "a\x9b", "a\u202e", "a\u200b", "a\u2028"),
    *("é", "e\u0301", "\uff41", "\u0660", "ß", "😀", "a" * 129, "a" * 10_000, ".lock", ".tmp", "\ud800"),
    *(f"sha256:{HEX}", "sha256:abcdef"),
]


@pytest.mark.parametrize("text", GOOD, ids=ascii)
def test_good_names(text: str) -> None:
    assert parse_name(text) == text
    assert parse_selector(text) == text
    assert parse_tag(text) == text


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text[:20]))
def test_bad_names(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name(text)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", [f"sha256-{HEX}", f"sha256-{HEX}.sig", f"sha256-{HEX}.", f"sha256-{HEX}.a-b_c.d"])
def test_reserved_names(text: str) -> None:
    assert is_reserved(text)
    with pytest.raises(InvalidName):
        parse_name(text)


def test_reserved_names_say_why() -> None:
    with pytest.raises(InvalidName, match="reserved for signatures"):
        parse_name(f"sha256-{HEX}.sig")


@pytest.mark.parametrize("text", [f"sha256-{HEX}\n", f"sha256-{HEX}x", f"x-sha256-{HEX}", f"sha256-{HEX}.a/b", "a"])
def test_not_reserved(text: str) -> None:
    assert not is_reserved(text)


@pytest.mark.parametrize("length", [6, 7, 12, 63, 64])
def test_selectors_of_digests(length: int) -> None:
    assert parse_selector(f"sha256:{HEX[:length]}") == DigestPrefix(HEX[:length])
    assert str(DigestPrefix(HEX[:length])) == f"sha256:{HEX[:length]}"


@pytest.mark.parametrize(
    "text",
    ["sha256:", "sha256:abcde", f"sha256:{HEX}0", "sha256:ABCDEF", "sha256:abcdef\n", "sha256:../..", "sha256:xyz123"],
)
def test_bad_selectors_of_digests(text: str) -> None:
    with pytest.raises(InvalidDigest, match="6 to 64 lower-case hex digits"):
        parse_selector(text)


@pytest.mark.parametrize("text", ["sha512:abcdef", "SHA256:abcdef", "", "a/b", "@x"])
def test_bad_selectors(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_selector(text)


@given(st.text(max_size=8) | st.text("aB0._-/", max_size=8) | st.from_regex(r"[A-Za-z0-9]+(([._-]|--)[A-Za-z0-9]+)*"))
def test_grammar(text: str) -> None:
    """The grammar once more, by splitting."""
    words = re.split("[._]|(?<!-)--?(?!-)", text)
    good = len(text) <= 128 and all(word and word.isascii() and word.isalnum() for word in words)
    if good:
        assert parse_name(text) == text
    else:
        with pytest.raises(InvalidName):
            parse_name(text)


@pytest.mark.parametrize("text", ["a", "root", "disk-1", "0", "0.", "a-", "a.b_c", "x" * 64])
def test_disk_names(text: str) -> None:
    assert parse_disk_name(text) == text


BAD_DISKS = ["", ".", "..", "...", "-", "-rf", ".profile", "_x", "A", "a/b", "a\n", "a b", "x" * 65]
BAD_DISKS += ["manifest.json", "snapshot.json"]


@pytest.mark.parametrize("text", [*BAD_DISKS, "é", "\u0660", "a\0"])
def test_bad_disk_names(text: str) -> None:
    with pytest.raises(InvalidName, match="disk name"):
        parse_disk_name(text)
