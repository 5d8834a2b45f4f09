"""Signatures: what they look like, and whether one is what it says. No I/O, and no policy: whose signature is wanted is
for `casstore.trust` to say.

    keys            public and private keys, and their files
    dsse            the envelope: what exactly is signed
    statement       what a bundle's signature says (in-toto)
    bundle          a sigstore bundle, the form that casstore writes
    simplesigning   what a signature of cosign's older form says
    redaction       messages without private keys
    claims          a signature as it was found (evidence), and what it says once it is verified (a claim)
"""
