// Owns: one server process with a data folder of its own. Knows nothing of pages.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http";
import { get as getOverTls } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import type { Certificate } from "./certificate";

/** Longest time from start to the first answer, milliseconds. */
const START_MS = 20_000;
/** Longest time from SIGTERM to the end, milliseconds; the server drains up to 10 s. */
const STOP_MS = 15_000;

/** What it answered to a program. */
export type Answer = { status: number; headers: IncomingHttpHeaders; body: string };

export class Server {
  /** What it printed, for messages when it dies. */
  private log = "";
  private ended = false;

  private constructor(
    /** `http://localhost:port`; with a certificate `https:` */
    readonly url: string,
    private readonly certificate: Certificate | undefined,
    private readonly folder: string,
    private readonly env: NodeJS.ProcessEnv,
    private readonly child: ChildProcess,
  ) {
    child.stdout?.on("data", (data) => (this.log += data));
    child.stderr?.on("data", (data) => (this.log += data));
    child.on("exit", () => (this.ended = true));
    child.on("error", (error) => {
      this.ended = true;
      this.log += String(error);
    });
  }

  /** Starts a fresh server, with these settings changed, and waits until it answers. With a certificate it speaks TLS. */
  static async start(changes: NodeJS.ProcessEnv = {}, certificate?: Certificate): Promise<Server> {
    const port = await freePort();
    const url = `${certificate ? "https" : "http"}://localhost:${port}`;
    const folder = await mkdtemp(join(tmpdir(), "mayfly-end2end-"));
    const env = {
      PATH: process.env.PATH,
      MAYFLY__DATA_DIR: join(folder, "data"),
      MAYFLY__PUBLIC_URL: url,
      MAYFLY__SERVER__ADDRESS: `127.0.0.1:${port}`,
      MAYFLY__LOG__FORMAT: "text",
      ...(certificate && { MAYFLY__SERVER__TLS__CERT: certificate.cert, MAYFLY__SERVER__TLS__KEY: certificate.key }),
      ...changes,
    };
    const child = spawn(binary(), ["serve"], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
    const server = new Server(url, certificate, folder, env, child);
    await server.ready();
    return server;
  }

  /** The one-time link that makes the first administrator, as printed at start. */
  async firstAdminLink(): Promise<string> {
    return this.until(() => this.log.match(/https?:\/\/\S+\/welcome\/open\/[\w-]+/)?.[0], "print the one-time link");
  }

  /** Runs another command of the program on the same data; what it printed. */
  async command(...words: string[]): Promise<string> {
    return this.commandWith({}, ...words);
  }

  /** The same with these settings changed. */
  async commandWith(changes: NodeJS.ProcessEnv, ...words: string[]): Promise<string> {
    const env = { ...this.env, ...changes };
    const { stdout } = await promisify(execFile)(binary(), words, { cwd: this.folder, env });
    return stdout;
  }

  /** Puts a file into the server's folder; its path. */
  async file(name: string, text: string): Promise<string> {
    const path = join(this.folder, name);
    await writeFile(path, text);
    return path;
  }

  /** One GET of a program, not of a browser; redirects are not followed. */
  ask(path: string, headers: OutgoingHttpHeaders = {}): Promise<Answer> {
    return new Promise((done, fail) => {
      // A connection of its own: nothing is left open that the server would wait for at its end.
      const options = { headers, agent: false as const };
      const url = `${this.url}${path}`;
      const request = this.certificate ? getOverTls(url, { ...options, ca: this.certificate.pem }) : get(url, options);
      request.on("error", fail);
      request.on("response", (response) => {
        const answer = (body: string) => ({ status: response.statusCode ?? 0, headers: response.headers, body });
        text(response).then((body) => done(answer(body)), fail);
      });
    });
  }

  async stop(): Promise<void> {
    if (!this.ended) {
      const gone = new Promise<void>((done) => this.child.once("exit", () => done()));
      this.child.kill("SIGTERM");
      const late = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS);
      await gone;
      clearTimeout(late);
    }
    await rm(this.folder, { recursive: true, force: true });
  }

  private async ready(): Promise<void> {
    await this.until(async () => {
      try {
        return (await this.ask("/readyz")).status === 200;
      } catch {
        // Not listening yet.
        return false;
      }
    }, "answer");
  }

  private async until<T>(look: () => T | Promise<T>, what: string): Promise<NonNullable<T>> {
    const give_up = Date.now() + START_MS;
    for (;;) {
      const found = await look();
      if (found) return found as NonNullable<T>;
      if (this.ended || Date.now() > give_up) {
        throw new Error(`The server did not ${what}. It said:\n${this.log}`);
      }
      await new Promise((done) => setTimeout(done, 50));
    }
  }
}

function binary(): string {
  const path = resolve(process.env.MAYFLY_BIN ?? "../target/debug/mayfly");
  if (!existsSync(path)) throw new Error(`MAYFLY_BIN: there is no server at ${path}`);
  return path;
}

function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer();
    probe.on("error", fail);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => (address && typeof address === "object" ? done(address.port) : fail(new Error("no port"))));
    });
  });
}
