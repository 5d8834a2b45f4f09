"""Ways around what is asked of signatures: other spellings of a place, policies of others, keys that are nobody's, and
names that move meanwhile. And private keys that are given in the place of their files.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, places
from casstore.errors import InvalidKey, InvalidPolicy, InvalidReference
from casstore.reference import LayoutReference, Reference, parse_reference
from casstore.signatures.keys import PublicKey
from casstore.storedir import StoreOptions
from casstore.transfer import TransferOptions
from casstore.trust.policy import Policy
from casstore.trust.policyfile import read_policy
from casstore.trust.scopes import place_of
from tests.support.command import Casstore
from tests.support.signing import key
from tests.support.stores import write_disk

POLICY = """
version = 1
default = "accept"
[keys]
alice = "alice.pub"
[[rules]]
scope = "{}"
require = "signed"
keys = ["alice"]
"""


@pytest.fixture
def casstore(tmp_path: Path) -> Casstore:
    """A store with `base`, which nobody has signed, and `signed`, which alice has."""
    made = Casstore(tmp_path)
    for name, piece in (("base", 1), ("signed", 2)):
        made("create", name, "--disk", write_disk(tmp_path / f"{name}.raw", piece))
    (tmp_path / "alice.pub").write_bytes(key("alice").public.to_pem())
    (tmp_path / "alice.key").write_bytes(key("alice").to_pem(None))
    made("sign", "signed", "--key", tmp_path / "alice.key")
    return made


# --- whose policy -----------------------------------------------------------------------------------------------------


def test_a_policy_in_a_layout_is_nobodys(casstore: Casstore) -> None:
    """Who made the medium that a copy goes to has no say in what is copied; who has the store has."""
    layout, medium = casstore.folder / "layout", casstore.folder / "medium"
    casstore("push", "base", f"oci:{layout}")
    casstore("push", "signed", f"oci:{medium}")
    (medium / "casstore.policy.toml").write_text('version = 1\ndefault = "accept"')
    (casstore.store / "casstore.policy.toml").write_text(POLICY.format("*").replace("alice.pub", "../alice.pub"))
    casstore("copy", f"oci:{layout}:base", f"oci:{medium}", code=13)
    signed = casstore.json("inspect", "signed")["digest"]
    assert casstore("list", f"oci:{medium}", "-q").lines == [signed]


def test_a_copy_into_a_store_is_no_way_around_its_memory(casstore: Casstore) -> None:
    layout, policy = f"oci:{casstore.folder}/layout", casstore.store / "casstore.policy.toml"
    casstore("push", "signed", layout, "--referrers")
    policy.write_text(POLICY.format("*").replace("alice.pub", "../alice.pub") + "no_rollback = true\n")
    told = casstore("copy", f"{layout}:signed", f"oci:{casstore.store}:copied", code=2).stderr
    assert "pull it" in told
    digest = casstore.json("inspect", "signed")["digest"]
    casstore("copy", f"{layout}@{digest}", f"oci:{casstore.store}:copied")
    casstore("pull", f"{layout}:signed", "--name", "pulled")


# --- other spellings of a place ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "reference"),
    [
        ("[::1]:5000", "[0:0:0:0:0:0:0:1]:5000/disks:base"),
        ("[0::1]:5000/team", "[::1]:5000/team/disks:base"),
        ("[2001:DB8::1]", "[2001:db8:0::0.0.0.1]/disks:base"),
        ("docker.io/library/disks", "index.docker.io/disks:base"),
        ("index.docker.io", "docker.io/disks:base"),
        ("REGISTRY.example", "registry.EXAMPLE/disks:base"),
    ],
)
def test_another_spelling_of_a_registry_is_no_other_place(scope: str, reference: str) -> None:
    policy = Policy.parse(
        POLICY.format(scope).encode(), subject="policy", read_key=lambda _: key("alice").public.to_pem()
    )
    assert policy.rule_for(place_of(parse_reference(reference))).scope.text == scope


def test_what_is_remembered_of_a_tag_has_one_spelling() -> None:
    spellings = ("docker.io/disks:base", "index.docker.io/disks:base", "registry-1.docker.io/library/disks:base")
    assert {place_of(parse_reference(each)) for each in spellings} == {"docker.io/library/disks"}
    assert place_of(parse_reference("[0:0::1]:5000/disks")) == place_of(parse_reference("[::1]:5000/disks"))


@pytest.mark.parametrize("host", ["registry.example:0443", "127.0.0.1:05000", "[::1]:00443", "registry.example.:443"])
def test_ports_and_hosts_that_only_look_different(host: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(f"{host}/team/disks:base")


def test_a_link_that_moves_leads_to_no_other_content(casstore: Casstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is what is in the place that the policy was asked about."""
    link, trusted, other = (casstore.folder / name for name in ("link", "trusted", "other"))
    casstore("push", "signed", f"oci:{trusted}:x")
    casstore("push", "base", f"oci:{other}:x")
    link.symlink_to(trusted)

    def then_moved(reference: Reference) -> str:
        where = place_of(reference)
        link.unlink()
        link.symlink_to(other)
        return where

    monkeypatch.setattr(places, "place_of", then_moved)
    reference = LayoutReference(str(link), "x")
    with places.open_judged(reference, TransferOptions(), StoreOptions()) as (source, where):
        assert where == f"oci:{trusted}"
        assert str(source.resolve("x").digest) == casstore.json("inspect", "signed")["digest"]


# --- names that move --------------------------------------------------------------------------------------------------


def test_what_inspect_shows_is_of_one_snapshot(casstore: Casstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere meanwhile lends nobody a signature."""
    public, opened = casstore.folder / "alice.pub", Store.open_snapshot
    unsigned = casstore.json("inspect", "base")["digest"]

    def then_moved(store: Store, selector: str, **options: Any) -> Snapshot:
        found = opened(store, selector, **options)
        monkeypatch.setattr(Store, "open_snapshot", opened)
        casstore("tag", unsigned, "kept")
        casstore("tag", "signed", "base", "-f")
        return found

    monkeypatch.setattr(Store, "open_snapshot", then_moved)
    shown = casstore.json("inspect", "base", "--key", public)
    assert (shown["digest"], shown["signatures"], shown["trust"]["ok"]) == (unsigned, [], False)


# --- keys -------------------------------------------------------------------------------------------------------------


_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_WEAK = (0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8)


def _ed25519(y: int, *, odd: bool = False) -> bytes:
    der = bytes.fromhex("302a300506032b6570032100") + (y | odd << 255).to_bytes(32, "little")
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("y", _WEAK)
def test_keys_that_everybody_can_sign_for(y: int, odd: bool) -> None:
    """The first one, of zeros, is what people put where a key has yet to come."""
    with pytest.raises(InvalidKey, match="nobody's"):
        PublicKey.parse(_ed25519(y, odd=odd), name="weak.pub")


def test_why_such_keys_are_refused() -> None:
    """The key whose point adds nothing: the signature of all zeros but a 1 is good over anything."""
    weak = PublicKey("weak.pub", base64.b64decode(_ed25519(1).splitlines()[1]))
    assert weak.verify((1).to_bytes(32, "little") + bytes(32), b"anything")


# --- private keys in the place of their files -------------------------------------------------------------------------


_PEM = key("alice").to_pem(None).decode()
_BODY = "".join(_PEM.splitlines()[1:-1])


def test_a_private_key_that_is_no_file_is_not_repeated(casstore: Casstore) -> None:
    for given in (_PEM, _BODY, base64.b64encode(_PEM.encode()).decode(), f"x\n{_PEM}"):
        for words in (
            ("sign", "base", "--key", given),
            ("sign", "base", "--key", "alice.key", given),
            ("push", "base", "oci:layout", "--sign", given),
            ("verify", "base", "--key", given),
            ("verify", "base", "--policy", given),
            ("key", "show", given),
            ("--debug", "sign", "base", "--key", given, "--json"),
        ):
            done = casstore(*words, code=2)
            _require_hidden(done.stdout + done.stderr, given)


def test_a_private_key_in_a_policy_is_not_repeated(casstore: Casstore) -> None:
    for text in (f'alice = "{_BODY}"', f'alice = """x\n{_PEM}"""', f'alice = """{_PEM}"""', f'"{_BODY}" = "alice.pub"'):
        (casstore.folder / "policy.toml").write_text(f'version = 1\ndefault = "refuse"\n[keys]\n{text}\n')
        _require_hidden(casstore("verify", "base", "--policy", casstore.folder / "policy.toml", code=2).stderr, _BODY)
        with pytest.raises(InvalidPolicy) as caught:
            read_policy(str(casstore.folder / "policy.toml"))
        _require_hidden(str(caught.value), _BODY)


def _require_hidden(told: str, given: str) -> None:
    """Nothing that is long enough to mean something."""
    line = max(given.splitlines(), key=len)
    assert told
    assert all(line[at : at + 12] not in told for at in range(len(line) - 12))


def test_a_passphrase_that_is_no_file_is_not_repeated(casstore: Casstore) -> None:
    (casstore.folder / "alice.key").write_bytes(key("alice").to_pem(b"canary"))
    words = ["sign", "base", "--key", casstore.folder / "alice.key", "--passphrase-file", "canary"]
    assert "canary" not in casstore(*words, code=2).stderr
