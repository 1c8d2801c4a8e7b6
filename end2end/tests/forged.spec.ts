// Forged tokens, judged by the server and by an independent verifier (jose): what the server accepts, jose accepts; and
// where jose accepts what the server refuses, the reason has a name here. Without a page.
import { createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { expect, test } from "@playwright/test";
import * as jose from "jose";
import { Server } from "./server";

/** Why the server is stricter on purpose. Each must be met at least once. */
const STRICT = {
  spelling: "base64url in its one canonical spelling (RFC 8725bis; RFC 7515, section 2)",
  twice: "no member twice (RFC 8725bis; RFC 7515, section 4 leaves it open)",
  header: "nothing in the header that brings a key or another encoding",
  typ: "only the types of this kind of token",
  audience: "a proof for others, too, could be played on by them",
  long: "a proof is valid for five minutes at most",
  early: "not issued in the future",
  jti: "an identifier that can be kept: text, neither empty nor endless, nor with control characters",
  size: "no token of more than 8 KiB",
  json: "JSON that every reader understands alike: no byte order mark, no half characters, not nested without end (RFC 7493)",
} as const;

type Case = { what: string; token: string; strict?: keyof typeof STRICT };
type Json = Record<string, unknown>;

const base64url = (data: string | Uint8Array) => Buffer.from(data).toString("base64url");
const text = (part: string) => Buffer.from(part, "base64url").toString("utf8");

/** Any two texts, honestly signed with this key. */
function signed(key: KeyObject, header: string | Uint8Array, claims: string | Uint8Array): string {
  const message = `${base64url(header)}.${base64url(claims)}`;
  return `${message}.${base64url(sign("sha256", Buffer.from(message), { key, dsaEncoding: "ieee-p1363" }))}`;
}

/** The other signature of ECDSA that says the same: (r, n - s). */
function mirrored(signature: string): string {
  const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const bytes = Buffer.from(signature, "base64url");
  const s = n - BigInt(`0x${bytes.subarray(32).toString("hex")}`);
  return base64url(Buffer.concat([bytes.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, "0"), "hex")]));
}

/** `{"a":1}` with a member in front that may be there already. */
const withFront = (json: string, member: string) => `{${member},${json.slice(1)}`;

/** The same bytes in spellings that lenient decoders take, and some that none does. */
function respelled(part: string): string[] {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const padded = part + "=".repeat((4 - (part.length % 4)) % 4);
  const spellings = [`${part}=`, `${part}==`, padded, ` ${part}`, `${part}\n`, `${part.slice(0, 8)} ${part.slice(8)}`];
  const unused = { 2: 4, 3: 2 }[part.length % 4] ?? 0;
  for (let bits = 1; bits < 1 << unused; bits += 1) {
    const last = alphabet.indexOf(part.at(-1)!);
    spellings.push(part.slice(0, -1) + alphabet[last ^ bits]);
  }
  spellings.push(part.replace(/-/g, "+").replace(/_/g, "/"), Buffer.from(part, "base64url").toString("hex"));
  return spellings.filter((spelling) => spelling !== part);
}

/** Everything that can be made of a token without its key. */
function* withoutTheKey(token: string, jwk: jose.JWK): Generator<Case> {
  const parts = token.split(".") as [string, string, string];
  const [header, claims, signature] = parts;
  const names = ["header", "claims", "signature"];
  const put = (index: number, part: string) => parts.map((old, i) => (i === index ? part : old)).join(".");
  for (const [index, part] of parts.entries()) {
    for (let at = 0; at < part.length; at += 3) {
      const flipped = String.fromCharCode(part.charCodeAt(at) ^ (1 << (at % 7)));
      const altered = part.slice(0, at) + flipped + part.slice(at + 1);
      // Of a last character only some bits may count.
      const same = Buffer.from(altered, "base64url").equals(Buffer.from(part, "base64url"));
      yield { what: `character ${at} of ${names[index]}`, token: put(index, altered), strict: same ? "spelling" : undefined };
    }
    for (let at = 0; at < part.length * 0.7; at += 5) {
      const bytes = Buffer.from(part, "base64url");
      bytes[at]! ^= 1 << (at % 8);
      yield { what: `byte ${at} inside ${names[index]}`, token: put(index, base64url(bytes)) };
    }
    for (const spelling of respelled(part)) {
      yield { what: `${names[index]} spelled ${JSON.stringify(spelling.slice(-8))}`, token: put(index, spelling), strict: "spelling" };
    }
    yield { what: `no ${names[index]}`, token: put(index, "") };
    yield { what: `${names[index]} twice`, token: put(index, `${part}.${part}`) };
  }
  for (let length = 1; length < token.length; length += 17) yield { what: `${length} characters`, token: token.slice(0, length) };
  for (const around of [`${token}.`, `.${token}`, `${token}.${token}`, `${header}.${claims}`]) yield { what: "other dots", token: around };
  yield { what: "an encrypted one", token: `${token}.${header}.${claims}` };
  yield { what: "too long", token: `${token}${"A".repeat(8192)}` };

  const said = { header: JSON.parse(text(header)) as Json, claims: JSON.parse(text(claims)) as Json };
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const stranger = other.publicKey.export({ format: "jwk" });
  const headers: Json[] = [
    ...["none", "None", "nOnE", "HS256", "RS256", "ES384", "EdDSA", "es256", "", null].map((alg) => ({ alg })),
    ...["JWT", "jwt", "application/at+jwt", "AT+JWT", "", null].map((typ) => ({ typ })),
    ...["", "../key", "' OR '1'='1", jwk.kid!.slice(1), `${jwk.kid}A`, null, 1].map((kid) => ({ kid })),
    ...[["exp"], ["b64"], [], null].map((crit) => ({ crit })),
    { b64: false, crit: ["b64"] }, { b64: true }, { zip: "DEF" }, { enc: "A128GCM" }, { cty: "JWT" }, { extra: 1 },
    { jwk: stranger }, { jku: "http://localhost:1/jwks" }, { x5u: "http://localhost:1/x" }, { x5c: ["MIIB"] }, { x5t: "AAAA" },
  ];
  for (const change of headers) {
    const changed = JSON.stringify({ ...said.header, ...change });
    const what = `header ${JSON.stringify(change).slice(0, 40)}`;
    yield { what, token: put(0, base64url(changed)) };
    yield { what: `${what}, not signed`, token: `${base64url(changed)}.${claims}.` };
    yield { what: `${what}, signed by a stranger`, token: signed(other.privateKey, changed, text(claims)) };
  }
  for (const [name, old] of Object.entries(said.claims)) {
    for (const value of [undefined, null, "", 0, 9_999_999_999, `${String(old)}x`, [old], { [name]: old }, "admin"]) {
      const changed = JSON.stringify({ ...said.claims, [name]: value });
      const what = `${name}: ${String(JSON.stringify(value)).slice(0, 24)}`;
      yield { what, token: put(1, base64url(changed)) };
      yield { what: `${what}, signed by a stranger`, token: signed(other.privateKey, text(header), changed) };
    }
    yield { what: `${name} twice`, token: put(1, base64url(withFront(text(claims), `"${name}":${JSON.stringify(old)}`))) };
  }
  for (const [name, old] of Object.entries(said.header)) {
    yield { what: `${name} twice`, token: put(0, base64url(withFront(text(header), `"${name}":${JSON.stringify(old)}`))) };
  }
  yield { what: "indented", token: put(1, base64url(JSON.stringify(said.claims, null, 2))) };

  // The public key as the secret of HMAC, in every form it is to be had in.
  const hmacHeader = base64url(JSON.stringify({ ...said.header, alg: "HS256" }));
  const point = Buffer.concat([Buffer.from([4]), Buffer.from(jwk.x!, "base64url"), Buffer.from(jwk.y!, "base64url")]);
  for (const [form, secret] of Object.entries({ point, x: Buffer.from(jwk.x!, "base64url"), jwk: Buffer.from(JSON.stringify(jwk)), kid: Buffer.from(jwk.kid!) })) {
    for (const front of [hmacHeader, header]) {
      const mac = createHmac("sha256", secret).update(`${front}.${claims}`).digest("base64url");
      yield { what: `HMAC with ${form}`, token: `${front}.${claims}.${mac}` };
    }
  }
  for (const [what, bytes] of Object.entries({ zeros: Buffer.alloc(64), ones: Buffer.alloc(64, 255), short: Buffer.alloc(63, 1), long: Buffer.alloc(65, 1) })) {
    yield { what: `a signature of ${what}`, token: put(2, base64url(bytes)) };
  }
  const der = Buffer.from(signature, "base64url");
  yield { what: "r and s changed places", token: put(2, base64url(Buffer.concat([der.subarray(32), der.subarray(0, 32)]))) };
}

/** What a client could sign itself, well or badly. `now` in seconds. */
function* withTheKey(key: KeyObject, client: string, audiences: [string, string], now: number): Generator<Case> {
  let number = 0;
  const header = { alg: "ES256", kid: "k1" };
  const fresh = (): Json => ({ iss: client, sub: client, aud: audiences[0], jti: `jti ${(number += 1)}`, iat: now, exp: now + 60 });
  const json = JSON.stringify;
  const made = (what: string, headers: Json, claims: Json, strict?: Case["strict"]): Case => ({
    what: `${what} ${json(headers).slice(0, 48)} ${json(claims).slice(0, 80)}`,
    token: signed(key, json({ ...header, ...headers }), json({ ...fresh(), ...claims })),
    strict,
  });
  yield made("as it should be", {}, {});
  for (const typ of ["JWT", "client-authentication+jwt", undefined]) yield made("typ", { typ }, {});
  for (const typ of ["at+jwt", "logout+jwt", "", "jwt "]) yield made("typ", { typ }, {}, "typ");
  for (const typ of [1, null, ["JWT"]]) yield made("typ", { typ }, {}, "typ");
  for (const kid of [undefined, "k1"]) yield made("kid", { kid }, {});
  for (const alg of ["none", "HS256", "ES384", "EdDSA", "es256", 1, null, undefined]) yield made("alg", { alg }, {});
  for (const crit of [["exp"], ["b64"], [], null, "exp"]) yield made("crit", { crit }, {}, "header");
  for (const more of [{ b64: true }, { b64: false }, { zip: "DEF" }, { enc: "A128GCM" }, { jwk: {} }, { jku: "http://localhost:1" }, { x5u: "http://localhost:1" }, { x5c: [] }, { x5t: "AA" }, { "x5t#S256": "AA" }]) {
    yield made("header", more, {}, "header");
  }
  for (const more of [{ extra: 1 }, { cty: "JWT" }]) yield made("header", more, {});

  for (const name of ["iss", "sub"]) {
    for (const value of [undefined, null, "", "svc-other", [client], 1, `${client}x`]) yield made(name, {}, { [name]: value });
  }
  for (const aud of [audiences[1], audiences, [audiences[0]]]) yield made("aud", {}, { aud });
  for (const aud of [undefined, null, "", [], "https://evil.example", `${audiences[0]}/`, { 0: audiences[0] }, 1]) yield made("aud", {}, { aud });
  for (const aud of [[audiences[0], "https://evil.example"], [audiences[0], 1], [...audiences, null]]) yield made("aud", {}, { aud }, "audience");
  for (const exp of [now + 120, now + 60.5, now - 5]) yield made("exp", {}, { exp });
  for (const exp of [undefined, null, "", `${now + 60}`, now - 120, 0, -1, [now + 60]]) yield made("exp", {}, { exp });
  for (const exp of [now + 3600, 1e12, 1e300, Number.MAX_SAFE_INTEGER]) yield made("exp", {}, { exp }, "long");
  for (const claim of ["iat", "nbf"]) {
    for (const at of [now - 60, now + 5, undefined, 0]) yield made(claim, {}, { [claim]: at });
    for (const at of ["1", null, true]) yield made(claim, {}, { [claim]: at });
    for (const at of [now + 3600, 1e12]) yield made(claim, {}, { [claim]: at }, "early");
    yield made(claim, {}, { [claim]: -1 }, "early");
  }
  yield made("no jti", {}, { jti: undefined });
  for (const jti of [null, 1, "", ["x"], "x".repeat(257), "a\u0000b", "a\nb"]) yield made("jti", {}, { jti }, "jti");
  for (const more of [{ scope: "admin" }, { htm: "POST", nested: { a: [1, 2] } }]) yield made("further claims", {}, more);
  yield made("a long one", {}, { extra: "x".repeat(4000) });
  yield made("too long", {}, { extra: "x".repeat(8000) }, "size");

  const claims = () => json(fresh());
  for (const member of [`"sub":"svc-other"`, `"aud":"https://evil.example"`, `"exp":0`, `"\\u0073ub":"svc-other"`, `"x":{"a":1,"a":2}`, `"x":[[{"a":1,"a":2}]]`]) {
    yield { what: `twice: ${member}`, token: signed(key, json(header), withFront(claims(), member)), strict: "twice" };
  }
  for (const member of [`"alg":"none"`, `"kid":"other"`, `"\\u0061lg":"none"`]) {
    yield { what: `twice: ${member}`, token: signed(key, withFront(json(header), member), claims()), strict: "twice" };
  }
  const bytes = (...pieces: (string | number[])[]) => Buffer.concat(pieces.map((piece) => Buffer.from(piece as string)));
  for (const body of [
    json(fresh(), null, 2), ` ${claims()}\n`, `${claims()}{}`, `${claims()} x`, `[${claims()}]`, "null", '"text"', "{}", "", "{'a':1}",
    bytes('{"x":"', [0xff], '",', claims().slice(1)), `{"x":NaN,${claims().slice(1)}`,
    `{"x":"\n",${claims().slice(1)}`,
  ]) {
    yield { what: `claims ${String(body).slice(0, 30)}`, token: signed(key, json(header), body) };
    yield { what: `header ${String(body).slice(0, 30)}`, token: signed(key, body, claims()) };
  }
  for (const body of [
    bytes([0xef, 0xbb, 0xbf], claims()), `{"x":"\\ud800",${claims().slice(1)}`, `{"x":${"[".repeat(1000)}${"]".repeat(1000)},${claims().slice(1)}`,
  ]) {
    yield { what: `claims ${String(body).slice(0, 30)}`, token: signed(key, json(header), body), strict: "json" };
  }
  const [front, body, signature] = signed(key, json(header), claims()).split(".") as [string, string, string];
  for (const spelling of respelled(signature)) {
    yield { what: `signature spelled ${json(spelling.slice(-8))}`, token: `${front}.${body}.${spelling}`, strict: "spelling" };
  }
}

/** Lets both judge every case; which they agree to accept, by name. */
async function compare(title: string, cases: Iterable<Case>, ours: (token: string) => Promise<boolean>, theirs: (token: string) => Promise<unknown>) {
  const wrong: string[] = [];
  const both: string[] = [];
  const strict: Partial<Record<keyof typeof STRICT, number>> = {};
  let refused = 0;
  for (const { what, token, strict: reason } of cases) {
    const we = await ours(token);
    const error = await theirs(token).then(() => undefined, (error: unknown) => error);
    // Anything but a verdict is a fault of this test.
    if (error !== undefined && !(error instanceof jose.errors.JOSEError)) throw error;
    const they = error === undefined;
    if (we && they) both.push(what);
    else if (we) wrong.push(`only the server accepts: ${what} (${String(error)})`);
    else if (!they) refused += 1;
    else if (reason === undefined) wrong.push(`only jose accepts, and nobody knows why: ${what}`);
    else strict[reason] = (strict[reason] ?? 0) + 1;
  }
  console.log(`${title}: ${both.length} accepted by both, ${refused} refused by both, accepted by jose alone: ${JSON.stringify(strict)}`);
  expect(wrong).toEqual([]);
  return { both, refused, strict };
}

test.describe("forged tokens", () => {
  let server: Server;
  // Far more wrong proofs than an honest network sends.
  const rate = { BURST: "100000", EVERY_SECONDS: "1" };
  const limits = ["ADDRESS", "ACCOUNT_AT_ADDRESS", "ACCOUNT"].flatMap((bucket) =>
    Object.entries(rate).map(([name, value]) => [`MAYFLY__LIMITS__CLIENT__${bucket}__${name}`, value]),
  );
  test.beforeAll(async () => {
    server = await Server.start(Object.fromEntries(limits));
  });
  test.afterAll(() => server?.stop());

  async function addClient(...words: string[]): Promise<{ id: string; secret: string }> {
    const said = await server.command("clients", "add", ...words);
    return { id: said.match(/^client_id: (svc-\S+)$/m)![1]!, secret: said.match(/^client_secret: (mcs_\S+)$/m)?.[1] ?? "" };
  }

  /** A form, and what came of it; a fault of the server is none of the verdicts. */
  async function post(path: string, fields: Record<string, string>): Promise<{ status: number; body: Json }> {
    const response = await fetch(server.url + path, { method: "POST", body: new URLSearchParams(fields) });
    const body = (await response.json()) as Json;
    expect([200, 400, 401], `${path}: ${JSON.stringify(body)}`).toContain(response.status);
    return { status: response.status, body };
  }

  test("F49: of hundreds of forged access tokens the server accepts none that an independent verifier refuses", async () => {
    const service = await addClient("--name", "Reports", "--scope", "read");
    const asking = await addClient("--name", "Asks", "--may-introspect");
    const proof = (client: { id: string; secret: string }) => ({ client_id: client.id, client_secret: client.secret });
    const issued = await post("/oauth/token", { grant_type: "client_credentials", ...proof(service) });
    const token = issued.body.access_token as string;
    const published = (await (await fetch(`${server.url}/.well-known/jwks.json`)).json()) as jose.JSONWebKeySet;
    const jwk = published.keys.find((key) => key.kid === jose.decodeProtectedHeader(token).kid)!;
    const keys = jose.createLocalJWKSet(published);
    const options = { issuer: server.url, audience: server.url, typ: "at+jwt", algorithms: ["ES256"], clockTolerance: 30 };
    const ours = async (token: string) => (await post("/oauth/introspect", { token, ...proof(asking) })).body.active === true;
    const theirs = (token: string) => jose.jwtVerify(token, keys, options);
    const [header, claims, signature] = token.split(".") as [string, string, string];
    const genuine: Case[] = [
      { what: "genuine", token },
      // Nothing here depends on the bytes of a token: what is revoked is its id, session or key.
      { what: "mirrored", token: `${header}.${claims}.${mirrored(signature)}` },
    ];
    const said = await compare("access tokens", [...genuine, ...withoutTheKey(token, jwk)], ours, theirs);
    expect(said.both).toEqual(["genuine", "mirrored"]);
    expect(said.refused).toBeGreaterThan(400);
    expect(Object.keys(said.strict)).toEqual(["spelling"]);
  });

  test("F49: of a client's own proofs the server accepts none that an independent verifier refuses", async () => {
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const jwk = { ...pair.publicKey.export({ format: "jwk" }), kid: "k1" };
    const { id } = await addClient("--name", "Signs", "--scope", "read", "--public-key", await server.file("signs.jwk", JSON.stringify(jwk)));
    const endpoint = `${server.url}/oauth/token`;
    const options = { issuer: id, subject: id, audience: [server.url, endpoint], algorithms: ["ES256"], requiredClaims: ["exp", "jti"], clockTolerance: 30 };
    const ours = async (client_assertion: string) => {
      const client_assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
      const answer = await post("/oauth/token", { grant_type: "client_credentials", client_assertion_type, client_assertion });
      return answer.status === 200;
    };
    const theirs = (token: string) => jose.jwtVerify(token, pair.publicKey, options);
    const cases = withTheKey(pair.privateKey, id, [server.url, endpoint], Math.floor(Date.now() / 1000));
    const said = await compare("assertions", cases, ours, theirs);
    expect(said.both.length).toBeGreaterThan(15);
    expect(said.refused).toBeGreaterThan(40);
    expect(Object.keys(said.strict).sort()).toEqual(Object.keys(STRICT).sort());
  });
});
