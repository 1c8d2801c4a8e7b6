// P10: mails go out over TLS, with a sign-in there. Whoever takes and reads them are a standard server (smtp-server) and a
// standard reader (mailparser), unchanged.
import { readFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { type ParsedMail, simpleParser } from "mailparser";
import { SMTPServer } from "smtp-server";
import { Certificate } from "./certificate";
import { Person } from "./person";
import { accept, enrol, invite, Site } from "./steps";
import { expect, test } from "./visitor";

const MAILED_MS = 10_000;
const PASSWORD = "a password of the mail server";

/** A mail server that keeps what it takes. */
class PostOffice {
  readonly mails: ParsedMail[] = [];
  readonly errors: string[] = [];
  private constructor(private readonly server: SMTPServer) {}

  static async open(certificate: Certificate): Promise<PostOffice> {
    const [cert, key] = await Promise.all([readFile(certificate.cert), readFile(certificate.key)]);
    const office: PostOffice = new PostOffice(
      new SMTPServer({
        secure: true,
        cert,
        key,
        onAuth(auth, _, done) {
          if (auth.username === "mayfly" && auth.password === PASSWORD) done(null, { user: "mayfly" });
          else done(new Error("wrong name or password"));
        },
        onData(stream, _, done) {
          simpleParser(stream).then((mail) => {
            office.mails.push(mail);
            done();
          }, done);
        },
      }),
    );
    // A client that takes another certificate for a stranger's goes away in the middle.
    office.server.on("error", (error) => office.errors.push(error.message));
    await new Promise<void>((done) => office.server.listen(0, "127.0.0.1", done));
    return office;
  }

  get url(): string {
    return `smtps://localhost:${(this.server.server.address() as AddressInfo).port}`;
  }

  close(): Promise<void> {
    return new Promise((done) => this.server.close(done));
  }
}

test("P10: a standard mail server takes over TLS what its owner is told of a new authenticator app", async ({
  browser,
  arrive,
}) => {
  const [known, strange] = [await Certificate.make(), await Certificate.make()];
  const [office, stranger] = [await PostOffice.open(known), await PostOffice.open(strange)];
  const site = new Site();
  await site.open(browser, undefined, {
    // The authorities of the machine, as the operator names them.
    SSL_CERT_FILE: known.cert,
    MAYFLY__MAIL__SERVER: office.url,
    MAYFLY__MAIL__USERNAME: "mayfly",
    MAYFLY__MAIL__PASSWORD: PASSWORD,
    MAYFLY__MAIL__FROM: "Mayfly <mayfly@id.example.com>",
  });
  try {
    const person = new Person("lola", "Łola Østergård");
    const visitor = await arrive(site.server);
    await accept(visitor, person, await invite(site.desk, person, "admin"));
    await enrol(visitor, person);
    await expect.poll(() => office.mails.length, { timeout: MAILED_MS }).toBe(2);
    const [, mail] = office.mails;
    expect(mail).toMatchObject({
      subject: expect.stringMatching(/^localhost:\d+: an authenticator app was set up$/),
      from: { value: [{ name: "Mayfly", address: "mayfly@id.example.com" }] },
      to: { value: [{ address: person.email }] },
    });
    expect(mail!.text).toContain("Hello Łola Østergård,\n");
    expect(mail!.text).toContain(`\nYour devices:  ${site.server.url}/\n`);
    expect(mail!.html).toBe(false);
    expect(mail!.headers.get("auto-submitted")).toBe("auto-generated");
    expect(Math.abs(Date.now() - mail!.date!.getTime())).toBeLessThan(60_000);

    const tried = (changes: NodeJS.ProcessEnv = {}) =>
      site.server.commandWith(changes, "mail", "test", "ops@example.org").catch((error: { stderr: string }) => error.stderr);
    expect(await tried()).toBe("The mail server took a mail to ops@example.org.\n");
    // A certificate that no authority of the machine has signed, and a wrong password: nothing is sent.
    expect(await tried({ MAYFLY__MAIL__SERVER: stranger.url })).toMatch(/not sent: .*certificate/i);
    expect(await tried({ MAYFLY__MAIL__PASSWORD: "another one" })).toMatch(/not sent: .*535/);
    expect(stranger.mails).toEqual([]);
    expect(stranger.errors).not.toEqual([]);
    expect(office.mails.length).toBe(3);
  } finally {
    await site.close();
    await Promise.all([office.close(), stranger.close(), known.remove(), strange.remove()]);
  }
});
