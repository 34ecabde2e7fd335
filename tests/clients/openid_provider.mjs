// An OpenID provider which gives tokens (JWT) to clients that know their secret. Its keys are made anew at each start.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { pathToFileURL } from "node:url";

const [modules, port, secret] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(`${modules}/oidc-provider/lib/index.js`).href);

const kinds = {
  RS256: ["rsa", { modulusLength: 2048 }],
  PS256: ["rsa", { modulusLength: 2048 }],
  ES256: ["ec", { namedCurve: "P-256" }],
  ES384: ["ec", { namedCurve: "P-384" }],
  EdDSA: ["ed25519", {}],
};
const keys = Object.entries(kinds).map(([alg, [kind, options]]) => {
  const key = generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" });
  return { ...key, alg, use: "sig", kid: randomUUID() };
});

// A client is named `<who>-<algorithm>`: by which its tokens are signed.
const people = { etl: [], analyst: ["analysts", "everybody"], stranger: ["everybody"] };
const clients = Object.keys(people).flatMap((who) => Object.keys(kinds).map((alg) => ({
  client_id: `${who}-${alg}`, client_secret: secret, grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
})));

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients,
  jwks: { keys },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource, client) => ({
        audience: resource, scope: "", accessTokenFormat: "jwt", jwt: { sign: { alg: client.clientId.split("-")[1] } },
      }),
    },
  },
  extraTokenClaims: (_context, token) => ({ groups: people[token.clientId.split("-")[0]] }),
});
provider.listen(Number(port), "127.0.0.1");
