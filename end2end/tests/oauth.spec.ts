// Other software and native programs: a standard client (oauth4webapi) and a standard verifier (jose), both unchanged.
import * as jose from "jose";
import * as oauth from "oauth4webapi";
import { Person } from "./person";
import { siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();
/** The server speaks plain HTTP on loopback, and nowhere else. */
const loopback = { [oauth.allowInsecureRequests]: true };

async function discover(): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(site.server.url);
  const response = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...loopback });
  return oauth.processDiscoveryResponse(issuer, response);
}

/** Adds a client with the program's own command. */
async function addClient(...words: string[]): Promise<{ client: oauth.Client; secret: string }> {
  const said = await site.server.command("clients", "add", ...words);
  const client_id = said.match(/^client_id: (svc-\S+)$/m)?.[1] ?? "";
  const secret = said.match(/^client_secret: (mcs_\S+)$/m)?.[1] ?? "";
  expect(client_id, said).not.toBe("");
  return { client: { client_id }, secret };
}

async function serviceToken(
  as: oauth.AuthorizationServer,
  client: oauth.Client,
  proof: oauth.ClientAuth,
  parameters: Record<string, string> = {},
): Promise<oauth.TokenEndpointResponse> {
  const response = await oauth.clientCredentialsGrantRequest(as, client, proof, parameters, loopback);
  return oauth.processClientCredentialsResponse(as, client, response);
}

async function introspect(as: oauth.AuthorizationServer, client: oauth.Client, proof: oauth.ClientAuth, token: string) {
  const response = await oauth.introspectionRequest(as, client, proof, token, loopback);
  return oauth.processIntrospectionResponse(as, client, response);
}

/** The code of an OAuth error, as a standard client reads it. */
async function refusal(act: Promise<unknown>): Promise<string> {
  const error = await act.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof oauth.ResponseBodyError) return error.error;
  // RFC 9110: with a challenge in the answer, the library reads that first.
  if (error instanceof oauth.WWWAuthenticateChallengeError) return `challenge ${error.cause[0]?.scheme}`;
  throw error ?? new Error("it was not refused");
}

/** Signs a program in; its tokens are in its own hands. */
async function signInProgram(person: Person): Promise<{ access_token: string; refresh_token: string }> {
  const response = await fetch(`${site.server.url}/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ identifier: person.username, password: person.password }),
  });
  expect(response.status).toBe(200);
  const { tokens } = (await response.json()) as { tokens: { access_token: string; refresh_token: string } };
  return tokens;
}

test("R12: a standard client finds everything by itself", async () => {
  const as = await discover();
  expect(as.issuer).toBe(site.server.url);
  expect(as.grant_types_supported).toEqual(["client_credentials", "refresh_token"]);
  expect(as.authorization_endpoint).toBeUndefined();
  const keys = (await (await fetch(as.jwks_uri!)).json()) as jose.JSONWebKeySet;
  expect(keys.keys.length).toBeGreaterThan(0);
});

test("R7: a standard client gets tokens by secret and by signature, and a standard verifier takes them", async () => {
  const as = await discover();
  const keys = jose.createRemoteJWKSet(new URL(as.jwks_uri!));
  const verify = async (token: string) =>
    (await jose.jwtVerify(token, keys, { issuer: as.issuer, audience: as.issuer, typ: "at+jwt" })).payload;

  const reports = await addClient("--name", "Nightly reports", "--scope", "read", "--scope", "write", "--lifetime-seconds", "60");
  for (const proof of [oauth.ClientSecretBasic(reports.secret), oauth.ClientSecretPost(reports.secret)]) {
    const answer = await serviceToken(as, reports.client, proof, { scope: "read" });
    expect(answer).toMatchObject({ token_type: "bearer", scope: "read" });
    // `exp` is a whole second: what is left of the one under way is not promised.
    expect([59, 60]).toContain(answer.expires_in);
    expect(answer.refresh_token).toBeUndefined();
    const claims = await verify(answer.access_token);
    expect(claims).toMatchObject({ sub: reports.client.client_id, client_id: reports.client.client_id, scope: "read" });
    const headers = { authorization: `Bearer ${answer.access_token}` };
    const validated = await oauth.validateJwtAccessToken(as, new Request(as.issuer, { headers }), as.issuer, loopback);
    expect(validated.client_id).toBe(reports.client.client_id);
    // A person's door is not for services.
    expect((await fetch(`${site.server.url}/api/v1/me/sessions`, { headers })).status).toBe(401);
  }
  expect(await refusal(serviceToken(as, reports.client, oauth.ClientSecretBasic("mcs_wrong")))).toBe("challenge basic");
  const basic = oauth.ClientSecretBasic(reports.secret);
  expect(await refusal(serviceToken(as, reports.client, basic, { scope: "admin" }))).toBe("invalid_scope");

  for (const [alg, form] of [["ES256", "jwk"], ["EdDSA", "jwk"], ["ES256", "pem"], ["EdDSA", "pem"]] as const) {
    const pair = await jose.generateKeyPair(alg, { extractable: true });
    const text = form === "pem" ? await jose.exportSPKI(pair.publicKey) : JSON.stringify(await jose.exportJWK(pair.publicKey));
    const file = await site.server.file(`${alg}.${form}`, text);
    const added = await addClient("--name", `Signs ${alg} ${form}`, "--scope", "read", "--public-key", file);
    expect(added.secret, "a client with a key has no secret").toBe("");
    const answer = await serviceToken(as, added.client, oauth.PrivateKeyJwt(pair.privateKey as CryptoKey));
    expect(await verify(answer.access_token)).toMatchObject({ sub: added.client.client_id });
    const stranger = await jose.generateKeyPair(alg);
    const other = oauth.PrivateKeyJwt(stranger.privateKey as CryptoKey);
    expect(await refusal(serviceToken(as, added.client, other))).toBe("challenge basic");
    // An assertion that was caught on its way is worth nothing.
    const assertion = await new jose.SignJWT({})
      .setProtectedHeader({ alg })
      .setIssuer(added.client.client_id)
      .setSubject(added.client.client_id)
      .setAudience(as.token_endpoint!)
      .setJti(crypto.randomUUID())
      .setIssuedAt()
      .setExpirationTime("1m")
      .sign(pair.privateKey);
    const statuses = [];
    for (let use = 0; use < 2; use += 1) {
      const response = await fetch(as.token_endpoint!, {
        method: "POST",
        body: new URLSearchParams({
          grant_type: "client_credentials",
          client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
          client_assertion: assertion,
        }),
      });
      statuses.push(response.status);
    }
    expect(statuses).toEqual([200, 401]);
  }

  const listed = await site.server.command("clients", "list");
  expect(listed).toContain(reports.client.client_id);
  expect(listed).not.toContain(reports.secret);
  const last = await serviceToken(as, reports.client, basic);
  const asking = await addClient("--name", "Asks", "--may-introspect");
  const proof = oauth.ClientSecretBasic(asking.secret);
  expect((await introspect(as, asking.client, proof, last.access_token)).active).toBe(true);
  await site.server.command("clients", "disable", reports.client.client_id);
  expect(await introspect(as, asking.client, proof, last.access_token)).toEqual({ active: false });
  expect(await refusal(serviceToken(as, reports.client, basic))).toBe("challenge basic");
  const pair = await jose.generateKeyPair("ES256", { extractable: true });
  const file = await site.server.file("private.jwk", JSON.stringify(await jose.exportJWK(pair.privateKey)));
  await expect(addClient("--name", "Careless", "--scope", "read", "--public-key", file)).rejects.toThrow(/private key/);
});

test("R10: a standard client refreshes, asks about and gives back a person's tokens", async ({ arrive }) => {
  const as = await discover();
  const person = new Person("petra", "Petra Programs");
  await site.welcome(await arrive(site.server), person, "member");
  const asking = await addClient("--name", "Resource server", "--may-introspect");
  const proof = oauth.ClientSecretPost(asking.secret);
  const native: oauth.Client = { client_id: "mayfly-native" };
  const refresh = async (token: string) => {
    const response = await oauth.refreshTokenGrantRequest(as, native, oauth.None(), token, loopback);
    return { response, tokens: await oauth.processRefreshTokenResponse(as, native, response) };
  };

  const first = await signInProgram(person);
  // Right after signing in there is nothing to renew; no library takes that for the end of the session.
  expect(await refusal(refresh(first.refresh_token))).toBe("fresh");
  const said = await introspect(as, asking.client, proof, first.access_token);
  const claims = jose.decodeJwt(first.access_token);
  expect(said).toMatchObject({ active: true, ...claims });
  for (const claim of ["sub", "sid", "roles", "exp", "iat", "acr", "auth_time", "amr", "client_id"]) {
    expect(said[claim], claim).toBeDefined();
  }
  expect((await introspect(as, asking.client, proof, first.refresh_token)).active).toBe(false);

  await new Promise((done) => setTimeout(done, 10_200));
  const { response, tokens } = await refresh(first.refresh_token);
  expect(response.headers.get("mayfly-refresh")).toBe("rotated");
  expect(tokens.refresh_token).not.toBe(first.refresh_token);
  expect((await introspect(as, asking.client, proof, tokens.access_token)).active).toBe(true);

  // Given back with a token of an older generation.
  for (const token of [first.refresh_token, first.refresh_token, "mfr_unknown", "unknown"]) {
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, native, oauth.None(), token, loopback));
  }
  for (const token of [first.access_token, tokens.access_token]) {
    expect(await introspect(as, asking.client, proof, token)).toEqual({ active: false });
  }
  expect(await refusal(refresh(tokens.refresh_token!))).toBe("invalid_grant");

  const second = await signInProgram(person);
  const revoked = await oauth.revocationRequest(as, asking.client, proof, second.access_token, loopback);
  await oauth.processRevocationResponse(revoked);
  expect((await introspect(as, asking.client, proof, second.access_token)).active).toBe(false);
});

test("R6: a standard client proves that it holds its key, nonces included", async ({ arrive }) => {
  const as = await discover();
  expect(as.dpop_signing_alg_values_supported).toEqual(expect.arrayContaining(["ES256", "EdDSA"]));
  const person = new Person("dora", "Dora Proves");
  await site.welcome(await arrive(site.server), person, "member");
  const native: oauth.Client = { client_id: "mayfly-native" };
  const asking = await addClient("--name", "Asks about bound tokens", "--may-introspect");
  const me = new URL("/api/v1/me", site.server.url);

  for (const alg of ["ES256", "Ed25519"]) {
    const pair = await oauth.generateKeyPair(alg);
    const jwk = await jose.exportJWK(pair.publicKey);
    const jkt = await jose.calculateJwkThumbprint(jwk);
    const signIn = async (nonce?: string) => {
      const htu = `${site.server.url}/auth/login`;
      const proof = await new jose.SignJWT({ htm: "POST", htu, jti: crypto.randomUUID(), ...(nonce && { nonce }) })
        .setProtectedHeader({ typ: "dpop+jwt", alg, jwk })
        .setIssuedAt()
        .sign(pair.privateKey);
      return fetch(htu, {
        method: "POST",
        headers: { "content-type": "application/json", dpop: proof },
        body: JSON.stringify({ identifier: person.username, password: person.password }),
      });
    };
    const asked = await signIn();
    expect(asked.status).toBe(400);
    const answer = await signIn(asked.headers.get("dpop-nonce")!);
    expect(answer.status).toBe(200);
    type Tokens = { access_token: string; refresh_token: string; token_type: string };
    const { tokens: first } = (await answer.json()) as { tokens: Tokens };
    expect(first.token_type).toBe("DPoP");
    expect(jose.decodeJwt(first.access_token).cnf).toEqual({ jkt });
    await new Promise((done) => setTimeout(done, 10_200));

    const DPoP = oauth.DPoP(native, pair);
    const refresh = async (options: oauth.TokenEndpointRequestOptions) => {
      const proof = oauth.None();
      const response = await oauth.refreshTokenGrantRequest(as, native, proof, first.refresh_token, { ...options, ...loopback });
      return oauth.processRefreshTokenResponse(as, native, response);
    };
    // A thief with a copy of the token, and one with a key of his own besides.
    expect(await refusal(refresh({}))).toBe("invalid_dpop_proof");
    const thief = oauth.DPoP(native, await oauth.generateKeyPair(alg));
    expect(await refusal(refresh({ DPoP: thief }))).toBe("use_dpop_nonce");
    expect(await refusal(refresh({ DPoP: thief }))).toBe("invalid_dpop_proof");
    // The owner does not notice any of it.
    const nonceAsked = await refresh({ DPoP }).catch((error: unknown) => error);
    expect(oauth.isDPoPNonceError(nonceAsked)).toBe(true);
    const tokens = await refresh({ DPoP });
    expect(tokens.token_type).toBe("dpop");
    expect(jose.decodeJwt(tokens.access_token).cnf).toEqual({ jkt });

    const request = (handle?: oauth.DPoPHandle) =>
      oauth.protectedResourceRequest(tokens.access_token, "GET", me, undefined, undefined, { DPoP: handle, ...loopback });
    const other = oauth.DPoP(native, pair);
    expect(oauth.isDPoPNonceError(await request(other).catch((error: unknown) => error))).toBe(true);
    for (const handle of [other, DPoP, DPoP]) {
      const response = await request(handle);
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ username: person.username });
    }
    expect(await refusal(request())).toBe("challenge dpop");
    expect(await refusal(request(thief))).toBe("challenge dpop");
    // What a resource server with the same library makes of it.
    const said = await introspect(as, asking.client, oauth.ClientSecretPost(asking.secret), tokens.access_token);
    expect(said).toMatchObject({ active: true, token_type: "DPoP", cnf: { jkt } });
  }
});
