"""References to registries and layouts: what is taken, in which parts, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import InvalidReference
from casstore.reference import LayoutReference, RegistryReference, parse_host, parse_reference, parse_tag

HEX = "0123456789abcdef" * 4
DIGEST = Digest(HEX)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/a/b", RegistryReference("ghcr.io", "a/b")),
        ("ghcr.io/a/b:v1", RegistryReference("ghcr.io", "a/b", "v1")),
        (f"ghcr.io/a@{DIGEST}", RegistryReference("ghcr.io", "a", None, DIGEST)),
        (f"ghcr.io/a:v1@{DIGEST}", RegistryReference("ghcr.io", "a", "v1", DIGEST)),
        ("localhost/a", RegistryReference("localhost", "a")),
        ("localhost:5000/a:v1", RegistryReference("localhost:5000", "a", "v1")),
        ("host:5000/a", RegistryReference("host:5000", "a")),
        ("127.0.0.1:5000/a/b/c:v1", RegistryReference("127.0.0.1:5000", "a/b/c", "v1")),
        ("[::1]:5000/a", RegistryReference("[::1]:5000", "a")),
        ("GHCR.io/a", RegistryReference("ghcr.io", "a")),
        ("a.b/c__d.e-f---g_h:_X", RegistryReference("a.b", "c__d.e-f---g_h", "_X")),
        ("docker.io/alpine:3", RegistryReference("docker.io", "library/alpine", "3")),
        ("docker.io/me/alpine", RegistryReference("docker.io", "me/alpine")),
        ("oci:dir", LayoutReference("dir")),
        ("oci:dir:v1", LayoutReference("dir", "v1")),
        ("oci:/a/b", LayoutReference("/a/b")),
        ("oci:../a b/c:v1", LayoutReference("../a b/c", "v1")),
        ("oci:a:b/c", LayoutReference("a:b/c")),
        ("oci:a:b:c", LayoutReference("a:b", "c")),
        ("oci:a@b", LayoutReference("a@b")),
        ("oci:a@b:v1", LayoutReference("a@b", "v1")),
        (f"oci:dir@{DIGEST}", LayoutReference("dir", None, DIGEST)),
        (f"oci:dir:v1@{DIGEST}", LayoutReference("dir", "v1", DIGEST)),
    ],
)
def test_parse(text: str, expected: RegistryReference | LayoutReference) -> None:
    reference = parse_reference(text)
    assert reference == expected
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no registry host"),
        ("alpine", "no registry host"),
        ("library/alpine", "no registry host"),
        ("/a", "no registry host"),
        ("https://ghcr.io/a", "leave out https://$"),
        ("docker://user:canary@ghcr.io/a", "no user name or password"),
        ("docker://ghcr.io/a:v1?token=canary", "got a URL; leave out docker://$"),
        ("user:pw@ghcr.io/a", "no user name or password"),
        ("ghcr.io/", "expected a repository"),
        ("ghcr.io/A", "expected a repository"),
        ("ghcr.io/a//b", "expected a repository"),
        ("ghcr.io/a/", "expected a repository"),
        ("ghcr.io/../a", "expected a repository"),
        ("ghcr.io/a/../b", "expected a repository"),
        ("ghcr.io/a___b", "expected a repository"),
        ("ghcr.io/a..b", "expected a repository"),
        ("ghcr.io/-a", "expected a repository"),
        ("ghcr.io/a?x=1", "expected a repository"),
        ("ghcr.io/a#x", "expected a repository"),
        ("ghcr.io/a%2fb", "expected a repository"),
        ("ghcr.io/a\n", "expected a repository"),
        ("ghcr.io/é", "expected a repository"),
        ("ghcr.io/" + "a" * 248, "at most 255"),
        ("ghcr.io/a:", "tag ''"),
        ("ghcr.io/a:-x", "tag '-x'"),
        ("ghcr.io/a:v1\n", "tag 'v1"),
        ("ghcr.io/a:b/c", "tag 'b/c'"),
        ("ghcr.io/a:" + "v" * 129, "1 to 128"),
        ("ghcr.io/a@", "expected sha256"),
        ("ghcr.io/a@sha256:abc", "expected sha256"),
        (f"ghcr.io/a@sha512:{HEX}{HEX}", "expected sha256"),
        (f"ghcr.io/a@{DIGEST}\n", "expected sha256"),
        (f"ghcr.io/a@{DIGEST}@{DIGEST}", "expected a repository|tag"),
        ("ghcr.io:0/a", "registry 'ghcr.io:0'"),
        ("ghcr.io:65536/a", "registry"),
        ("ghcr.io:/a", "registry"),
        ("-a.b/c", "registry"),
        ("a..b/c", "registry"),
        ("[::1/a", "registry"),
        ("[::::]/a", "registry"),
        ("é.b/c", "registry"),
        ("oci:", "the directory is empty"),
        ("oci::v1", "the directory is empty"),
        ("oci:a\0b", "a NUL"),
        ("oci:dir:", "tag ''"),
        ("oci:dir:v 1", "tag 'v 1'"),
        ("oci:dir@sha256:abc", "expected sha256"),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidReference, match=problem) as caught:
        parse_reference(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_the_longest_name() -> None:
    text = "ghcr.io/" + "a" * 247
    assert len(text) == 255
    assert parse_reference(text) == RegistryReference("ghcr.io", "a" * 247)


def test_names() -> None:
    assert RegistryReference("h:1", "a/b", "t", DIGEST).name == "h:1/a/b"
    assert LayoutReference("d", "t", DIGEST).name == "oci:d"


@pytest.mark.parametrize(
    "text", ["a", "A.B", "1.2.3.4", "1.2.3.4:65535", "x-y.z:1", "[::ffff:1.2.3.4]", "[FE80::1]:80"]
)
def test_hosts(text: str) -> None:
    assert parse_host(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":80", "a:", "a:b", "a:-1", "a:0", "a:99999", "a:000001", "a_b", "a.", ".a", "-a", "a-", "a/b"),
        *(
            "a@b",
            "a b",
            "a\n",
            "a:1\n",
            "a\0",
            "[]",
            "[1.2.3.4]",
            "[::1",
            "::1",
            "[:::1]",
            "[::1]x",
            "[fe80::1%25eth0]",
        ),
        *("\u0660.b", "a:\u0660", "x" * 64),
    ],
    ids=ascii,
)
def test_bad_hosts(text: str) -> None:
    with pytest.raises(InvalidReference, match="expected host or host:port"):
        parse_host(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a/b", "a:b", "a\n", "é", "a" * 129])
def test_bad_tags(text: str) -> None:
    with pytest.raises(InvalidReference, match="expected 1 to 128 letters"):
        parse_tag(text)


PARTS = st.from_regex(r"[a-z0-9]{1,4}(?:[._-][a-z0-9]{1,4}){0,2}", fullmatch=True)
HOSTS = st.builds("{}.{}".format, PARTS.filter(lambda part: "_" not in part), st.sampled_from(["io", "io:5000"]))
TAGS = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True)
DIGESTS = st.none() | st.builds(Digest.of, st.binary(max_size=4))


@given(st.builds(RegistryReference, HOSTS, st.lists(PARTS, min_size=2, max_size=3).map("/".join), TAGS, DIGESTS))
def test_registry_references_round_trip(reference: RegistryReference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.builds(LayoutReference, st.from_regex(r"[a-zA-Z./ ~@-]{1,9}", fullmatch=True), TAGS, DIGESTS))
def test_layout_references_round_trip(reference: LayoutReference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=30) | st.text("ab.:/@oci-_\n", max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(reference)) == reference
