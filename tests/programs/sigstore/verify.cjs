// Verify sigstore bundles with sigstore's own library, and nothing of casstore.
//
//   node verify.cjs FOLDER < cases.json > outcomes.json
//
// FOLDER has node_modules. A case is {"bundle": JSON text, "key": PEM of the only trusted key}; its outcome is "ok", or
// what the library says. The key is handed out for every hint, so what refuses is the signature.
const { createPublicKey } = require("crypto");
const { createRequire } = require("module");
const { readFileSync } = require("fs");

const load = createRequire(`${process.argv[2]}/`);
const { bundleFromJSON } = load("@sigstore/bundle");
const { Verifier, toSignedEntity, toTrustMaterial } = load("@sigstore/verify");

function verify({ bundle, key }) {
  try {
    const publicKey = createPublicKey(key);
    const material = toTrustMaterial(
      { mediaType: "", certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] },
      () => ({ publicKey, validFor: () => true }),
    );
    const thresholds = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
    new Verifier(material, thresholds).verify(toSignedEntity(bundleFromJSON(JSON.parse(bundle))));
    return "ok";
  } catch (error) {
    return `${error.code ?? error.name}: ${error.message}`;
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(verify)));
