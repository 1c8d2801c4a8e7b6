// M20: the idle limit, its warning, and the reason afterwards. Waits for real time, so it is one test.
import { Person } from "./person";
import { enrol, enterCode, enterPassword, heading, news, siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();
/** The shortest idle limit there is. */
const IDLE_MS = 60_000;

test("S1: the warning comes, staying works, and then a minute without activity ends the session", async ({ arrive }) => {
  test.skip(test.info().project.use.javaScriptEnabled === false, "the server's part is the same; one wait is enough");
  test.setTimeout(150_000);
  const desk = site.desk.page;
  await desk.goto("/admin/roles/member");
  await desk.getByLabel("Idle limit").fill("1");
  await desk.getByLabel("Access token lifetime").fill("1");
  await desk.getByLabel("Idle warning").fill("50");
  await desk.getByRole("button", { name: "Preview the change" }).click();
  await desk.getByLabel("Reason").fill("A short minute");
  await desk.getByRole("button", { name: "Save these limits" }).click();
  await expect(news(desk)).toContainText("Saved as policy 2.");

  const visitor = await arrive(site.server);
  const { page } = visitor;
  await site.welcome(visitor, new Person("ida", "Ida Idle"), "member");
  await expect(heading(page, "Your devices")).toBeVisible();
  const second = await visitor.context.newPage();
  await second.goto("/security");
  await expect(heading(second, "Security")).toBeVisible();

  const warning = page.getByRole("alertdialog", { name: "Are you still there?" });
  await expect(warning).toBeVisible({ timeout: 20_000 });
  await expect(warning).toContainText(/signed out in 0:\d\d/);
  await visitor.expectAccessible();
  const stay = warning.getByRole("button", { name: "Stay signed in" });
  await expect(stay).toBeFocused();
  const stayed = Date.now();
  await page.keyboard.press("Enter");
  await expect(warning).toBeHidden();
  // In every tab.
  await expect(second.getByRole("alertdialog")).toBeHidden();

  // Both tabs go to the sign-in page by themselves, and say why; the second finds its way back later.
  for (const tab of [page, second]) {
    await expect(heading(tab, "Sign in")).toBeVisible({ timeout: IDLE_MS + 20_000 });
  }
  expect(Date.now() - stayed).toBeGreaterThan(IDLE_MS - 1_000);
  await page.goto("/");
  await expect(page.getByText("You were signed out because this sign-in was idle for 1 minute (rule for role member).")).toBeVisible();
  await visitor.expectAccessible();
});

test("S2: a limit that is tightened ends a session that is beyond it at the next click, and the auditor reads why", async ({ arrive }) => {
  test.skip(test.info().project.use.javaScriptEnabled === false, "the server's part is the same; one wait is enough");
  test.setTimeout(180_000);
  const away = await arrive(site.server);
  const otto = new Person("otto", "Otto Auditor");
  await site.welcome(away, otto, "auditor");
  await enrol(away, otto);
  await expect(heading(away.page, "Your devices")).toBeVisible();
  await expect(away.page.getByRole("article")).toContainText("(role auditor, policy 1)");
  await away.page.waitForTimeout(IDLE_MS + 1_000);

  const desk = site.desk.page;
  await desk.goto("/admin/roles/auditor");
  await desk.getByLabel("Idle limit").fill("1");
  await desk.getByLabel("Access token lifetime").fill("1");
  await desk.getByLabel("Idle warning").fill("0");
  await desk.getByRole("button", { name: "Preview the change" }).click();
  await expect(desk.getByRole("region", { name: "What this change does" })).toContainText("Ends 1 session of 1 person");
  await desk.getByLabel("Reason").fill("Auditors look away");
  await desk.getByRole("button", { name: "Save these limits" }).click();
  await expect(news(desk)).toContainText("Saved as policy 2.");

  away.allow(/status of 401/);
  await away.page.getByRole("link", { name: "Security" }).click();
  await expect(heading(away.page, "Sign in")).toBeVisible();
  await expect(away.page.getByText("idle for 1 minute (rule for role auditor)")).toBeVisible();
  await away.expectAccessible();

  const { page } = away;
  await enterPassword(away, otto);
  await expect(heading(page, "Check it is you")).toBeVisible();
  await enterCode(away, await otto.code());
  await expect(heading(page, "Security")).toBeVisible();
  await page.goto("/admin/audit?kind=session_expired");
  const ended = page.locator("tbody tr").filter({ hasText: "otto" });
  await expect(ended).toHaveCount(1);
  await ended.getByRole("link").click();
  await expect(page.getByRole("region", { name: "What is known" })).toContainText("auditor, policy 2");
  await page.goto("/admin/audit?kind=policy_changed");
  await page.locator("tbody tr").first().getByRole("link").click();
  await expect(page.getByRole("main")).toContainText("Auditors look away");
  await away.expectAccessible();
});
