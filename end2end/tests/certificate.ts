// Owns: a certificate of this machine's own name, made for one test file. Knows nothing of servers and browsers.
import { execFile } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

export class Certificate {
  private constructor(
    private readonly folder: string,
    /** Path of the certificate, PEM. */
    readonly cert: string,
    /** Path of its key, PEM; for its owner alone. */
    readonly key: string,
    /** The certificate itself: whoever talks to its server trusts this one and no other. */
    readonly pem: string,
  ) {}

  /** A new one, signed by itself, for `localhost` and a year. */
  static async make(): Promise<Certificate> {
    const folder = await mkdtemp(join(tmpdir(), "mayfly-certificate-"));
    const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    const kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256", "-days", "365"];
    const name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    // A server's own: verifiers refuse one that may sign others in its place.
    const use = ["-addext", "basicConstraints=critical,CA:FALSE"];
    await promisify(execFile)("openssl", [...kind, ...name, ...use, "-keyout", key, "-out", cert]);
    return new Certificate(folder, cert, key, await readFile(cert, "utf8"));
  }

  /** What Chromium knows it by: SHA-256 of the public key, base64. */
  get keyHash(): string {
    const key = new X509Certificate(this.pem).publicKey.export({ type: "spki", format: "der" });
    return createHash("sha256").update(key).digest("base64");
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}
