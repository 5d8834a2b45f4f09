"""What a hostile registry may try, end to end: each attack is refused with a reason of its own and exit code 13, with
nothing fetched but the manifest and its signatures, and the store as it was.

Numbers are rows of docs/explanation/faults.md; all of this is row 103, unless it says another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casstore import Snapshot, Store, spec
from casstore.attachments import build_attachment
from casstore.credentials import CredentialSource
from casstore.digest import Digest
from casstore.jsondoc import dump
from casstore.oci import Descriptor
from casstore.reference import RegistryReference
from casstore.registry import RegistryOptions, RegistryTarget
from casstore.sign import sign_manifest
from casstore.signatures import simplesigning
from casstore.signatures.bundle import MEDIA_TYPE
from casstore.signatures.claims import Evidence
from casstore.signatures.keys import PrivateKey
from casstore.signatures.reasons import Reason
from casstore.signatures.statement import PREDICATE_TYPE, REPOSITORY, SIGNED
from casstore.streams import BytesSource
from casstore.transfer import TransferOptions
from casstore.trust.decision import MAX_TRIED
from tests.support import servers, signatures
from tests.support.command import Casstore, Result
from tests.support.registry_simulator import RegistrySimulator, Seen
from tests.support.signing import key
from tests.support.stores import FAST, all_files, write_disk

ALICE, BOB, MALLORY = key("alice"), key("bob"), key("mallory")
NOW = datetime.now(UTC).replace(microsecond=0)
BASE_IMAGE = "registry.example/base:1"


@dataclass(frozen=True)
class Served:
    """A registry, and what was asked of it, where that can be told."""

    host: str
    options: RegistryOptions
    credentials: CredentialSource
    simulator: RegistrySimulator | None = None


@dataclass
class Scene:
    """A repository with one snapshot, `base`, that nobody has signed, and a victim that trusts ALICE."""

    served: Served
    repository: str
    snapshot: Snapshot
    other: Snapshot
    """Another one, in the same repository as `other`."""
    casstore: Casstore
    policy: str = ""
    """The rule that the victim has in place of a key; its keys are alice and bob."""
    options: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.served.host}/{self.repository}"

    @property
    def root(self) -> Descriptor:
        return self.snapshot.root

    def target(self, repository: str | None = None) -> RegistryTarget:
        reference = RegistryReference(self.served.host, repository or self.repository)
        return RegistryTarget(reference, self.served.options, self.served.credentials)

    def sign(self, *signers: PrivateKey, subject: Descriptor | None = None, **more: Any) -> None:
        """Good signatures, as casstore makes them."""
        said: dict[str, Any] = {"annotations": {}, "repository": self.place, "now": NOW, **more}
        with self.target() as target:
            sign_manifest(target, subject or self.root, signers, **said)

    def attach(self, raw: bytes, *, size: int | None = None, **changes: Any) -> Descriptor:
        """Any bytes at all as a bundle about the snapshot, in a manifest with `changes`."""
        with self.target() as target:
            blob = Descriptor.of(raw, MEDIA_TYPE)
            for data, media_type in ((b"{}", spec.MEDIA_EMPTY), (raw, MEDIA_TYPE)):
                target.push(Descriptor.of(data, media_type), BytesSource(data))
            layer = blob.to_dict() | ({} if size is None else {"size": size})
            document = {
                "schemaVersion": 2,
                "mediaType": spec.MEDIA_MANIFEST,
                "artifactType": MEDIA_TYPE,
                "config": Descriptor.of(b"{}", spec.MEDIA_EMPTY).to_dict(),
                "layers": [layer],
                "subject": self.root.to_dict(),
                **changes,
            }
            manifest = dump(document)
            descriptor = replace(Descriptor.of(manifest, spec.MEDIA_MANIFEST), artifact_type=MEDIA_TYPE)
            target.attach(descriptor, self.root, BytesSource(manifest))
        return descriptor

    def attach_cosign(self, *found: Evidence, **annotations: str) -> None:
        """Any payloads as cosign's signatures."""
        layers = []
        with self.target() as target:
            for each in found:
                blob = Descriptor.of(each.raw, simplesigning.MEDIA_TYPE)
                target.push(blob, BytesSource(each.raw))
                signed = {} if each.signature is None else {simplesigning.SIGNATURE_ANNOTATION: each.signature}
                layers.append(replace(blob, annotations=signed | annotations))
            made, source = build_attachment(layers, subject=self.root.digest)
            target.push(made.manifest.blobs[0], source)
            target.push(made.descriptor, source)
            target.tag(made.descriptor, f"sha256-{self.root.digest.hex}.sig")

    def statement(self, **changes: Any) -> dict[str, Any]:
        """What a good bundle states, with changes."""
        annotations = {SIGNED: NOW.isoformat().replace("+00:00", "Z"), REPOSITORY: self.place}
        return {
            "_type": "https://in-toto.io/Statement/v1",
            "predicate": {},
            "predicateType": PREDICATE_TYPE,
            "subject": [{"annotations": annotations, "digest": {"sha256": self.root.digest.hex}}],
            **changes,
        }

    def bundle(self, **changes: Any) -> Evidence:
        """ALICE's bundle over a statement with changes."""
        return signatures.signed(ALICE, dump(self.statement(**changes)))


Attack = Callable[[Scene], None]
ATTACKS: dict[str, tuple[Attack, tuple[Reason, ...]]] = {}


def refused(*reasons: Reason) -> Callable[[Attack], Attack]:
    """An attack, and the reasons of its refusal."""

    def add(attack: Attack) -> Attack:
        ATTACKS[attack.__name__] = (attack, reasons)
        return attack

    return add


# --- nobody, or somebody else, signed it ------------------------------------------------------------------------------


@refused(Reason.NO_SIGNATURES)
def unsigned(scene: Scene) -> None:
    pass


@refused(Reason.NO_SIGNATURES)
def unsigned_among_signed(scene: Scene) -> None:
    """Its neighbour is."""
    scene.sign(ALICE, subject=scene.other.root)


@refused(Reason.UNKNOWN_KEY)
def wrong_key(scene: Scene) -> None:
    scene.sign(MALLORY)


@refused(Reason.BAD_SIGNATURE)
def wrong_key_that_says_it_is_the_right_one(scene: Scene) -> None:
    made = signatures.signed(MALLORY, dump(scene.statement()))
    scene.attach(signatures.changed(made, "verificationMaterial.publicKey.hint", ALICE.public.hint).raw)


@refused(Reason.BAD_SIGNATURE)
def wrong_key_without_a_hint(scene: Scene) -> None:
    made = signatures.signed(MALLORY, dump(scene.statement()))
    scene.attach(signatures.changed(made, "verificationMaterial.publicKey.hint", "").raw)


@refused(Reason.BAD_SIGNATURE)
def wrong_key_in_the_form_of_cosign(scene: Scene) -> None:
    scene.attach_cosign(signatures.cosign(MALLORY, subject=scene.root.digest))


# --- the right key signed something else ------------------------------------------------------------------------------


@refused(Reason.OTHER_DIGEST)
def other_digest(scene: Scene) -> None:
    """The signature of the neighbour, in a manifest about this one."""
    scene.attach(scene.bundle(subject=[{"digest": {"sha256": scene.other.digest.hex}}]).raw)


@refused(Reason.OTHER_DIGEST)
def other_digest_in_the_form_of_cosign(scene: Scene) -> None:
    scene.attach_cosign(signatures.cosign(ALICE, subject=scene.other.digest))


@refused(Reason.OTHER_REPOSITORY)
def other_repository(scene: Scene) -> None:
    scene.sign(ALICE, repository=f"{scene.served.host}/team/other")


@refused(Reason.OTHER_REPOSITORY)
def other_repository_that_begins_the_same(scene: Scene) -> None:
    scene.sign(ALICE, repository=f"{scene.place}2")


@refused(Reason.OTHER_REPOSITORY)
def other_repository_in_the_form_of_cosign(scene: Scene) -> None:
    scene.attach_cosign(signatures.cosign(ALICE, subject=scene.root.digest))


@refused(Reason.OTHER_REPOSITORY)
def no_repository_where_one_is_wanted(scene: Scene) -> None:
    scene.policy = 'require = "signed"\nkeys = ["alice"]\nrepository = "always"'
    scene.sign(ALICE, repository=None)


@refused(Reason.OTHER_TYPE)
def signature_of_another_type(scene: Scene) -> None:
    """The key also signs how things were built, which says nothing of whether they are any good."""
    scene.attach(scene.bundle(predicateType="https://slsa.dev/provenance/v1").raw)


@refused(Reason.OTHER_TYPE)
def signature_of_another_payload_type(scene: Scene) -> None:
    scene.attach(signatures.signed(ALICE, dump(scene.statement()), payload_type="text/plain").raw)


@refused(Reason.OTHER_TYPE)
def signature_of_a_plain_text(scene: Scene) -> None:
    """In cosign's form: what gpg's tools sign has another type."""
    critical = {
        "identity": {"docker-reference": scene.place},
        "image": {"docker-manifest-digest": str(scene.root.digest)},
    }
    payload = {"critical": {**critical, "type": "atomic container signature"}, "optional": None}
    scene.attach_cosign(signatures.cosigned(ALICE, dump(payload)))


@refused(Reason.MALFORMED)
def two_subjects(scene: Scene) -> None:
    other = {"digest": {"sha256": scene.other.digest.hex}}
    scene.attach(scene.bundle(subject=[{"digest": {"sha256": scene.root.digest.hex}}, other]).raw)


@refused(Reason.MALFORMED)
def digest_twice(scene: Scene) -> None:
    """Row 51, with the right signature: which of the two was meant?"""
    raw = dump(scene.statement()).replace(b'"digest":{', b'"digest":{"sha256":"' + b"0" * 64 + b'",')
    scene.attach(signatures.signed(ALICE, raw).raw)


# --- the right signature, changed -------------------------------------------------------------------------------------


@refused(Reason.BAD_SIGNATURE)
def changed_payload(scene: Scene) -> None:
    made = signatures.signed(ALICE, dump(scene.statement()))
    other = signatures.signed(ALICE, dump(scene.statement(predicate={"x": 1})))
    payload = json.loads(other.raw)["dsseEnvelope"]["payload"]
    scene.attach(signatures.changed(made, "dsseEnvelope.payload", payload).raw)


@refused(Reason.BAD_SIGNATURE)
def changed_payload_type(scene: Scene) -> None:
    """What is signed includes it."""
    scene.attach(signatures.changed(scene.bundle(), "dsseEnvelope.payloadType", "application/json").raw)


@refused(Reason.MALFORMED)
def two_signatures_in_one(scene: Scene) -> None:
    made = json.loads(scene.bundle().raw)
    made["dsseEnvelope"]["signatures"] *= 2
    scene.attach(dump(made))


@refused(Reason.MALFORMED)
def truncated_bundle(scene: Scene) -> None:
    scene.attach(scene.bundle().raw[:-10])


@refused(Reason.MALFORMED)
def bundle_with_more_after_it(scene: Scene) -> None:
    """Row 62."""
    scene.attach(scene.bundle().raw + b"{}")


@refused(Reason.MALFORMED)
def bundle_that_is_deep(scene: Scene) -> None:
    """Row 52."""
    scene.attach(b"[" * 100_000)


@refused(Reason.KEYLESS)
def bundle_with_a_certificate(scene: Scene) -> None:
    material = {"certificate": {"rawBytes": "MAAA"}}
    scene.attach(signatures.changed(scene.bundle(), "verificationMaterial", material).raw)


@refused(Reason.UNKNOWN_FORM)
def bundle_of_another_form(scene: Scene) -> None:
    made = json.loads(scene.bundle().raw)
    del made["dsseEnvelope"]
    made["messageSignature"] = {"messageDigest": {"algorithm": "SHA2_256", "digest": "AAAA"}, "signature": "AAAA"}
    scene.attach(dump(made))


@refused(Reason.MALFORMED)
def cosign_without_its_signature(scene: Scene) -> None:
    found = replace(signatures.cosign(ALICE, subject=scene.root.digest), signature=None)
    scene.attach_cosign(found)


@refused(Reason.KEYLESS)
def cosign_with_a_certificate(scene: Scene) -> None:
    found = signatures.cosign(ALICE, subject=scene.root.digest)
    scene.attach_cosign(found, **{simplesigning.CERTIFICATE_ANNOTATION: "-----BEGIN CERTIFICATE-----"})


@refused(Reason.TOO_LARGE)
def bundle_of_a_mebibyte(scene: Scene) -> None:
    scene.attach(b" " * spec.MIB)


@refused(Reason.UNREADABLE)
def bundle_whose_size_is_a_lie(scene: Scene) -> None:
    scene.attach(scene.bundle().raw, size=100)


@refused(Reason.MALFORMED)
def manifest_that_holds_no_bundle(scene: Scene) -> None:
    scene.attach(scene.bundle().raw, layers=[Descriptor.of(b"{}", spec.MEDIA_EMPTY).to_dict()])


# --- many -------------------------------------------------------------------------------------------------------------


@refused(Reason.TOO_FEW_KEYS)
def one_key_twice_where_two_are_wanted(scene: Scene) -> None:
    scene.options = ["--key", "bob.pub", "--threshold", "2"]
    scene.sign(ALICE)
    scene.sign(ALICE, now=NOW - timedelta(hours=1), cosign_tag=True)


@refused(Reason.TOO_FEW_KEYS, Reason.UNKNOWN_KEY)
def one_right_and_many_wrong_ones_where_two_are_wanted(scene: Scene) -> None:
    scene.options = ["--key", "bob.pub", "--threshold", "2"]
    scene.sign(ALICE, *(key(f"nobody {number}") for number in range(3)))


# --- time, images, rules ----------------------------------------------------------------------------------------------


@refused(Reason.TOO_OLD)
def old_signature(scene: Scene) -> None:
    scene.policy = 'require = "signed"\nkeys = ["alice"]\nmax_age = "30d"'
    scene.sign(ALICE, now=NOW - timedelta(days=31))


@refused(Reason.TOO_OLD)
def signature_without_a_time_where_it_counts(scene: Scene) -> None:
    scene.policy = 'require = "signed"\nkeys = ["alice"]\nmax_age = "30d"'
    scene.attach(scene.bundle(subject=[{"digest": {"sha256": scene.root.digest.hex}}]).raw)


@refused(Reason.FROM_THE_FUTURE)
def signature_from_the_future(scene: Scene) -> None:
    scene.sign(ALICE, now=NOW + timedelta(days=1))


@refused(Reason.BASE_IMAGE)
def other_base_image(scene: Scene) -> None:
    scene.policy = 'require = "signed"\nkeys = ["alice"]\nbase_images = ["registry.example/base:2"]'
    scene.sign(ALICE)


@refused(Reason.REFUSED)
def place_that_the_policy_refuses(scene: Scene) -> None:
    scene.policy = 'require = "refuse"'
    scene.sign(ALICE)


@refused(Reason.UNKNOWN_KEY)
def key_that_the_rule_is_not_for(scene: Scene) -> None:
    scene.policy = 'require = "signed"\nkeys = ["bob"]'
    scene.sign(ALICE)


# --- how they are tried -----------------------------------------------------------------------------------------------


ON_A_REAL_REGISTRY = (
    *("unsigned", "wrong_key_that_says_it_is_the_right_one", "other_digest", "other_digest_in_the_form_of_cosign"),
    *("other_repository", "changed_payload", "truncated_bundle", "bundle_of_a_mebibyte"),
    *("one_key_twice_where_two_are_wanted", "old_signature"),
)


@pytest.fixture(
    scope="module", params=["simulator", pytest.param("docker", marks=pytest.mark.needs("docker-registry"))]
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if request.param == "simulator":
        with RegistrySimulator() as simulator:
            yield Served(simulator.host, simulator.options, simulator.credentials, simulator)
    else:
        with servers.registry(tmp_path_factory.mktemp("registry")) as running:
            yield Served(running.host, running.options, running.credentials)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Casstore:
    """A store that nothing gets into, and the public keys of those that it trusts."""
    casstore = Casstore(tmp_path_factory.mktemp("victim"))
    casstore("init")
    for name, each in (("alice", ALICE), ("bob", BOB)):
        (casstore.folder / f"{name}.pub").write_bytes(each.public.to_pem())
    return casstore


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """What is in the registry: two snapshots."""
    folder = tmp_path_factory.mktemp("source")
    with Store.init(folder / "store", options=FAST) as store:
        for name, pieces in (("base", (1, 2)), ("other", (3,))):
            builder = Snapshot.builder(write_disk(folder / name, *pieces)).name(name)
            builder.image(BASE_IMAGE, f"sha256:{'1' * 64}").create(store)
        yield store


def make_scene(served: Served, source: Store, victim: Casstore, name: str) -> Scene:
    scene = Scene(served, f"attacks/{name}", source.open_snapshot("base"), source.open_snapshot("other"), victim)
    for snapshot in ("base", "other"):
        source.push(snapshot, f"{scene.place}:{snapshot}", options=_reaching(served))
    return scene


def _reaching(served: Served) -> TransferOptions:
    return TransferOptions(registries=lambda place: RegistryTarget(place, served.options, served.credentials))


def asked(scene: Scene) -> list[str]:
    """How the victim says whom it trusts."""
    folder = scene.casstore.folder
    if not scene.policy:
        keys = ["--key", str(folder / "alice.pub")]
        return keys + [str(folder / word) if word.endswith(".pub") else word for word in scene.options]
    text = 'version = 1\ndefault = "accept"\n[keys]\nalice = "alice.pub"\nbob = "bob.pub"\n'
    text += f'[[rules]]\nscope = "{scene.served.host}/attacks"\n{scene.policy}\n'
    (folder / "policy.toml").write_text(text)
    return ["--policy", str(folder / "policy.toml")]


def refusal(scene: Scene, *words: str) -> Mapping[str, Any]:
    """The error that a verb ends with."""
    done = scene.casstore.run(*words, "--plain-http", "--retries", "0", "--json", *asked(scene))
    assert (done.code, done.out) == (13, b""), done
    document: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    assert document["error"] == "UntrustedContent"
    return document


def fetched(scene: Scene) -> list[str]:
    """What of the snapshot itself was asked for, besides its manifest."""
    simulator = scene.served.simulator
    seen = simulator.requests if simulator is not None else []
    own = {str(blob.digest) for blob in scene.snapshot.artifact_manifest.children}
    return [each.path for each in seen if each.method == "GET" and each.path.rpartition("/")[2] in own]


@pytest.mark.parametrize(
    ("served", "name"),
    [
        *(("simulator", name) for name in ATTACKS),
        *(pytest.param("docker", name, marks=pytest.mark.needs("docker-registry")) for name in ON_A_REAL_REGISTRY),
    ],
    indirect=["served"],
)
def test_103_an_attack_is_refused(served: Served, source: Store, victim: Casstore, name: str) -> None:
    attack, reasons = ATTACKS[name]
    scene = make_scene(served, source, victim, name.replace("_", "-"))
    attack(scene)
    before = all_files(victim.store)
    if served.simulator is not None:
        served.simulator.requests.clear()
    place, layout = f"{scene.place}:base", victim.folder / "layout"
    ways: Sequence[Sequence[str]] = (
        ("pull", place),
        ("pull", place, "--dry-run"),
        ("pull", f"{scene.place}@{scene.root.digest}", "--name", "base"),
        ("copy", place, f"oci:{layout}"),
        ("files", place),
    )
    for words in ways if served.simulator is not None else ways[:1]:
        document = refusal(scene, *words)
        assert set(document["reasons"]) == {reason.value for reason in reasons}, document["message"]
        assert all(part in document["message"] for part in (str(scene.root.digest), scene.place, reasons[0].value))
    if served.simulator is not None:
        verified = victim.json("verify", place, "--plain-http", "--retries", "0", *asked(scene), code=13)
        trust = verified["snapshots"][0]["trust"]
        assert {each["reason"] for each in trust["reasons"]} == {reason.value for reason in reasons}
    assert fetched(scene) == []
    assert all_files(victim.store) == before
    assert not layout.exists()


def test_103_the_same_without_the_attack(served: Served, source: Store, tmp_path: Path, victim: Casstore) -> None:
    """What is signed as it must be goes through the very same way."""
    scene = make_scene(served, source, Casstore(tmp_path), "none")
    for path in victim.folder.glob("*.pub"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    scene.attach(b"junk")
    scene.sign(MALLORY)
    scene.sign(ALICE, now=NOW - timedelta(hours=1), cosign_tag=True)
    for policy in (
        "",
        'require = "signed"\nkeys = ["bob", "alice"]\nmax_age = "1d"\nbase_images = ["registry.example/base"]',
    ):
        scene.policy = policy
        done = scene.casstore.json("pull", f"{scene.place}:base", "--plain-http", *asked(scene))
        assert [each["fingerprint"] for each in done["signatures"]] == [str(ALICE.public.fingerprint)]
        assert done["trust"]["ok"]
    assert fetched(scene) or served.simulator is None
    shown = scene.casstore.json("inspect", "base", "--key", tmp_path / "alice.pub")
    assert [each["status"] for each in shown["signatures"]] == ["verified"]  # nobody else's came along


# --- attacks that take more than a repository in a certain state ------------------------------------------------------


@pytest.fixture
def simulated(source: Store, tmp_path: Path) -> Iterator[Scene]:
    """A scene with a registry and a victim of its own."""
    casstore = Casstore(tmp_path)
    casstore("init")
    for name, each in (("alice", ALICE), ("bob", BOB)):
        (tmp_path / f"{name}.pub").write_bytes(each.public.to_pem())
    with RegistrySimulator() as simulator:
        served = Served(simulator.host, simulator.options, simulator.credentials, simulator)
        yield make_scene(served, source, casstore, "own")


def registry_of(scene: Scene) -> RegistrySimulator:
    assert scene.served.simulator is not None
    return scene.served.simulator


def pull(scene: Scene, *words: str, code: int = 0) -> Result:
    place = f"{scene.place}:base"
    return scene.casstore("pull", place, "--plain-http", "--retries", "0", *asked(scene), *words, code=code)


def move_tag(scene: Scene, digest: Digest) -> None:
    registry_of(scene).contents.tags[scene.repository, "base"] = str(digest)


def test_103_a_signature_that_was_stripped(simulated: Scene) -> None:
    simulated.sign(ALICE, cosign_tag=True)
    pull(simulated)
    contents = registry_of(simulated).contents
    for held in (contents.tags, contents.manifests):
        for place in [each for each in held if each[1] not in {"base", "other", str(simulated.root.digest)}]:
            del held[place]
    assert refusal(simulated, "pull", f"{simulated.place}:base")["reasons"] == ["no-signatures"]


def test_103_an_old_tag_that_is_replayed(simulated: Scene) -> None:
    """Everything is signed as it must be, and still the tag must not go back."""
    older, newer = simulated.root, simulated.other.root
    simulated.sign(ALICE, subject=older, now=NOW - timedelta(days=2))
    simulated.sign(ALICE, subject=newer, now=NOW - timedelta(days=1))
    pull(simulated)
    move_tag(simulated, newer.digest)
    pull(simulated, "-f", "--no-rollback")
    move_tag(simulated, older.digest)
    before = all_files(simulated.casstore.store)
    registry_of(simulated).requests.clear()
    document = refusal(simulated, "pull", f"{simulated.place}:base", "-f", "--no-rollback")
    assert document["reasons"] == ["rolled-back"]
    assert str(newer.digest) in document["message"]
    assert fetched(simulated) == []
    assert all_files(simulated.casstore.store) == before
    told = pull(simulated, "-f").stderr
    assert f"warning: {simulated.place}:base was led back to {older.digest}" in told
    # It goes on to be told, and refused, until the tag leads on.
    assert refusal(simulated, "pull", f"{simulated.place}:base", "-f", "--no-rollback")["reasons"] == ["rolled-back"]
    move_tag(simulated, newer.digest)
    assert "warning" not in pull(simulated, "-f", "--no-rollback").stderr


def test_103_an_older_snapshot_that_was_never_seen(simulated: Scene) -> None:
    """By the times of the signatures."""
    simulated.sign(ALICE, subject=simulated.other.root, now=NOW - timedelta(days=1))
    simulated.sign(ALICE, subject=simulated.root, now=NOW - timedelta(days=2))
    move_tag(simulated, simulated.other.digest)
    pull(simulated)
    move_tag(simulated, simulated.root.digest)
    assert refusal(simulated, "pull", f"{simulated.place}:base", "-f", "--no-rollback")["reasons"] == ["rolled-back"]


def test_103_a_record_of_what_was_seen_that_is_damaged(simulated: Scene) -> None:
    """Without --no-rollback it is told; with it nothing is taken."""
    pull(replace(simulated, policy='require = "unsigned"'))
    (simulated.casstore.store / "state/last-seen.json").write_text('{"version": 1, "refs": {}, "refs": {}}')
    simulated.policy = 'require = "unsigned"'
    assert "warning: what" in pull(simulated).stderr
    simulated.policy += "\nno_rollback = true"
    assert "last-seen.json" in pull(simulated, code=12).stderr


def flood(scene: Scene, count: int) -> None:
    """So many signatures that are not there, at the beginning of the list of what refers to the snapshot."""
    registry = registry_of(scene)
    tag = (scene.repository, f"sha256-{scene.root.digest.hex}")
    _, raw = registry.contents.manifests[scene.repository, registry.contents.tags[tag]]
    index = json.loads(raw)
    entry = {"mediaType": spec.MEDIA_MANIFEST, "artifactType": MEDIA_TYPE, "size": 700}
    index["manifests"] = [
        *({**entry, "digest": str(Digest.of(b"%d" % number))} for number in range(count)),
        *index["manifests"],
    ]
    flooded = dump(index)
    registry.contents.manifests[scene.repository, str(Digest.of(flooded))] = (spec.MEDIA_INDEX, flooded)
    registry.contents.tags[tag] = str(Digest.of(flooded))


@pytest.mark.parametrize("behind", [False, True])
def test_103_ten_thousand_signatures(simulated: Scene, behind: bool) -> None:
    """Of which one is good, at the very end; or none."""
    simulated.sign(ALICE if behind else MALLORY)
    flood(simulated, 9_999)
    registry_of(simulated).requests.clear()
    document = refusal(simulated, "pull", f"{simulated.place}:base")
    assert set(document["reasons"]) == {"too-many", "unreadable"}
    assert len(registry_of(simulated).requests) < MAX_TRIED + 20
    assert len(document["message"]) < 2000
    assert fetched(simulated) == []


def test_103_a_good_signature_behind_some_junk_counts(simulated: Scene) -> None:
    """Else anybody who may add a referrer could keep others from pulling."""
    simulated.sign(ALICE)
    flood(simulated, MAX_TRIED - 1)
    pull(simulated)


def test_103_a_tag_that_moves_meanwhile(simulated: Scene) -> None:
    """What was judged is what is pulled."""
    simulated.sign(ALICE)
    registry_of(simulated).faults.retag = str(simulated.other.digest)
    assert pull(simulated).stdout.strip().endswith(str(simulated.root.digest))
    assert refusal(simulated, "pull", f"{simulated.place}:base", "-f")["reasons"] == ["no-signatures"]


def test_103_a_registry_that_does_not_answer_for_the_signatures(simulated: Scene) -> None:
    """That is no answer that there are none, or that they are good."""
    simulated.sign(ALICE)
    registry = registry_of(simulated)

    def fail(seen: Seen) -> None:
        registry.faults.status = 503 if "referrers" in seen.path or "/sha256-" in seen.path else None

    registry.watcher = fail
    before = all_files(simulated.casstore.store)
    assert "503" in pull(simulated, code=14).stderr
    assert fetched(simulated) == []
    assert all_files(simulated.casstore.store) == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "can be read"),
        ("", "version"),
        ('version = 1\ndefault = "accept"\nkeyz = 1', "keyz"),
        ('version = 2\ndefault = "accept"', "version"),
        ('version = 1\ndefault = "accept"\n[[rules]]\nscope = "*"\nrequire = "signed"\nkeys = ["nobody"]', "nobody"),
        ("\x00", "TOML"),
    ],
)
@pytest.mark.parametrize("way", ["option", "variable", "store"])
def test_a_policy_that_cannot_be_followed_lets_nothing_through(
    simulated: Scene, text: str | None, problem: str, way: str
) -> None:
    casstore = simulated.casstore
    path = (casstore.store if way == "store" else casstore.folder) / "casstore.policy.toml"
    if text is not None:
        path.write_text(text)
    elif way == "store":
        path.symlink_to("nowhere")
    if way == "variable":
        casstore.env["CASSTORE_POLICY"] = str(path)
    options = ["--policy", str(path)] if way == "option" else []
    place = f"{simulated.place}:base"
    registry_of(simulated).requests.clear()
    for words in (
        ["pull", place, "--plain-http"],
        ["copy", place, "oci:layout", "--plain-http"],
        ["inspect", place, "--plain-http"],
        ["verify", place, "--plain-http"],
        ["import", str(casstore.folder / "archive.tar")],
    ):
        told = casstore(*words, *options, code=2).stderr
        assert "policy" in told
        assert problem in told
    assert registry_of(simulated).requests == []
