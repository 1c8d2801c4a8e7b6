// F65: many tabs and an expired access token. Nobody is signed out, nothing looks like a theft.
import { Person } from "./person";
import { heading, siteOfThisFile } from "./steps";
import { expect, test, type Visitor } from "./visitor";

const site = siteOfThisFile();
const TABS = 10;
/** A rotation younger than this is told apart from an older one (TOKENS.md, section 3). */
const FRESH_MS = 10_000;
/** People with as many tabs each, at the same time. */
const PEOPLE = process.env.MAYFLY_TEST_FULL === "1" ? 5 : 1;
/** How often all tabs reload at a time when a rotation is due; each time has to wait until one is. */
const ROUNDS = process.env.MAYFLY_TEST_FULL === "1" ? 20 : 1;

/** The access token ends: the browser forgets its cookie. */
async function expire(visitor: Visitor): Promise<void> {
  await visitor.context.clearCookies({ name: "__Host-Http-mayfly-at" });
}

async function reloadAll(visitor: Visitor): Promise<void> {
  await expire(visitor);
  const pages = visitor.context.pages();
  await Promise.all(pages.map((page) => page.reload()));
  for (const page of pages) await expect(heading(page, "Your devices")).toBeVisible();
}

/** Somebody who has just signed in lives with many tabs, and none of them ever shows anything else. */
async function liveWithTabs(visitor: Visitor): Promise<void> {
  for (let tab = 1; tab < TABS; tab += 1) {
    const page = await visitor.context.newPage();
    await page.goto("/");
    await expect(heading(page, "Your devices")).toBeVisible();
  }

  // Right after signing in, when the pair is fresh; then when it has to be rotated.
  await reloadAll(visitor);
  for (let round = 0; round < ROUNDS; round += 1) {
    await visitor.page.waitForTimeout(FRESH_MS + 1_000);
    await reloadAll(visitor);
  }

  // The browser is closed and opened again: all its tabs come back at once.
  await visitor.page.waitForTimeout(FRESH_MS + 1_000);
  for (const page of visitor.context.pages().slice(1)) await page.close();
  await expire(visitor);
  const restored = await Promise.all(Array.from({ length: TABS }, () => visitor.context.newPage()));
  await Promise.all(restored.map((page) => page.goto("/security")));
  for (const page of restored) await expect(heading(page, "Security")).toBeVisible();

  // Back and forward, expired again.
  await expire(visitor);
  await restored[0].goto("/");
  await restored[0].goBack();
  await expect(heading(restored[0], "Security")).toBeVisible();
  await restored[0].goForward();
  await expect(heading(restored[0], "Your devices")).toBeVisible();
  // One session all along.
  await expect(restored[0].getByRole("article")).toHaveCount(1);
}

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
  await Promise.all(visitors.map(liveWithTabs));

  const desk = site.desk.page;
  for (const name of names) {
    for (const kind of ["authn_token_reuse", "session_revoked", "session_expired", "database_rolled_back"]) {
      await desk.goto(`/admin/audit?person=${name}&kind=${kind}`);
      await expect(desk.getByText("No event matches this filter."), kind).toBeVisible();
    }
    await desk.goto(`/admin/audit?person=${name}&kind=token_rotated`);
    const rotations = await desk.locator("tbody tr").count();
    expect(rotations).toBeGreaterThan(0);
    expect(rotations, "one rotation for each time it was due").toBeLessThanOrEqual(ROUNDS + 3);
  }
});

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
