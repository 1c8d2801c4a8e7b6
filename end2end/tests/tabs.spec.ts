// F65: many tabs and an expired access token. Nobody is signed out, nothing looks like a theft.
import { setTimeout as pause } from "node:timers/promises";
import { type Page } from "@playwright/test";
import { Person } from "./person";
import { heading, siteOfThisFile } from "./steps";
import { expect, test, type Visitor } from "./visitor";

const site = siteOfThisFile();
const TABS = 10;
/** A rotation younger than this is told apart from an older one (TOKENS.md, section 3). */
const FRESH_MS = 10_000;
/** Tokens of one generation go to the tab that asks first, and again to at most five that asked before they arrived. */
const MOST_HANDED_OUT = 6;
/** People with as many tabs each, at the same time. */
const PEOPLE = process.env.MAYFLY_TEST_FULL === "1" ? 5 : 1;
/** How often each of them goes through it all. */
const ROUNDS = process.env.MAYFLY_TEST_FULL === "1" ? 20 : 1;
/** A navigation is over for this test when its answer is there: nothing is handed out after that. */
const ANSWERED = { waitUntil: "commit" } as const;

/** The access token ends: the browser forgets its cookie. */
async function expire(visitor: Visitor): Promise<void> {
  await visitor.context.clearCookies({ name: "__Host-Http-mayfly-at" });
}

/** These tabs open something with an expired access token, all at once. When the last of them was answered. */
async function openExpired(visitor: Visitor, tabs: Page[], name: string, open: (tab: Page) => Promise<unknown>) {
  await expire(visitor);
  await Promise.all(tabs.map(open));
  const answered = Date.now();
  for (const tab of tabs) {
    await tab.waitForLoadState();
    await expect(heading(tab, name)).toBeVisible();
  }
  return answered;
}

/** Until the next rotation is due. */
async function due(answered: number): Promise<void> {
  await pause(Math.max(0, answered + FRESH_MS + 1_000 - Date.now()));
}

/** How many events of this kind the log has about this person; it shows fifty at a time. */
async function count(desk: Page, name: string, kind: string): Promise<number> {
  let events = 0;
  let path: string | null = `/admin/audit?person=${name}&kind=${kind}`;
  while (path) {
    await desk.goto(path);
    await expect(heading(desk, "Audit log")).toBeVisible();
    events += await desk.locator("tbody tr").count();
    const older = desk.getByRole("link", { name: "Older events" });
    path = (await older.count()) ? await older.getAttribute("href") : null;
  }
  return events;
}

/** Somebody who has just signed in lives with many tabs, and none of them ever shows anything else. */
async function liveWithTabs(visitor: Visitor, name: string): Promise<void> {
  const { context } = visitor;
  for (let tab = 1; tab < TABS; tab += 1) {
    const page = await context.newPage();
    await page.goto("/");
    await expect(heading(page, "Your devices")).toBeVisible();
  }
  const desk = await site.desk.context.newPage();

  // Right after signing in, when the pair is fresh; from then on when it has to be rotated.
  let answered = await openExpired(visitor, context.pages(), "Your devices", (tab) => tab.reload(ANSWERED));
  for (let round = 0; round < ROUNDS; round += 1) {
    const tabs = context.pages();
    await due(answered);
    answered = await openExpired(visitor, tabs, "Your devices", (tab) => tab.reload(ANSWERED));

    // Two tabs go back, and, when the pair is fresh again, forward.
    const two = tabs.slice(0, 2);
    for (const tab of two) await tab.goto("/security");
    await due(answered);
    await openExpired(visitor, two, "Your devices", (tab) => tab.goBack(ANSWERED));
    answered = await openExpired(visitor, two, "Security", (tab) => tab.goForward(ANSWERED));

    // The browser is closed and opened again: all its tabs come back at once.
    await Promise.all(tabs.map((tab) => tab.close()));
    const restored = await Promise.all(Array.from({ length: TABS }, () => context.newPage()));
    await due(answered);
    answered = await openExpired(visitor, restored, "Your devices", (tab) => tab.goto("/", ANSWERED));

    // In every round, because an administrator who looks at nothing for a quarter of an hour is signed out.
    expect(await count(desk, name, "authn_token_reuse")).toBe(0);
  }
  // One session all along.
  await expect(context.pages()[0].getByRole("article")).toHaveCount(1);
  await desk.close();
}

// First: in a full run the other takes longer than an administrator stays confirmed.
test("a form sent with an expired access token is carried out", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await site.welcome(visitor, new Person("fritz", "Fritz Form"), "member");
  await expect(heading(page, "Your devices")).toBeVisible();
  await page.waitForTimeout(FRESH_MS + 1_000);
  await expire(visitor);
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByText("You are signed out on this device.")).toBeVisible();

  const desk = site.desk.page;
  await desk.goto("/admin/audit?person=fritz&kind=session_signed_out");
  await expect(desk.locator("tbody tr")).toHaveCount(1);
});

test("F65: ten tabs reload and ten restored tabs open at once with an expired access token", async ({ arrive }) => {
  test.setTimeout(120_000 + PEOPLE * ROUNDS * 20_000);
  const names = Array.from({ length: PEOPLE }, (_, number) => `tabea${number}`);
  const visitors: Visitor[] = [];
  for (const name of names) {
    const visitor = await arrive(site.server);
    await site.welcome(visitor, new Person(name, "Tabea Tabs"), "member");
    await expect(heading(visitor.page, "Your devices")).toBeVisible();
    visitors.push(visitor);
  }
  await Promise.all(visitors.map((visitor, number) => liveWithTabs(visitor, names[number])));

  const desk = site.desk.page;
  for (const name of names) {
    for (const kind of ["authn_token_reuse", "session_revoked", "session_expired", "database_rolled_back"]) {
      expect(await count(desk, name, kind), kind).toBe(0);
    }
    const rotated = await count(desk, name, "token_rotated");
    const reissued = await count(desk, name, "token_reissued");
    expect(rotated, "reload, back and restore each found a rotation due").toBeGreaterThanOrEqual(3 * ROUNDS);
    expect(rotated, "no access token that ended brought more than one").toBeLessThanOrEqual(1 + 4 * ROUNDS);
    const [ofTen, ofTwo] = [1 + 2 * ROUNDS, 2 * ROUNDS];
    expect(rotated + reissued, "tokens handed out").toBeLessThanOrEqual(ofTen * MOST_HANDED_OUT + ofTwo * 2);
  }
});
