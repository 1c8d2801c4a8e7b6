// M20: the idle limit, its warning, and the reason afterwards. Waits for real time, so it is one test.
import { Person } from "./person";
import { heading, news, siteOfThisFile } from "./steps";
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
  await page.keyboard.press("Enter");
  await expect(warning).toBeHidden();
  // In every tab.
  await expect(second.getByRole("alertdialog")).toBeHidden();
  const stayed = Date.now();

  // Both tabs go to the sign-in page by themselves, and say why; the second finds its way back later.
  for (const tab of [page, second]) {
    await expect(heading(tab, "Sign in")).toBeVisible({ timeout: IDLE_MS + 20_000 });
  }
  expect(Date.now() - stayed).toBeGreaterThan(IDLE_MS - 2_000);
  await page.goto("/");
  await expect(page.getByText("You were signed out because this sign-in was idle for 1 minute (rule for role member).")).toBeVisible();
  await visitor.expectAccessible();
});
