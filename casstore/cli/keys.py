"""key: making keys to sign with, and looking at them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from casstore.cli.env import expand_home
from casstore.cli.keyfiles import Passphrases, passphrase_option, private_key, read_key_file
from casstore.cli.options import Verb, VerbGroup, force_option, json_option, quiet_option
from casstore.cli.render import fields, printable
from casstore.cli.session import Session
from casstore.errors import AlreadyExists

if TYPE_CHECKING:
    from casstore.signatures.keys import Kind, PublicKey

_KINDS = ("ecdsa-p256", "ed25519")


@click.group(
    "key",
    cls=VerbGroup,
    no_args_is_help=False,
    examples="""
    casstore key generate release
    casstore key show release.key release.pub
    casstore key public release.key > release.pub""",
)
def key() -> None:
    """Make keys to sign snapshots with, and look at them.

    Keys are PEM files of ECDSA P-256 or Ed25519, which openssl reads too: private ones as PKCS#8, public ones as
    SubjectPublicKeyInfo. Private keys that cosign has encrypted are read, too (pip install 'casstore[cosign]').
    """


@key.command(
    "generate",
    cls=Verb,
    examples="""
    casstore key generate
    casstore key generate keys/release --type ed25519
    casstore key generate ci --passphrase-file ci.passphrase""",
)
@click.argument("prefix", default="casstore")
@click.option("--type", "kind", type=click.Choice(_KINDS), default="ecdsa-p256", show_default=True, help="Of the key.")
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unencrypted, for whoever can read the file.")
@passphrase_option
@force_option("Replace files that are there. What was signed with the old key stays so; the key itself is lost.")
@json_option
@quiet_option
@click.pass_obj
def generate(
    session: Session, prefix: str, kind: Kind, no_passphrase: bool, passphrase_file: str | None, force: bool
) -> None:
    """Make a key: PREFIX.key, to sign with, and PREFIX.pub, to give to whoever verifies.

    Without a PREFIX they are casstore.key and casstore.pub. The private key is encrypted with a passphrase, and its
    file is for you alone (mode 0600).
    """
    from casstore.durable import new_file, write_all
    from casstore.signatures.keys import PrivateKey

    if no_passphrase and passphrase_file is not None:
        raise click.UsageError("--no-passphrase: expected no --passphrase-file with it")
    private, public = (f"{expand_home(prefix)}{ending}" for ending in (".key", ".pub"))
    for path in (private, public):
        if not force and os.path.lexists(path):
            raise AlreadyExists(f"{path!r} exists already; choose another PREFIX, or force with -f")
    passphrases = Passphrases(session.settings, passphrase_file)
    passphrase = None if no_passphrase else passphrases.choose(private)
    made = PrivateKey.generate(kind, name=private)
    secret = made.to_pem(passphrase)
    with ExitStack() as files:
        for path, mode, content in ((public, 0o644, made.public.to_pem()), (private, 0o600, secret)):
            fd = files.enter_context(new_file(path, replace=force, durability=session.durability, mode=mode))
            write_all(fd, content)
    if session.as_json:
        told = {"private_file": private, "public_file": public, "encrypted": passphrase is not None}
        session.emit_document(**_facts(made.public), **told)
        return
    session.emit(str(made.public.fingerprint))
    state = "not encrypted" if no_passphrase else "encrypted"
    session.say(f"made {private}, {state}, to sign with, and {public}, to verify with; keep the first to yourself")


@key.command(
    "show",
    cls=Verb,
    examples="""
    casstore key show release.pub
    casstore key show *.key --json""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@passphrase_option
@json_option
@click.pass_obj
def show(session: Session, files: tuple[str, ...], passphrase_file: str | None) -> None:
    """Show what keys are in files. A private key that is encrypted has to be opened for that.

    Fingerprint is the sha256 of the public key; a signature has it in base64, as a hint which key it is by.
    """
    passphrases = Passphrases(session.settings, passphrase_file)
    shown = [{"file": file, **_look(file, passphrases)} for file in files]
    if session.as_json:
        session.emit_document(keys=shown)
        return
    for number, facts in enumerate(shown):
        if number:
            session.emit("")
        state = "encrypted" if facts["encrypted"] else "not encrypted"
        rows = {
            "File": printable(facts["file"]),
            "Key": f"private, {state}" if facts["private"] else "public",
            "Type": facts["type"],
            "Fingerprint": facts["fingerprint"],
            "Hint": facts["hint"],
        }
        for row in fields(rows.items()):
            session.emit(row)


@key.command("public", cls=Verb, examples="casstore key public release.key > release.pub")
@click.argument("file")
@passphrase_option
@click.pass_obj
def public(session: Session, file: str, passphrase_file: str | None) -> None:
    """Write the public part of a private key to stdout, as PEM."""
    opened = private_key(expand_home(file), Passphrases(session.settings, passphrase_file))
    session.emit(opened.public.to_pem().decode("ascii").rstrip())


def _look(file: str, passphrases: Passphrases) -> dict[str, Any]:
    """What `key show` tells of a file."""
    from casstore.signatures.keys import PrivateKey, PublicKey, is_encrypted, is_private

    raw = read_key_file(expand_home(file))
    if not is_private(raw):
        return {**_facts(PublicKey.parse(raw, name=file)), "private": False, "encrypted": False}
    opened = PrivateKey.parse(raw, name=file, passphrase=lambda: passphrases.open(file))
    return {**_facts(opened.public), "private": True, "encrypted": is_encrypted(raw)}


def _facts(public: PublicKey) -> dict[str, Any]:
    return {"type": public.kind, "fingerprint": str(public.fingerprint), "hint": public.hint}
