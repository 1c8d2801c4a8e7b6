// What the browser itself keeps apart: scripts from cookies, other sites from our pages, islands from duty.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Person } from "./person";
import { heading, news, signIn, siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();
const scripted = () => test.info().project.use.javaScriptEnabled !== false;

test("a session that is not there any more is a page in words, not a fault", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  visitor.allow(/status of 40[0-9]/);
  const { page } = visitor;
  await site.welcome(visitor, new Person("nora", "Nora Nowhere"), "member");
  for (const path of ["/nowhere", "/devices/end?session=nothing", "/devices/end?session=00000000-0000-7000-8000-000000000000"]) {
    expect((await page.goto(path))?.status(), path).toBe(404);
    await expect(heading(page, "This page does not exist")).toBeVisible();
    await visitor.expectAccessible();
  }
});

test("C1: a script neither reads nor overwrites our cookies", async ({ arrive }) => {
  test.skip(!scripted(), "there is no script to keep out");
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await signIn(visitor, site.admin, "recovery");
  const before = (await visitor.context.cookies()).filter((cookie) => cookie.name.startsWith("__Host-"));
  expect(before.length).toBeGreaterThanOrEqual(3);
  const seen = await page.evaluate((names) => {
    for (const name of names) {
      document.cookie = `${name}=forged; Secure; Path=/; SameSite=Lax`;
      document.cookie = `${name}=forged; Secure; Path=/admin`;
      document.cookie = `${name}=; Secure; Path=/; Max-Age=0`;
    }
    return document.cookie;
  }, before.map((cookie) => cookie.name));
  expect(seen).not.toContain("mayfly");
  const after = (await visitor.context.cookies()).filter((cookie) => cookie.name.startsWith("__Host-"));
  expect(after.map(({ name, value, path }) => ({ name, value, path }))).toEqual(before.map(({ name, value, path }) => ({ name, value, path })));
});

test("C12: the browser's storage holds no secret", async ({ arrive }) => {
  test.skip(!scripted(), "pages store nothing without scripts");
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await signIn(visitor, site.admin, "recovery");
  const secrets = (await visitor.context.cookies()).map((cookie) => cookie.value);
  for (const path of ["/", "/security", "/security/authenticator", "/admin/people", "/admin/audit"]) {
    await page.goto(path);
    await visitor.awake();
    const kept = await page.evaluate(async () => ({
      local: { ...localStorage },
      session: { ...sessionStorage },
      databases: await indexedDB.databases(),
      caches: await caches.keys(),
      workers: (await navigator.serviceWorker.getRegistrations()).length,
    }));
    expect(kept, path).toEqual({ local: {}, session: {}, databases: [], caches: [], workers: 0 });
    // Nor does the page: properties of islands are visible in it.
    const html = await page.content();
    for (const secret of secrets) expect(html).not.toContain(secret);
  }
});

test("F64: no page of ours shows inside another site's frame", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  visitor.allow(/frame-ancestors|X-Frame-Options|Refused to (display|frame)|Framing/i, /asked another host: http:\/\/127\.0\.0\.1:/, /ERR_BLOCKED_BY_RESPONSE/);
  await signIn(visitor, site.admin, "recovery");
  const paths = ["/", "/sign-in", "/security", "/step-up", "/admin/roles", "/admin/audit", "/nowhere"];
  visitor.allow(/status of 404/);
  const frames = paths.map((path) => `<iframe src="${site.server.url}${path}"></iframe>`).join("");
  const elsewhere = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end(`<!doctype html><title>Elsewhere</title>${frames}`);
  });
  await new Promise<void>((done) => elsewhere.listen(0, "127.0.0.1", done));
  try {
    // Another port of the same machine is another origin of the same site: the harder case.
    await visitor.page.goto(`http://localhost:${(elsewhere.address() as AddressInfo).port}/`).catch(() => undefined);
    visitor.allow(/asked another host: http:\/\/localhost:/);
    await visitor.page.waitForLoadState("load");
    const inner = visitor.page.frames().filter((frame) => frame !== visitor.page.mainFrame());
    expect(inner).toHaveLength(paths.length);
    for (const frame of inner) {
      expect(frame.url()).toMatch(/^chrome-error:/);
      expect(await frame.content()).not.toContain("Mayfly");
    }
  } finally {
    elsewhere.close();
  }
});

test("F73: with the islands' code blocked everything still works", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  await visitor.withoutWasm();
  const { page } = visitor;
  await signIn(visitor, site.admin);
  const other = await arrive(site.server);
  await signIn(other, site.admin, "recovery");

  await page.goto("/");
  await page.getByRole("region", { name: "Other devices" }).getByRole("article").filter({ hasText: "recovery code" }).first()
    .getByRole("link", { name: /^End this session/ }).click();
  await page.getByRole("button", { name: "End this session" }).click();
  await expect(news(page)).toHaveText("The session was ended. That device is signed out.");
  await page.goto("/security");
  await page.getByRole("button", { name: "Make ten new codes" }).click();
  await expect(heading(page, "Save your recovery codes")).toBeVisible();
  site.admin.recoveryCodes = await page.locator(".codes code").allInnerTexts();
  await page.getByRole("button", { name: "I have saved them" }).click();
  await expect(heading(page, "Security")).toBeVisible();
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByText("You are signed out on this device.")).toBeVisible();
});

test("the theme switch holds over pages and is no secret", async ({ arrive }) => {
  test.skip(!scripted(), "the switch is an island; without it the system's preference holds");
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await page.goto("/sign-in");
  await visitor.awake();
  const html = page.locator("html");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole("button", { name: "Switch between light and dark" }).click();
  await expect(html).toHaveAttribute("data-theme", "dark");
  expect(await ground()).not.toBe(light);
  await visitor.expectAccessible();
  await page.reload();
  await expect(html).toHaveAttribute("data-theme", "dark");
  await visitor.awake();
  await page.getByRole("button", { name: "Switch between light and dark" }).click();
  await expect(html).toHaveAttribute("data-theme", "light");
  expect(await ground()).toBe(light);
});
