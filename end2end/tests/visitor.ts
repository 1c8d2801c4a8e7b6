// Owns: a browser of one person, watched: whatever goes wrong in it without being expected fails the test.
import AxeBuilder from "@axe-core/playwright";
import { type Browser, type BrowserContext, expect, type Page, test as base } from "@playwright/test";
import { Server } from "./server";

/** WCAG 2.2 AA with everything it builds on, and what axe calls good practice. */
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"];

export class Visitor {
  private problems: string[] = [];
  private allowed: RegExp[] = [];
  private auditor: BrowserContext | undefined;

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    readonly url: string,
    private readonly browser: Browser,
    /** Islands run in this browser. */
    readonly scripts: boolean,
  ) {}

  /** A new browser, without any cookie. `scripts: false` blocks the islands' code where JavaScript runs. */
  static async arrive(browser: Browser, server: Server): Promise<Visitor> {
    const context = await browser.newContext({ baseURL: server.url });
    const scripts = base.info().project.use.javaScriptEnabled !== false;
    const watch = (visitor: Visitor, page: Page) => visitor.watch(page);
    if (scripts) {
      await context.addInitScript(() => {
        document.addEventListener("securitypolicyviolation", (event) => {
          console.error(`CSP: ${event.violatedDirective} forbids ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`);
        });
      });
    }
    const page = await context.newPage();
    const visitor = new Visitor(context, page, server.url, browser, scripts);
    if (!scripts) {
      // A browser without JavaScript refuses what only scripts would use, and says so.
      visitor.allow(/\/pkg\/\S+\.js failed: csp/, /\/pkg\/\S+\.wasm was preloaded using link preload but not used/);
    }
    watch(visitor, page);
    context.on("page", (page) => watch(visitor, page));
    return visitor;
  }

  /** Something that this test brings about itself and that is no fault. */
  allow(...expected: RegExp[]): void {
    this.allowed.push(...expected);
  }

  /** Blocks the islands' code, as a strict network or an old browser would. */
  async withoutWasm(): Promise<void> {
    await this.context.route("**/*.wasm", (route) => route.abort());
    this.allow(/\.wasm/, /net::ERR_FAILED/, /Failed to fetch/);
    Object.assign(this, { scripts: false });
  }

  /** Waits until the islands of the page are awake; without JavaScript there is nothing to wait for. */
  async awake(page: Page = this.page): Promise<void> {
    if (this.scripts) await expect(page.locator("html")).toHaveAttribute("data-islands", "ready");
  }

  /** Fails if anything unexpected happened in this browser until now. */
  expectQuiet(): void {
    const problems = this.problems.filter((problem) => !this.allowed.some((expected) => expected.test(problem)));
    this.problems = [];
    expect(problems, "console errors, CSP violations, page errors, foreign requests").toEqual([]);
  }

  /** axe finds nothing on this page as it is now. */
  async expectAccessible(page: Page = this.page): Promise<void> {
    await this.awake(page);
    const looked = this.runsAxe() ? page : await this.copyOf(page);
    const { violations } = await new AxeBuilder({ page: looked }).withTags(RULES).analyze();
    const found = violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map((node) => `${node.html}: ${node.failureSummary}`) }));
    expect(found, `axe on ${page.url()}`).toEqual([]);
  }

  async leave(): Promise<void> {
    await this.auditor?.close();
    await this.context.close();
  }

  private runsAxe(): boolean {
    return base.info().project.use.javaScriptEnabled !== false;
  }

  /** axe needs JavaScript: where the page runs none, an exact copy of it is looked at in a browser that does. */
  private async copyOf(page: Page): Promise<Page> {
    this.auditor ??= await this.browser.newContext({ javaScriptEnabled: true, bypassCSP: true });
    const html = (await page.content()).replace(/<script\b[\s\S]*?<\/script>/g, "");
    const media = await page.evaluate(() => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
    const copy = this.auditor.pages()[0] ?? (await this.auditor.newPage());
    await copy.unrouteAll();
    await copy.route(page.url(), (route) => route.fulfill({ contentType: "text/html; charset=utf-8", body: html }));
    await copy.setViewportSize(page.viewportSize() ?? { width: 1280, height: 720 });
    await copy.emulateMedia({ colorScheme: media });
    await copy.goto(page.url());
    return copy;
  }

  private watch(page: Page): void {
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") {
        this.problems.push(`console ${message.type()} on ${page.url()}: ${message.text()} (${message.location().url})`);
      }
    });
    page.on("pageerror", (error) => this.problems.push(`error on ${page.url()}: ${error.message}`));
    page.on("request", (request) => {
      const address = new URL(request.url());
      if (address.origin !== this.url && !["data:", "blob:", "about:"].includes(address.protocol)) {
        this.problems.push(`${page.url()} asked another host: ${request.url()}`);
      }
    });
    page.on("requestfailed", (request) => {
      const why = request.failure()?.errorText ?? "unknown";
      // A navigation that a newer one overtook.
      if (why !== "net::ERR_ABORTED") this.problems.push(`${request.url()} failed: ${why}`);
    });
    page.on("response", (response) => {
      if (response.status() >= 500) this.problems.push(`${response.url()} answered ${response.status()}`);
    });
  }
}

/** The tests' entry: `arrive()` opens a new browser; all of them must have been quiet at the end of the test. */
export const test = base.extend<{ arrive: (server: Server) => Promise<Visitor> }>({
  arrive: async ({ browser }, use) => {
    const visitors: Visitor[] = [];
    await use(async (server) => {
      const visitor = await Visitor.arrive(browser, server);
      visitors.push(visitor);
      return visitor;
    });
    for (const visitor of visitors) await visitor.leave();
    for (const visitor of visitors) visitor.expectQuiet();
  },
});

export { expect };
