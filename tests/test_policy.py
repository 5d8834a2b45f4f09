"""casstore.policy.toml: half a policy is none. Row 103 (who is asked), 53, 57 and 62 (what a document may be)."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.digest import Digest
from casstore.errors import CasstoreError, InvalidPolicy, InvalidReference, UsageError
from casstore.reference import parse_reference
from casstore.schema import validate
from casstore.signatures.keys import MAX_KEY_FILE, PrivateKey
from casstore.signatures.reasons import Reason
from casstore.trust.baseimage import BaseImage
from casstore.trust.decision import MAX_TRIED
from casstore.trust.policy import MAX_POLICY, RULE_KEYS, TOP_KEYS, Policy
from casstore.trust.policyfile import read_policy
from casstore.trust.requirement import Requirement
from casstore.trust.scopes import Scope, place_of, place_parts
from casstore.trust.trust import Trust
from tests.support.signing import key

KEYS = {"release.pub": key("release").public.to_pem(), "ann.pub": key("ann").public.to_pem()}
KEYS["again.pub"] = KEYS["release.pub"]
HEAD = 'version = 1\ndefault = "refuse"\n'
NAMED = HEAD + '[keys]\nrelease = "release.pub"\nann = "ann.pub"\nagain = "again.pub"\n'
RULE = '[[rules]]\nscope = "registry.example/team"\nrequire = "signed"\nkeys = ["release"]\n'
TWICE = NAMED + RULE.replace('"release"', '"release", "again"')


def read_key(name: str) -> bytes:
    if name not in KEYS:
        raise FileNotFoundError(2, "No such file or directory", name)
    return KEYS[name]


def parse(text: str | bytes) -> Policy:
    raw = text if isinstance(text, bytes) else text.encode()
    return Policy.parse(raw, subject="policy 'p.toml'", read_key=read_key)


def requirement(text: str, place: str = "registry.example/team/disks") -> Requirement:
    asked = parse(text).rule_for(place).requirement
    assert asked is not None
    return asked


def write(path: Path, text: str = NAMED + RULE) -> Path:
    for name, raw in KEYS.items():
        (path / name).write_bytes(raw)
    (path / "casstore.policy.toml").write_text(text)
    return path / "casstore.policy.toml"


def test_a_rule_asks_what_it_says() -> None:
    rest = (
        'threshold = 2\nsigned_for = ["other.example:5000/x"]\nrepository = "always"\nmax_age = "90d"\n'
        'base_images = ["docker.io/library/alpine"]\nno_rollback = true\n'
    )
    asked = requirement(NAMED + RULE.replace('["release"]', '["release", "ann"]') + rest)
    assert asked == Requirement(
        told="policy 'p.toml', rule for registry.example/team",
        signed=True,
        keys=(key("release").public, key("ann").public),
        threshold=2,
        signed_for=(Scope("other.example:5000/x", ("other.example:5000", "x")),),
        repository_always=True,
        max_age=timedelta(days=90),
        base_images=(BaseImage("docker.io/library/alpine"),),
        no_rollback=True,
    )


def test_what_a_rule_leaves_out_asks_for_one_signature() -> None:
    asked = requirement(NAMED + RULE)
    assert asked == Requirement(told=asked.told, signed=True, keys=(key("release").public,))


def test_the_default_is_for_places_without_a_rule() -> None:
    refusing = parse(NAMED + RULE).rule_for("elsewhere.example/x")
    assert refusing.requirement is not None
    assert refusing.requirement.refuse
    accepting = NAMED.replace("refuse", "accept") + RULE
    assert parse(accepting).rule_for("elsewhere.example/x").requirement is None


@pytest.mark.parametrize("require", ["unsigned", "refuse"])
def test_what_is_not_signed_is_said_so(require: str) -> None:
    rule = f'[[rules]]\nscope = "registry.example/team"\nrequire = "{require}"\n'
    asked = parse(HEAD + rule).rule_for("registry.example/team/disks").requirement
    assert asked is None if require == "unsigned" else (asked is not None and asked.refuse)


def test_unsigned_content_may_be_kept_from_going_back() -> None:
    asked = requirement(HEAD + '[[rules]]\nscope = "*"\nrequire = "unsigned"\nno_rollback = true\n')
    assert asked.no_rollback
    assert not asked.signed


def test_a_key_may_stand_in_the_policy_itself() -> None:
    text = HEAD + f'[keys]\nrelease = """\n{KEYS["release.pub"].decode()}"""\n' + RULE
    assert requirement(text).keys == (key("release").public,)


def test_two_names_for_one_key_are_one_key() -> None:
    assert requirement(TWICE).keys == (key("release").public,)


BAD: list[tuple[str, str | bytes, str]] = [
    ("an unknown key", HEAD + "trust = 1\n", r"'trust' was unexpected.*; expected only version, default, keys, rules"),
    ("an unknown key in a rule", NAMED + RULE + "treshold = 2\n",
        r"'treshold' was unexpected.*; expected only scope, require, keys, .*at rules\[0\]"),
    ("an unknown table", HEAD + "[options]\n", "'options' was unexpected"),
    ("no version", 'default = "refuse"\n', "'version' is a required property"),
    ("no default", "version = 1\n", "'default' is a required property"),
    ("another default", HEAD.replace("refuse", "ask"), "'ask' is not one of"),
    ("a later version", HEAD.replace("1", "2"), "expected version 1, got 2"),
    ("a later version with what it may have", HEAD.replace("1", "2") + "more = 1\n", "expected version 1, got 2"),
    ("a fraction", HEAD.replace("1", "1.0"), "expected whole numbers, got 1.0"),
    ("infinity", HEAD.replace("1", "inf"), "expected whole numbers, got inf"),
    ("a number as long as a page", HEAD.replace("1", "1" * 5000), "expected TOML"),
    ("a truth as version", HEAD.replace("1", "true"), "1 was expected"),
    ("a key twice", HEAD + 'default = "accept"\n', "expected TOML"),
    ("no TOML", "{", "expected TOML"),
    ("a depth", b"a = " + b"[" * 100_000, "expected TOML"),
    ("too large", b"#" * (MAX_POLICY + 1), f"expected at most {MAX_POLICY} bytes"),
    ("no UTF-8", HEAD.encode() + b"# \xff", "expected UTF-8, got byte 0xff"),
    ("UTF-16", HEAD.encode("utf-16"), "expected UTF-8"),
    ("a NUL", HEAD + "# \0\n", "expected TOML"),
    ("a file of no key", NAMED.replace("ann.pub", "bob.pub"), r"a file with a public key.*'bob.pub'.*keys.ann"),
    ("a key that is none", HEAD + '[keys]\na = "-----BEGIN PUBLIC KEY-----"\n', r"keys\.a"),
    ("a key of a number", HEAD + "[keys]\na = 1\n", r"not of type 'string'.*at keys\.a"),
    ("a table of keys in keys", HEAD + '[keys]\na.b = "release.pub"\n', r"at keys\.a"),
    ("a key's name with a line", HEAD + '[keys]\n"a\\n" = "release.pub"\n', "does not match"),
    ("a scope of nothing", NAMED + RULE.replace("registry.example/team", ""), r"at rules\[0\].scope"),
    ("a scope without a host", NAMED + RULE.replace("registry.example/", ""), "expected HOST"),
    ("a scope with a tag", NAMED + RULE.replace("team", "team:v1"), "without tag or digest"),
    ("a scope with a slash behind", NAMED + RULE.replace("team", "team/"), r"rules\[0\].scope"),
    ("a scope with a pattern", NAMED + RULE.replace("team", "team/*"), r"rules\[0\].scope"),
    ("a scope with upper case", NAMED + RULE.replace("team", "Team"), r"rules\[0\].scope"),
    ("a scope with dots", NAMED + RULE.replace("team", "../team"), r"rules\[0\].scope"),
    ("a scope that is a URL", NAMED + RULE.replace("registry", "https://registry"), r"rules\[0\].scope"),
    ("a scope with a line", NAMED + RULE.replace("team", "team\\n"), r"rules\[0\].scope"),
    ("a relative directory", NAMED + RULE.replace("registry.example/team", "oci:mirror"), "absolute directory"),
    ("one scope twice", NAMED + RULE + RULE, r"two for 'registry.example/team' \(at rules\[1\].scope\)"),
    ("one scope in two spellings", NAMED + RULE + RULE.replace("registry", "Registry"), "two for"),
    ("docker.io in two spellings", NAMED + RULE.replace("registry.example/team", "docker.io")
        + RULE.replace("registry.example/team", "index.docker.io"), "two for 'index.docker.io' and 'docker.io'"),
    ("all layouts in two spellings", NAMED + RULE.replace("registry.example/team", "oci")
        + RULE.replace("registry.example/team", "oci:/"), "two for"),
    ("no keys", NAMED + RULE.replace('keys = ["release"]\n', ""), r"expected keys.*at rules\[0\].keys"),
    ("an empty list of keys", NAMED + RULE.replace('["release"]', "[]"), r"at rules\[0\].keys"),
    ("an unknown name of a key", NAMED + RULE.replace('"release"', '"relase"'), r"'relase' \(at rules\[0\].keys\[0\]"),
    ("one name of a key twice", NAMED + RULE.replace('"release"', '"release", "release"'), "non-unique"),
    ("a threshold of none", NAMED + RULE + "threshold = 0\n", r"at rules\[0\].threshold"),
    ("a threshold above the keys", NAMED + RULE + "threshold = 2\n", r"at most 1, the number.*got 2.*threshold"),
    ("a threshold above the different keys", TWICE + "threshold = 2\n", "at most 1"),
    ("an age without a unit that is one", NAMED + RULE + 'max_age = "90m"\n', "min for minutes or mo for months"),
    ("an age of nothing", NAMED + RULE + 'max_age = "0d"\n', r"more than 0.*max_age"),
    ("an age that is a number", NAMED + RULE + "max_age = 90\n", "not of type 'string'"),
    ("a date as age", NAMED + RULE + "max_age = 2026-01-01\n", "not of type 'string'"),
    ("a base image without a host", NAMED + RULE + 'base_images = ["alpine"]\n', r"no registry host.*base_images\[0\]"),
    ("a base image in a directory", NAMED + RULE + 'base_images = ["oci:/x"]\n', "image in a registry"),
    ("no base images", NAMED + RULE + "base_images = []\n", r"rules\[0\].base_images"),
    ("half a digest", NAMED + RULE + 'base_images = ["sha256:abc"]\n', "64 lower-case hex"),
    ("a repository that is a layout", NAMED + RULE + 'signed_for = ["oci:/x"]\n', r"signed_for\[0\]"),
    ("every repository", NAMED + RULE + 'signed_for = ["*"]\n', r"signed_for\[0\]"),
    ("a word for a truth", NAMED + RULE + 'no_rollback = "yes"\n', "not of type 'boolean'"),
    ("another requirement", NAMED + RULE.replace('"signed"', '"trusted"'), "is not one of"),
    ("keys for what is unsigned", NAMED + RULE.replace('"signed"', '"unsigned"'), "expected no keys with require"),
    ("a threshold for what is refused", HEAD + '[[rules]]\nscope = "*"\nrequire = "refuse"\nthreshold = 1\n',
        "expected no threshold with require"),
    ("a base image for what is unsigned", HEAD + '[[rules]]\nscope = "*"\nrequire = "unsigned"\n'
        'base_images = ["docker.io/x"]\n', "expected no base_images"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_cannot_be_followed_is_refused_with_its_place(text: str | bytes, told: str) -> None:
    with pytest.raises(InvalidPolicy, match=told) as caught:
        parse(text)
    assert str(caught.value).startswith("policy 'p.toml': ")
    assert str(caught.value).endswith("; nothing is taken until the policy is right")
    assert len(str(caught.value)) < 1500


@given(st.text(max_size=200))
def test_a_change_anywhere_is_a_policy_or_refused(garbage: str) -> None:
    """Never anything else than a policy, or the error for one."""
    try:
        parse(NAMED + RULE + garbage)
    except InvalidPolicy:
        return
    except UnicodeEncodeError:  # a lone surrogate: there is no such file
        return


def test_every_key_of_the_schema_counts() -> None:
    """What the schema lets through and nobody reads would be a promise that nobody keeps."""
    rest = 'threshold = 1\nsigned_for = ["a.example"]\nrepository = "always"\nmax_age = "1d"\n'
    text = NAMED + RULE + rest + 'base_images = ["a.example/b"]\nno_rollback = true\n'
    full, document = requirement(text), tomllib.loads(text)
    validate(document, "policy", subject="test")
    assert document.keys() == set(TOP_KEYS)
    assert document["rules"][0].keys() == set(RULE_KEYS)
    for name in document["rules"][0].keys() - {"scope", "require", "keys", "threshold"}:
        less = "\n".join(line for line in text.splitlines() if not line.startswith(f"{name} = "))
        assert requirement(less) != full, name


PLACES = [
    ("registry.example", "registry.example/team", True),
    ("registry.example", "registry.example:5000/team", False),
    ("registry.example:5000", "registry.example:5000/team", True),
    ("registry.example:5000", "registry.example/team", False),
    ("registry.example:5000", "registry.example:50001/team", False),
    ("REGISTRY.example", "registry.EXAMPLE/team", True),
    ("registry.example/team", "registry.example/team", True),
    ("registry.example/team", "registry.example/team/disks", True),
    ("registry.example/team", "registry.example/team2", False),
    ("registry.example/team", "registry.example/tea", False),
    ("registry.example/team/disks", "registry.example/team", False),
    ("registry.example", "evil.registry.example/team", False),
    ("registry.example", "registry.example.evil/team", False),
    ("localhost", "localhost/team", True),
    ("[::1]:5000/team", "[::1]:5000/team/disks", True),
    ("docker.io", "docker.io/alpine", True),
    ("docker.io/library", "docker.io/alpine", True),
    ("docker.io/library", "docker.io/team/alpine", False),
    ("docker.io/library", "index.docker.io/alpine", True),
    ("registry-1.docker.io/library", "docker.io/library/alpine", True),
    ("docker.io/alpine", "docker.io/alpine", False),  # a namespace; the image is docker.io/library/alpine
    ("oci", "oci:/mirror", True),
    ("oci:/", "oci:/mirror", True),
    ("oci:/mirror", "oci:/mirror", True),
    ("oci:/mirror/", "oci:/mirror/a", True),
    ("oci:/mirror", "oci:/mirror2", False),
    ("oci:/mirror", "oci:/mirror/../other", False),
    ("oci:/other/../mirror", "oci:/mirror/x", True),
    ("oci", "store", False),
    ("store", "store", True),
    ("store", "archive", False),
    ("archive", "archive", True),
    ("*", "registry.example/team", True),
    ("*", "oci:/mirror", True),
    ("*", "store", True),
    ("*", "archive", True),
    ("store.example", "store", False),
]


@pytest.mark.parametrize(("scope", "place", "covers"), PLACES)
def test_a_scope_covers_whole_components(scope: str, place: str, covers: bool) -> None:
    assert Scope.parse(scope).covers(place_parts(place)) == covers


@pytest.mark.parametrize("place", ["", "registry.example", "team/disks", "*", "oci", "oci:mirror", "a.example/b:v1"])
def test_what_is_no_place_is_in_no_scope(place: str) -> None:
    with pytest.raises(InvalidReference, match="expected"):
        parse(HEAD).rule_for(place)


NAMES = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)


@given(st.lists(NAMES, unique_by=tuple, max_size=8), NAMES.filter(bool))
def test_the_longest_scope_wins(scopes: list[list[str]], place: list[str]) -> None:
    rules = "".join(f'[[rules]]\nscope = "{"/".join(["h.example", *scope])}"\nrequire = "refuse"\n' for scope in scopes)
    got = parse(HEAD + rules).rule_for("/".join(["h.example", *place])).scope.text
    fitting = [scope for scope in scopes if place[: len(scope)] == scope]
    assert got == ("/".join(["h.example", *max(fitting, key=len)]) if fitting else "default")


def test_a_link_to_a_directory_is_no_other_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    policy = write(tmp_path, HEAD + f'[[rules]]\nscope = "oci:{tmp_path}/link"\nrequire = "unsigned"\n')
    for path in ("real", "link", "link/../real"):
        place = place_of(parse_reference(f"oci:{tmp_path}/{path}"))
        assert read_policy(str(policy)).rule_for(place).requirement is None, path


def test_the_files_of_keys_are_beside_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.chdir("/")
    asked = read_policy(str(path)).rule_for("registry.example/team").requirement
    assert asked is not None
    assert [each.name for each in asked.keys] == ["release"]
    monkeypatch.chdir(tmp_path)
    assert read_policy(path.name).rules


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _large(path: Path) -> None:
    path.write_bytes(b"#" * (MAX_POLICY + 2))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "no regular file|Is a directory"),
        (_fifo, "no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
        (lambda path: path.symlink_to(path.name), "Too many levels"),
        (_large, "at most"),
    ],
    ids=["missing", "directory", "FIFO", "device", "loop", "too large"],
)
def test_a_file_that_is_no_policy(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    path = tmp_path / "policy"
    make(path)
    with pytest.raises(InvalidPolicy, match=f"(?s)^policy '{re.escape(str(path))}': .*({told})"):
        read_policy(str(path))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "no regular file|Is a directory"),
        (_fifo, "no regular file"),
        (lambda path: path.write_bytes(b"x" * (MAX_KEY_FILE + 9)), "ann"),
        (lambda path: path.write_bytes(key("ann").to_pem(None)), "got a private one"),
        (lambda path: path.write_bytes(KEYS["release.pub"] * 2), "one per file"),
        (lambda path: path.write_bytes(b""), "expected a public key"),
    ],
    ids=["missing", "directory", "FIFO", "too large", "private", "two", "empty"],
)
def test_a_file_that_is_no_key(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    path = write(tmp_path)
    (tmp_path / "ann.pub").unlink()
    make(tmp_path / "ann.pub")
    with pytest.raises(InvalidPolicy, match=rf"(?s)^policy '.*({told}).*\(at keys\.ann\)"):
        read_policy(str(path))


@pytest.mark.parametrize("path", ["a\0b", ""])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(InvalidPolicy):
        read_policy(path)


BASES = [
    ("docker.io/library/alpine", "docker.io/library/alpine:3.20", True),
    ("docker.io/library/alpine", "alpine", True),
    ("docker.io/library/alpine", "library/alpine:3.20", True),
    ("docker.io/alpine", "index.docker.io/library/alpine", True),
    ("docker.io/library/alpine:3.20", "alpine:3.20", True),
    ("docker.io/library/alpine:3.20", "alpine:3.2", False),
    ("docker.io/library/alpine:3.20", "alpine", False),
    ("docker.io/library/alpine", "docker.io/library/alpine2", False),
    ("docker.io/library/alpine", "evil.example/library/alpine", False),
    ("docker.io/library/alpine", "docker.io/team/alpine", False),
    ("docker.io/library/alpine", None, False),
    ("docker.io/library/alpine", "", False),
    ("docker.io/library/alpine", "oci:/library/alpine", False),
    ("docker.io/library/alpine", "scratch", False),
]


@pytest.mark.parametrize(("allowed", "told", "covers"), BASES)
def test_base_images_by_name(allowed: str, told: str | None, covers: bool) -> None:
    annotations = {} if told is None else {"org.opencontainers.image.base.name": told}
    assert BaseImage.parse(allowed).covers(BaseImage.told_by(annotations)) == covers


def test_base_images_by_digest() -> None:
    one, two = (f"sha256:{n * 64}" for n in "12")
    base = {"org.opencontainers.image.base.name": "alpine:3.20", "org.opencontainers.image.base.digest": one}
    told = BaseImage.told_by(base)
    for allowed in (one, f"docker.io/alpine@{one}", f"docker.io/alpine:3.20@{one}", "docker.io/alpine"):
        assert BaseImage.parse(allowed).covers(told), allowed
    for allowed in (two, f"docker.io/alpine@{two}", f"docker.io/busybox@{one}", f"docker.io/alpine:3.19@{one}"):
        assert not BaseImage.parse(allowed).covers(told), allowed
    assert BaseImage.parse(one).covers(BaseImage.told_by({"org.opencontainers.image.base.name": f"alpine@{one}"}))
    base["org.opencontainers.image.base.name"] = f"alpine@{two}"  # contradicts the other annotation
    assert BaseImage.told_by(base) == BaseImage()
    base["org.opencontainers.image.base.name"] = "No Name"
    assert BaseImage.told_by(base) == BaseImage(digest=Digest.parse(one))
    base = {"org.opencontainers.image.base.name": "alpine", "org.opencontainers.image.base.digest": "sha256:no"}
    assert BaseImage.told_by(base) == BaseImage("docker.io/library/alpine")


@pytest.mark.parametrize("tag", ["", ":3.20"])
@pytest.mark.parametrize("digest", ["", f"@sha256:{'1' * 64}"])
def test_a_base_image_is_told_as_it_is_written(tag: str, digest: str) -> None:
    text = f"docker.io/library/alpine{tag}{digest}"
    assert str(BaseImage.parse(text)) == text
    assert str(BaseImage.parse(f"sha256:{'1' * 64}")) == f"sha256:{'1' * 64}"
    assert str(BaseImage()) == "none"


def test_keys_and_policy_must_both_hold() -> None:
    trust = Trust(keys=(key("ann").public,), policy=parse(NAMED + RULE), signed_for=("other.example",))
    asked = trust.requirements("registry.example/team/disks")
    assert [[signer.name for signer in each.keys] for each in asked] == [["ann"], ["release"]]
    assert [bool(each.signed_for) for each in asked] == [True, False], "the caller does not widen the policy"
    assert [each.refuse for each in trust.requirements("elsewhere.example/x")] == [False, True]


def test_without_keys_and_policy_nothing_is_asked() -> None:
    assert Trust().requirements("registry.example/team") == []
    accepting = parse(HEAD.replace("refuse", "accept"))
    assert Trust(policy=accepting).requirements("registry.example/team") == []


def test_no_rollback_is_asked_of_every_place() -> None:
    place = "registry.example/team"
    for trust in (
        Trust(no_rollback=True),
        Trust(no_rollback=True, keys=(key("ann").public,)),
        Trust(no_rollback=True, policy=parse(NAMED + RULE)),
        Trust(no_rollback=True, policy=parse(HEAD.replace("refuse", "accept"))),
    ):
        assert trust.forbids_rollback(place)
        assert all(each.no_rollback for each in trust.requirements(place))
    assert not Trust(keys=(key("ann").public,)).forbids_rollback(place)


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 2},
        {"signed_for": ("a.example",)},
        {"keys": (key("ann").public,), "threshold": 2},
        {"keys": (key("ann").public,), "threshold": 0},
        {"keys": (key("ann").public, PrivateKey.parse(key("ann").to_pem(None), name="x", passphrase=bytes).public),
         "threshold": 2},
        {"keys": (key("ann").public,), "signed_for": ("*",)},
        {"keys": (key("ann").public,), "signed_for": ("team",)},
    ],
)  # fmt: skip
def test_a_trust_that_makes_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected") as caught:
        Trust(**arguments)
    assert isinstance(caught.value, CasstoreError)


PAGE = (Path(__file__).parents[1] / "docs/reference/policy.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE))
def test_the_examples_of_the_reference_are_policies(text: str) -> None:
    policy = Policy.parse(text.encode(), subject="example", read_key=lambda name: key(name).public.to_pem())
    assert policy.rules


def test_the_example_of_the_reference_does_what_it_says() -> None:
    text = re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE)[0]
    policy = Policy.parse(text.encode(), subject="example", read_key=lambda name: key(name).public.to_pem())
    asked = {
        place: policy.rule_for(f"registry.example/{place}").requirement for place in ("team/x", "team/production/x")
    }
    assert [each and (each.threshold, len(each.keys)) for each in asked.values()] == [(1, 1), (2, 3)]
    assert policy.rule_for("registry.example/scratch/x").requirement is None
    assert policy.rule_for("elsewhere.example/x") == policy.default


def test_the_reference_names_every_key_and_reason() -> None:
    schema = json.loads((Path(__file__).parents[1] / "schemas/policy.schema.json").read_text())
    named = re.findall(r"(?m)^\| `([a-z_]+)` \| .* \| .* \|$", PAGE)
    assert named == [*schema["properties"], *schema["$defs"]["rule"]["properties"]]
    assert set(re.findall(r"(?m)^\| `([a-z-]+)` \| [^|]* \|$", PAGE)) - {"oci", "store", "archive"} == set(Reason)
    assert f"no more than {MAX_TRIED} are looked at" in PAGE
