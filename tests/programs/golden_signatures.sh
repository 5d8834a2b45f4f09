#!/usr/bin/env bash
# Make fixtures/signatures/vectors with printf, base64 and openssl (3.0 or newer), without casstore. Ed25519 gives the
# same signature each time, so this writes the same bytes each time.
#
#   tests/programs/golden_signatures.sh
set -euo pipefail
cd "$(dirname "$0")/../../fixtures/signatures/vectors"

encode() { base64 --wrap=0; }

# The first key of RFC 8032, section 7.1: 16 bytes of PKCS#8 around its 32.
seed=9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60
printf '302e020100300506032b657004220420%s' "$seed" | xxd -r -p | openssl pkey -inform DER -out ed25519.key
openssl pkey -in ed25519.key -pubout -out ed25519.pub
hint=$(openssl pkey -in ed25519.key -pubout -outform DER | openssl dgst -sha256 -binary | encode)
subject=$(sha256sum ../../vectors/oci/artifact-manifest.json | cut -c 1-64)

annotations='"io.casstore.repository":"registry.example/team/disks","io.casstore.signed":"2026-01-02T03:04:05Z","note":"Gr\u00fc\u00dfe"'
annotations=$(printf '%b' "$annotations")
printf '{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://sigstore.dev/cosign/sign/v1","subject":[{"annotations":{%s},"digest":{"sha256":"%s"}}]}' \
    "$annotations" "$subject" >statement.json

type=application/vnd.in-toto+json
{
    printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(stat --format %s statement.json)"
    cat statement.json
} >statement.pae
openssl pkeyutl -sign -rawin -inkey ed25519.key -in statement.pae -out statement.sig
printf '{"dsseEnvelope":{"payload":"%s","payloadType":"%s","signatures":[{"sig":"%s"}]},"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"%s"}}}' \
    "$(encode <statement.json)" "$type" "$(encode <statement.sig)" "$hint" >bundle.json

printf '{"critical":{"identity":{"docker-reference":"registry.example/team/disks"},"image":{"docker-manifest-digest":"sha256:%s"},"type":"cosign container image signature"},"optional":{"io.casstore.signed":"2026-01-02T03:04:05Z"}}' \
    "$subject" >payload.json
printf '{"critical":{"identity":{"docker-reference":"registry.example/team/disks"},"image":{"docker-manifest-digest":"sha256:%s"},"type":"cosign container image signature"},"optional":null}' \
    "$subject" >payload-plain.json
openssl pkeyutl -sign -rawin -inkey ed25519.key -in payload.json -out payload.sig
