"""sign: to say, with a key, that a snapshot is one's own; and what `push --sign` has in common with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from casstore.cli import remotes, render
from casstore.cli.connection import Connection, Registries, connection_options
from casstore.cli.damage import with_next_step
from casstore.cli.env import expand_home
from casstore.cli.keyfiles import Passphrases, passphrase_option, private_key
from casstore.cli.options import GroupedOption, complete_names, gathered, json_option, quiet_option, verb
from casstore.cli.session import Session
from casstore.cli.signatures import made_documents

if TYPE_CHECKING:
    from casstore.digest import Digest
    from casstore.sign import Signing
    from casstore.signatures.claims import Signed

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """The options of one run about signing."""

    key: tuple[str, ...]
    annotation: tuple[str, ...]
    repository: str | None
    any_repository: bool
    cosign_tag: bool
    passphrase_file: str | None

    def require_key(self, option: str) -> None:
        """Raise UsageError where something is said of signing, but not with which key."""
        given = {
            "-a": self.annotation,
            "--repository": self.repository,
            "--any-repository": self.any_repository,
            "--cosign-tag": self.cosign_tag,
            "--passphrase-file": self.passphrase_file,
        }
        useless = [name for name, value in given.items() if value]
        if useless and not self.key:
            raise click.UsageError(f"{', '.join(useless)}: expected {option} with it, got none")

    def signing(self, session: Session) -> Signing:
        """What to sign with; each key is opened, and its passphrase asked for, once.

        Raises:
            click.UsageError: options that do not go together.
            InvalidKey, UsageError: a key that cannot be opened.
        """
        if self.repository is not None and self.any_repository:
            raise click.UsageError("expected either --repository or --any-repository")
        annotations = {}
        for text in self.annotation:
            name, equals, value = text.partition("=")
            if not (name and equals):
                raise click.UsageError(f"invalid -a {text!r}: expected K=V")
            annotations[name] = value
        from casstore.sign import Signing

        passphrases = Passphrases(session.settings, self.passphrase_file)
        return Signing(
            keys=[private_key(expand_home(path), passphrases) for path in dict.fromkeys(self.key)],
            annotations=annotations,
            repository=self.repository,
            any_repository=self.any_repository,
            cosign_tag=self.cosign_tag,
        )


def signer_options(key: str, *, required: bool, heading: str = "Options") -> Callable[[F], F]:
    """Gives the function a Signer as `signer`; `key` is how the option for the key is called."""

    def option(*names: str, **settings: Any) -> Callable[[F], F]:
        return click.option(*names, cls=GroupedOption, heading=heading, **settings)

    return gathered(
        Signer,
        "signer",
        option(
            key,
            "key",
            multiple=True,
            required=required,
            metavar="FILE",
            help="The private key to sign with; may be given several times: each makes a signature.",
        ),
        option(
            "-a",
            "--annotation",
            multiple=True,
            metavar="K=V",
            help="Sign this, too, besides the snapshot's id, labels, source and image; may be given several times.",
        ),
        option("--repository", metavar="HOST/REPO", help="The repository that the signature is for."),
        option("--any-repository", is_flag=True, help="The signature is for every repository."),
        option(
            "--cosign-tag", is_flag=True, help="Sign in the form of older tools, too: under a tag sha256-<hex>.sig."
        ),
        functools.partial(passphrase_option, heading=heading),
    )


@verb(
    "sign",
    examples="""
    casstore sign base --key release.key
    casstore sign base --key release.key -a reviewed-by=ann --repository registry.example/team/disks
    casstore sign registry.example/team/disks:base --key release.key --key ci.key
    casstore sign oci:/media/backup:base --key release.key --passphrase-file ~/release.passphrase""",
)
@click.argument("snapshot", metavar="SNAPSHOT|REFERENCE", shell_complete=complete_names)
@signer_options("--key", required=True)
@json_option
@quiet_option
@connection_options
@click.pass_obj
@with_next_step()
def sign(session: Session, snapshot: str, signer: Signer, connection: Connection) -> None:
    """Sign a snapshot of the store, or one in a registry or OCI layout, where it is.

    What is signed is the digest: nobody can change a byte of it then. By a tag it is what the tag stands for now. A
    signature made in a registry is for that repository alone, unless --any-repository is given; one made elsewhere is
    for any, unless --repository says which.

    Signatures are kept beside the snapshot, as sigstore bundles; push --referrers and copy --referrers take them along.
    Writes for each the fingerprint of the key, the digest that was signed, and where the signature is.
    """
    signing = signer.signing(session)
    if remotes.is_reference(snapshot):
        from casstore.reference import parse_reference
        from casstore.remote import sign_remote
        from casstore.transfer import TransferOptions

        place = parse_reference(snapshot)
        options = TransferOptions(Registries(session, connection))
        digest, signed = sign_remote(place, signing, options, stores=session.store_options)
        where, repository, more = place.name, signing.repository_at(place), ""
        wanted = snapshot if place.digest is not None else f"{snapshot} ({digest.short})"
    else:
        with session.open_store() as store:
            digest = store.get(snapshot).digest
            signed = store.sign(str(digest), signing)
            where, repository = f"oci:{store.path}", signing.repository_at(None)
        wanted, more = snapshot, "; push --referrers takes it along"
    if session.as_json:
        session.emit_document(**_document(digest, signed, where=where, repository=repository))
        return
    for each in signed:
        session.emit(render.printable(f"{each.key.fingerprint}  {digest}  {where}@{each.descriptor.digest}"))
    tell_signed(session, wanted, [each.key.name for each in signed], repository, more)


def tell_signed(session: Session, what: str, keys: Iterable[str], repository: str | None, more: str = "") -> None:
    """Which keys signed what, for which repository."""
    session.say(
        f"signed {what} with {render.some(list(dict.fromkeys(keys)))}, for {repository or 'any repository'}{more}"
    )


def _document(digest: Digest, signed: Sequence[Signed], *, where: str, repository: str | None) -> dict[str, Any]:
    return {
        "reference": f"{where}@{digest}",
        "digest": str(digest),
        "repository": repository,
        "signatures": made_documents(signed),
    }
