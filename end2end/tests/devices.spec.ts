// Your devices: two browsers of one person, one ending the other.
import { heading, news, signIn, siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();

test("ending another device signs it out at its next click, and its sign-in page says why", async ({ arrive }) => {
  const laptop = await arrive(site.server);
  await signIn(laptop, site.admin);
  const phone = await arrive(site.server);
  await signIn(phone, site.admin, "recovery");

  const { page } = laptop;
  await page.goto("/");
  const others = page.getByRole("region", { name: "Other devices" });
  // The administrator's own desk is one of them.
  await expect(others.getByRole("article")).toHaveCount(2);
  await expect(others).toContainText("password and recovery code");
  await laptop.expectAccessible();
  await others
    .getByRole("article")
    .filter({ hasText: "recovery code" })
    .getByRole("link", { name: /^End this session/ })
    .click();

  await expect(heading(page, "End this session?")).toBeVisible();
  await expect(page.getByRole("main")).toContainText("That device is signed out at its next click.");
  await laptop.expectAccessible();
  await page.getByRole("button", { name: "End this session" }).click();
  await expect(news(page)).toHaveText("The session was ended. That device is signed out.");
  await expect(others.getByRole("article")).toHaveCount(1);
  await expect(page.getByRole("region", { name: "Ended in the last 30 days" })).toContainText("Ended from another device");
  await laptop.expectAccessible();

  await phone.page.getByRole("link", { name: "Security" }).click();
  await expect(heading(phone.page, "Sign in")).toBeVisible();
  await expect(phone.page.getByText("This sign-in was ended from another of your devices.")).toBeVisible();
  await phone.expectAccessible();

  // Signing in again leads to where the click was going.
  await signIn(phone, site.admin, "recovery");
  await expect(heading(phone.page, "Security")).toBeVisible();
});

test("all other sessions end at once, listed before", async ({ arrive }) => {
  const laptop = await arrive(site.server);
  await signIn(laptop, site.admin, "recovery");
  const phone = await arrive(site.server);
  await signIn(phone, site.admin, "recovery");

  const { page } = laptop;
  await page.goto("/");
  const living = await page.getByRole("region", { name: "Other devices" }).getByRole("article").count();
  expect(living).toBeGreaterThan(1);
  await page.getByRole("link", { name: `End ${living} other sessions` }).click();
  await expect(page.getByRole("main")).toContainText(`${living} devices will be signed out. This device stays signed in.`);
  await expect(page.getByRole("article")).toHaveCount(living);
  await laptop.expectAccessible();
  await page.getByRole("button", { name: `End ${living} other sessions` }).click();
  await expect(news(page)).toHaveText(`${living} sessions were ended.`);
  await expect(page.getByText("You are not signed in anywhere else.")).toBeVisible();

  for (const other of [phone, site.desk]) {
    await other.page.goto("/security");
    await expect(other.page.getByText("This sign-in was ended from another of your devices.")).toBeVisible();
  }
});
