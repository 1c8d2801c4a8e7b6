// Owns: one server process with a data folder of its own. Knows nothing of pages.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

/** Longest time from start to the first answer, milliseconds. */
const START_MS = 20_000;
/** Longest time from SIGTERM to the end, milliseconds; the server drains up to 10 s. */
const STOP_MS = 15_000;

export class Server {
  /** What it printed, for messages when it dies. */
  private log = "";
  private ended = false;

  private constructor(
    /** `http://localhost:port` */
    readonly url: string,
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

  /** Starts a fresh server, with these settings changed, and waits until it answers. */
  static async start(changes: NodeJS.ProcessEnv = {}): Promise<Server> {
    const port = await freePort();
    const url = `http://localhost:${port}`;
    const folder = await mkdtemp(join(tmpdir(), "mayfly-end2end-"));
    const env = {
      PATH: process.env.PATH,
      MAYFLY__DATA_DIR: join(folder, "data"),
      MAYFLY__PUBLIC_URL: url,
      MAYFLY__SERVER__ADDRESS: `127.0.0.1:${port}`,
      MAYFLY__LOG__FORMAT: "text",
      ...changes,
    };
    const child = spawn(binary(), ["serve"], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
    const server = new Server(url, folder, env, child);
    await server.ready();
    return server;
  }

  /** The one-time link that makes the first administrator, as printed at start. */
  async firstAdminLink(): Promise<string> {
    return this.until(() => this.log.match(/https?:\/\/\S+\/welcome\/open\/[\w-]+/)?.[0], "print the one-time link");
  }

  /** Runs another command of the program on the same data; what it printed. */
  async command(...words: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(binary(), words, { cwd: this.folder, env: this.env });
    return stdout;
  }

  /** Puts a file into the server's folder; its path. */
  async file(name: string, text: string): Promise<string> {
    const path = join(this.folder, name);
    await writeFile(path, text);
    return path;
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
        return (await fetch(`${this.url}/readyz`)).ok;
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
