// R16: services are told over TLS when a session ends. Whoever takes it is a standard verifier (jose), unchanged.
import { readFile } from "node:fs/promises";
import { createServer, type Server as Listener } from "node:https";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import * as jose from "jose";
import { Certificate } from "./certificate";
import { Person } from "./person";
import { Site } from "./steps";
import { expect, test } from "./visitor";

/** Endings are sealed every five seconds and then told. */
const TOLD_MS = 20_000;

/** A service that keeps what it is told. */
class Shop {
  readonly told: string[] = [];
  private constructor(private readonly listener: Listener) {}

  static async open(certificate: Certificate): Promise<Shop> {
    const [cert, key] = await Promise.all([readFile(certificate.cert), readFile(certificate.key)]);
    const shop = new Shop(createServer({ cert, key }));
    shop.listener.on("request", (request, response) => {
      void text(request).then((body) => {
        shop.told.push(new URLSearchParams(body).get("logout_token") ?? "no token");
        response.writeHead(200, { "cache-control": "no-store" }).end();
      });
    });
    await new Promise<void>((done) => shop.listener.listen(0, "127.0.0.1", done));
    return shop;
  }

  get uri(): string {
    return `https://localhost:${(this.listener.address() as AddressInfo).port}/logout`;
  }

  close(): void {
    this.listener.closeAllConnections();
    this.listener.close();
  }
}

test("R16: a standard verifier is told of the end of a session over TLS and a stranger is not", async ({
  browser,
  arrive,
}) => {
  const [known, strange] = [await Certificate.make(), await Certificate.make()];
  const [shop, stranger] = [await Shop.open(known), await Shop.open(strange)];
  const site = new Site();
  // The authorities of the machine, as the operator names them.
  await site.open(browser, undefined, { SSL_CERT_FILE: known.cert });
  try {
    const { url } = site.server;
    const ids = [];
    for (const [name, uri] of [["Shop", shop.uri], ["Stranger", stranger.uri]] as const) {
      const said = await site.server.command("clients", "add", "--name", name, "--backchannel-logout-uri", uri);
      ids.push(said.match(/^client_id: (svc-\S+)$/m)?.[1] ?? said);
    }
    const person = new Person("lola", "Lola Leaves");
    await site.welcome(await arrive(site.server), person, "member");
    const signedIn = await fetch(`${url}/auth/login`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ identifier: person.username, password: person.password }),
    });
    type SignedIn = { session_id: string; tokens: { access_token: string } };
    const { session_id, tokens } = (await signedIn.json()) as SignedIn;
    const access = jose.decodeJwt(tokens.access_token);
    const ended = await fetch(`${url}/api/v1/me/sessions/${session_id}`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${tokens.access_token}` },
    });
    expect(ended.ok).toBe(true);

    await expect.poll(() => shop.told.length, { timeout: TOLD_MS }).toBe(1);
    const keys = jose.createRemoteJWKSet(new URL("/.well-known/jwks.json", url));
    const { payload } = await jose.jwtVerify(shop.told[0]!, keys, {
      issuer: url,
      audience: ids[0],
      typ: "logout+jwt",
      maxTokenAge: "2m",
      requiredClaims: ["iat", "exp", "jti", "sub", "sid", "events"],
    });
    expect(payload).toMatchObject({ sub: access.sub, sid: access.sid });
    expect(payload.events).toEqual({ "http://schemas.openid.net/event/backchannel-logout": {} });
    expect(payload.nonce).toBeUndefined();
    expect(payload.exp! - payload.iat!).toBeLessThanOrEqual(120);

    // A certificate that no authority of the machine has signed: told nothing, and the operator sees why.
    await expect.poll(() => site.server.command("clients", "list"), { timeout: TOLD_MS }).toMatch(/away since .*certificate/i);
    expect(stranger.told).toEqual([]);
    expect(shop.told).toHaveLength(1);
  } finally {
    await site.close();
    shop.close();
    stranger.close();
    await Promise.all([known.remove(), strange.remove()]);
  }
});
