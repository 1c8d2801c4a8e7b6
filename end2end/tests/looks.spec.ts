// Every page in both widths and both themes: axe, no sideways scrolling, and a picture to look at in test-results/looks.
import { join } from "node:path";
import { Person } from "./person";
import { Server } from "./server";
import { enterPassword, enterCode, fillWelcome, heading, invite } from "./steps";
import { expect, test, type Visitor } from "./visitor";

const WIDTHS = [390, 1440];
const SCHEMES = ["light", "dark"] as const;

async function look(visitor: Visitor, name: string): Promise<void> {
  const { page } = visitor;
  const project = test.info().project;
  await visitor.awake();
  // Without JavaScript the pages look the same, and the other tests run axe on them.
  const scripted = project.use.javaScriptEnabled !== false;
  for (const [i, width] of WIDTHS.entries()) {
    await page.setViewportSize({ width, height: 900 });
    for (const [j, colorScheme] of SCHEMES.entries()) {
      const diagonal = i === j;
      if (!scripted && !diagonal) continue;
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const file = `${name}-${width}-${colorScheme}.png`;
      await page.screenshot({ path: join(project.outputDir, "looks", project.name, file), fullPage: true });
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect.soft(wider, `${name} at ${width} px scrolls sideways by`).toBeLessThanOrEqual(0);
      if (scripted && diagonal) await visitor.expectAccessible();
    }
  }
}

test("every page, narrow and wide, light and dark", async ({ arrive }) => {
  test.setTimeout(300_000);
  const server = await Server.start();
  try {
    const visitor = await arrive(server);
    visitor.allow(/status of 404/);
    const { page } = visitor;
    const ada = new Person("ada", "Ada Admin");
    await page.goto("/sign-in");
    await look(visitor, "sign-in-no-account-yet");
    await page.goto(await server.firstAdminLink());
    await look(visitor, "welcome-first-administrator");
    await fillWelcome(visitor, ada);
    await look(visitor, "enrol");
    ada.enrol(await page.locator(".secret code").innerText());
    await enterCode(visitor, await ada.code(), "Confirm the code");
    await expect(heading(page, "Save your recovery codes")).toBeVisible();
    ada.recoveryCodes = await page.locator(".codes code").allInnerTexts();
    await look(visitor, "recovery-codes");
    await page.getByRole("button", { name: "I have saved them" }).click();
    await expect(heading(page, "Your devices")).toBeVisible();

    const phone = await arrive(server);
    await phone.page.goto("/");
    await look(phone, "sign-in");
    await enterPassword(phone, ada, "not the password at all");
    await look(phone, "sign-in-refused");
    await enterPassword(phone, ada);
    await expect(heading(phone.page, "Check it is you")).toBeVisible();
    await look(phone, "code");
    await phone.page.getByRole("link", { name: "Use a recovery code instead" }).click();
    await look(phone, "code-recovery");
    await phone.page.getByLabel("Recovery code").fill(ada.recoveryCode());
    await phone.page.getByRole("button", { name: "Continue" }).click();
    await expect(heading(phone.page, "Your devices")).toBeVisible();

    await page.goto("/");
    await look(visitor, "devices");
    await page.getByRole("link", { name: /^End this session/ }).click();
    await look(visitor, "end-session");
    await page.goto("/devices/end-others");
    await look(visitor, "end-others");
    await page.getByRole("button", { name: /^End/ }).click();
    await expect(heading(page, "Your devices")).toBeVisible();
    await look(visitor, "devices-after-ending");
    for (const [name, path] of [
      ["security", "/security"],
      ["authenticator", "/security/authenticator"],
      ["step-up", "/step-up?return_to=/security"],
      ["roles", "/admin/roles"],
      ["role", "/admin/roles/member"],
      ["role-preset", "/admin/roles/member?preset=banking"],
      ["people", "/admin/people"],
      ["invite", "/admin/people/new"],
      ["audit", "/admin/audit"],
      ["audit-nothing", "/admin/audit?person=nobody"],
      ["missing", "/nowhere"],
    ]) {
      await page.goto(path);
      await look(visitor, name);
    }
    await page.goto("/admin/roles/member?preset=banking");
    await page.getByRole("button", { name: "Preview the change" }).click();
    await expect(page.getByRole("region", { name: "What this change does" })).toBeVisible();
    await look(visitor, "role-preview");

    await invite(visitor, new Person("mia", "Mia Member"), "member");
    await look(visitor, "person-invited");
    const link = await page.locator(".invitation code").innerText();
    await phone.page.goto(link);
    await look(phone, "welcome");
    await page.getByRole("link", { name: "Disable this account" }).click();
    await look(visitor, "disable");

    await page.goto("/admin/people?search=ada");
    await page.getByRole("link", { name: ada.name }).click();
    await look(visitor, "person");
    await page.getByRole("link", { name: "End all sessions" }).click();
    await look(visitor, "end-all-sessions");
    await page.goto("/admin/audit");
    await page.locator("tbody tr a").first().click();
    await look(visitor, "audit-event");
  } finally {
    await server.stop();
  }
});
