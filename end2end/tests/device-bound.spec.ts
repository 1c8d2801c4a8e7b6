// F67: a session is bound to a key of its browser (device bound session credentials). Copied cookies are soon worth nothing;
// the person notices nothing, with JavaScript or without. Chromium does it over TLS only.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { Cookie, Locator, Response } from "@playwright/test";
import { Certificate } from "./certificate";
import { Person } from "./person";
import type { Answer } from "./server";
import { enrol, heading, signIn, signOut, Site } from "./steps";
import { test as base, expect, type Visitor } from "./visitor";

const ACCESS = "__Host-Http-mayfly-at";
const REFRESH = "__Host-Http-mayfly-rt";
const BOUND = "__Host-mayfly-bound";
const RETRY = "__Host-Http-mayfly-retry";
/** So long after the browser has first signed for a cookie, and after a bound cookie is over, nothing is refused. */
const GRACE_MS = 60_000;
/** A rotation younger than this is told apart from an older one (TOKENS.md, section 3). */
const FRESH_MS = 10_000;
/** The browser makes its key, and signs for its first cookies, beside what it loads. */
const BINDING_MS = 10_000;
/** What Chromium only does when told so. Of several lists the last one counts: Playwright's own stands in it, too. */
const FEATURES = [
  "CDPScreenshotNewSurface",
  // A person's bound cookie is over every ten minutes, not every second as here.
  "DeviceBoundSessions:RefreshQuota/false",
  // Machines that run tests have nothing that keeps keys.
  "EnableBoundSessionCredentialsSoftwareKeysForManualTesting",
];

/** The file's own browser: it binds sessions, and takes its server's certificate for one that an authority has signed. */
const test = base.extend<object, { certificate: Certificate }>({
  certificate: [
    async ({}, use) => {
      const certificate = await Certificate.make();
      await use(certificate);
      await certificate.remove();
    },
    { scope: "worker" },
  ],
  launchOptions: async ({ launchOptions, certificate }, use) => {
    // With errors of certificates ignored altogether it would bind nothing.
    const own = [`--enable-features=${FEATURES.join(",")}`, `--ignore-certificate-errors-spki-list=${certificate.keyHash}`];
    await use({ ...launchOptions, args: [...(launchOptions.args ?? []), ...own] });
  },
});

const site = new Site();
test.beforeAll(({ browser, certificate }) => site.open(browser, certificate));
test.afterEach(() => site.desk.expectQuiet());
test.afterAll(() => site.close());

const scripted = () => test.info().project.use.javaScriptEnabled !== false;

async function cookie(visitor: Visitor, name: string): Promise<Cookie | undefined> {
  return (await visitor.context.cookies(site.server.url)).find((cookie) => cookie.name === name);
}

/** The bound cookie, as soon as the browser has one. */
async function bound(visitor: Visitor): Promise<Cookie> {
  const isThere = async () => (await cookie(visitor, BOUND)) !== undefined;
  await expect.poll(isThere, { message: "the browser has a bound cookie", timeout: BINDING_MS }).toBe(true);
  return (await cookie(visitor, BOUND))!;
}

/** The browser forgets cookies of ours, as it does at their end. Not while a page still loads, which would bring them back. */
async function forget(visitor: Visitor, ...names: string[]): Promise<void> {
  await visitor.page.waitForLoadState();
  await visitor.context.clearCookies({ name: new RegExp(`^(${names.join("|")})$`) });
}

/** The person's only session is bound; the page says so as soon as the browser has signed for a second cookie. */
async function expectBound(visitor: Visitor): Promise<void> {
  const { page } = visitor;
  await bound(visitor);
  await expect(async () => {
    await page.goto("/");
    await expect(heading(page, "Your devices")).toBeVisible();
    await expect(page.getByRole("article").first()).toContainText("bound to a key of its browser", { timeout: 1_000 });
  }).toPass({ timeout: BINDING_MS });
  const here = page.getByRole("region", { name: "This device" });
  await expect(here.getByRole("article")).toContainText("bound to a key of its browser");
  // The first cookie is over within a minute; that one was to show that the browser has kept the key.
  const left = async () => (await bound(visitor)).expires - Date.now() / 1000;
  await expect.poll(left, { message: "seconds until it signs again", timeout: BINDING_MS }).toBeGreaterThan(60);
  await expect(page.getByText("You are not signed in anywhere else.")).toBeVisible();
}

/** An invited person with a second factor, signed in and bound. */
async function signedIn(visitor: Visitor, person: Person): Promise<void> {
  await site.welcome(visitor, person, "auditor");
  await enrol(visitor, person);
  await expect(heading(visitor.page, "Your devices")).toBeVisible();
  await expectBound(visitor);
}

/** Whatever is done when the bound cookie is over, the browser signs for the next one first. */
async function doEverythingUnbound(visitor: Visitor): Promise<void> {
  const { page } = visitor;
  const seen = [(await bound(visitor)).value];
  const after = async (step: string, act: () => Promise<unknown>, name: string, ...forgotten: string[]) => {
    await visitor.awake();
    await forget(visitor, BOUND, ...forgotten);
    await act();
    await expect(heading(page, name), step).toBeVisible();
    const { value } = await bound(visitor);
    expect(seen, `${step}: the cookie is a new one`).not.toContain(value);
    seen.push(value);
  };
  await after("an address", () => page.goto("/security"), "Security");
  await after("the same again", () => page.reload(), "Security");
  await after("a link", () => page.getByRole("link", { name: "Your devices" }).click(), "Your devices");
  await after("another", () => page.getByRole("link", { name: "Security" }).click(), "Security");
  await after("a form", () => page.getByRole("button", { name: "Make ten new codes" }).click(), "Save your recovery codes");
  await after("the next one", () => page.getByRole("button", { name: "I have saved them" }).click(), "Security");
  if (visitor.scripts) {
    // The warning comes after minutes only; what it asks the server is its own.
    const warning = page.locator("dialog.idle-warning");
    const stay = async () => {
      await warning.evaluate((dialog: HTMLDialogElement) => dialog.showModal());
      const answered = page.waitForResponse("**/actions/stay_signed_in");
      await warning.getByRole("button", { name: "Stay signed in" }).click();
      expect((await answered).status(), "an island's own request").toBe(200);
      await expect(warning).toBeHidden();
    };
    await after("an island", stay, "Security");
    const me = () => page.evaluate(async () => (await fetch("/api/v1/me")).status);
    await after("a script", async () => expect(await me()).toBe(200), "Security");
  }
  // With the access token: signed first, then renewed on the strength of both.
  await pause(FRESH_MS + 1_000);
  const refresh = (await cookie(visitor, REFRESH))?.value;
  await after("with an expired access token", () => page.goto("/"), "Your devices", ACCESS);
  expect(await cookie(visitor, ACCESS), "the tokens were renewed").toBeDefined();
  expect((await cookie(visitor, REFRESH))?.value).not.toBe(refresh);
  await expectBound(visitor);
}

/** What the log has of this kind about this person. */
async function events(person: Person, kind: string): Promise<Locator> {
  const { page } = site.desk;
  await page.goto(`/admin/audit?person=${person.username}&kind=${kind}`);
  await expect(heading(page, "Audit log")).toBeVisible();
  return page.locator("tbody tr");
}

type Expected = { bonds: number; refused?: number; alarms?: number };

/** What the log says of bonds, and of those who did not keep them, about this person. */
async function expectEvents(person: Person, { bonds, refused = 0, alarms = 0 }: Expected): Promise<void> {
  await expect(await events(person, "session_bound"), "bonds").toHaveCount(bonds);
  await expect(await events(person, "proof_refused"), "refused").toHaveCount(refused);
  await expect(await events(person, "bound_cookie_copied"), "alarms").toHaveCount(alarms);
  await expect(await events(person, "authn_token_reuse"), "thefts").toHaveCount(0);
}

const without = (jar: Cookie[], ...names: string[]) => jar.filter((cookie) => !names.includes(cookie.name));

/** Somebody elsewhere with these cookies. */
async function ask(path: string, jar: Pick<Cookie, "name" | "value">[]): Promise<Answer> {
  return site.server.ask(path, { cookie: jar.map(({ name, value }) => `${name}=${value}`).join("; ") });
}

test("F67: a sign-in is bound to its browser, which signs for the next cookie before whatever comes when one is over", async ({ arrive }) => {
  test.setTimeout(120_000);
  const visitor = await arrive(site.server);
  const berta = new Person("berta", "Berta Bound");
  await signedIn(visitor, berta);
  await visitor.expectAccessible();

  const { value, expires, ...attributes } = await bound(visitor);
  expect(attributes).toMatchObject({ httpOnly: true, secure: true, sameSite: "Lax", path: "/", domain: "localhost" });
  expect(value).not.toBe("");
  expect(expires - Date.now() / 1000, "at most ten minutes").toBeLessThanOrEqual(600);

  await doEverythingUnbound(visitor);
  await expectEvents(berta, { bonds: 1 });
});

test("F67: after a minute copied cookies are refused without the bound one, and every way of the browser's own works on", async ({ arrive }) => {
  test.setTimeout(240_000);
  const visitor = await arrive(site.server);
  const { page } = visitor;
  const clara = new Person("clara", "Clara Copied");
  await signedIn(visitor, clara);
  const shown = Date.now();
  const jar = await visitor.context.cookies(site.server.url);
  expect(jar.map((cookie) => cookie.name)).toEqual(expect.arrayContaining([ACCESS, REFRESH, BOUND]));
  await pause(shown + GRACE_MS + 2_000 - Date.now());

  // As long as the bound cookie lives a copy of everything does, too.
  const whole = await ask("/security", jar);
  expect(whole.status).toBe(200);
  expect(whole.body).toContain("How you prove that it is you.");
  expect((await ask("/api/v1/me", jar)).status).toBe(200);

  const rest = without(jar, BOUND);
  const borrowed = await bound(site.desk);
  const refused = [
    await ask("/security", rest),
    await ask("/security", without(rest, ACCESS)),
    await ask("/security", [...rest, borrowed]),
    await ask("/api/v1/me", rest),
    await ask("/api/v1/me", without(rest, ACCESS)),
    await ask("/api/v1/me", [...rest, borrowed]),
    await ask("/api/v1/me", [...rest, { name: BOUND, value: "A".repeat(32) }]),
    await site.server.ask("/api/v1/me", { authorization: `Bearer ${(await cookie(visitor, ACCESS))?.value}` }),
  ];
  expect(refused.map((answer) => answer.status)).toEqual(refused.map(() => 401));
  for (const { body } of refused) expect(body).not.toContain(clara.name);
  // Nor does it help to come again, as the answer asks of browsers.
  const again = await ask("/security", [...rest, { name: RETRY, value: "3" }]);
  expect(again).toMatchObject({ status: 303, headers: { location: "/sign-in?return_to=/security" } });

  // The person is not disturbed.
  await page.goto("/security");
  await expect(heading(page, "Security")).toBeVisible();

  // Browsers sign for nothing that another site opens: our own page in between opens it once more.
  const elsewhere = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html; charset=utf-8");
    answer.end(`<!doctype html><title>Elsewhere</title><a href="${site.server.url}/security">To Mayfly</a>`);
  });
  await new Promise<void>((done) => elsewhere.listen(0, "127.0.0.1", done));
  visitor.allow(/asked another host: http:\/\/127\.0\.0\.1:/);
  // That page in between has a status of its own.
  visitor.allow(/the server responded with a status of 401 \([^)]*\) \(https:\/\/localhost:\d+\/security\)$/);
  const follow = async (...forgotten: string[]) => {
    await page.goto(`http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/`);
    await forget(visitor, ...forgotten);
    const answers: number[] = [];
    const note = (response: Response) => {
      if (response.url() === `${site.server.url}/security`) answers.push(response.status());
    };
    page.on("response", note);
    await page.getByRole("link", { name: "To Mayfly" }).click();
    await expect(heading(page, "Security")).toBeVisible();
    page.off("response", note);
    return answers;
  };
  try {
    expect(await follow(BOUND), "with an access token").toEqual([401, 200]);
    await bound(visitor);
    expect(await follow(BOUND, ACCESS), "with an expired one").toEqual([200, 200]);
    await bound(visitor);
  } finally {
    elsewhere.close();
    elsewhere.closeAllConnections();
  }

  await doEverythingUnbound(visitor);
  await expectEvents(clara, { bonds: 1, refused: refused.length + 1 });
});

test("F67: signing out ends the bond, and signing in again makes another one", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  const { page } = visitor;
  const otis = new Person("otis", "Otis Out");
  await site.welcome(visitor, otis, "member");
  await expect(heading(page, "Your devices")).toBeVisible();
  await expectBound(visitor);
  const first = (await bound(visitor)).value;

  await signOut(visitor);
  await expect(page.getByText("You are signed out on this device.")).toBeVisible();
  // Whatever the browser still knows of the key, these pages are for everybody.
  for (const path of ["/sign-in", "/"]) {
    await page.goto(path);
    await expect(heading(page, "Sign in")).toBeVisible();
    await expect(page.getByText("bound to one browser")).toHaveCount(0);
    for (const name of [ACCESS, REFRESH, BOUND]) expect(await cookie(visitor, name), name).toBeUndefined();
  }
  await visitor.expectAccessible();

  await signIn(visitor, otis, "none");
  await expect(heading(page, "Your devices")).toBeVisible();
  await expectBound(visitor);
  expect((await bound(visitor)).value).not.toBe(first);
  await forget(visitor, BOUND);
  await page.goto("/security");
  await expect(heading(page, "Security")).toBeVisible();
  await bound(visitor);
  await expectEvents(otis, { bonds: 2 });
});

test("F67: a copy of a bound cookie is refused a minute after its end, and an alarm", async ({ arrive }) => {
  test.skip(process.env.MAYFLY_TEST_FULL !== "1", "waits for eleven minutes");
  test.skip(!scripted(), "the server's part is the same; one wait is enough");
  test.setTimeout(15 * 60_000);
  const visitor = await arrive(site.server);
  const { page } = visitor;
  const alma = new Person("alma", "Alma Alarmed");
  await site.welcome(visitor, alma, "member");
  await expect(heading(page, "Your devices")).toBeVisible();
  await expectBound(visitor);

  const jar = await visitor.context.cookies(site.server.url);
  const copied = (await bound(visitor)).value;
  const over = (await bound(visitor)).expires * 1000 + GRACE_MS + 3_000;
  while (Date.now() < over) {
    // The person goes on all the time; nobody has copied anything yet.
    await page.goto("/security");
    await expect(heading(page, "Security")).toBeVisible();
    await expectEvents(alma, { bonds: 1 });
    await pause(Math.min(30_000, Math.max(0, over - Date.now())));
  }
  expect((await ask("/api/v1/me", jar)).status).toBe(401);
  await expectEvents(alma, { bonds: 1, alarms: 1 });
  await expect(await events(alma, "bound_cookie_copied")).toContainText("bound cookie expired");

  // The browser has signed for another one in time.
  await page.goto("/security");
  await expect(heading(page, "Security")).toBeVisible();
  expect((await bound(visitor)).value).not.toBe(copied);
});
