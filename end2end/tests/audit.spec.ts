// The auditor: reads everything, changes nothing.
import { Person } from "./person";
import { alert, enrol, enterPassword, heading, siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();

test("an auditor reads, filters and opens the log, and is kept from the console", async ({ arrive }) => {
  // Something to read: a failed sign-in.
  const clumsy = await arrive(site.server);
  await clumsy.page.goto("/");
  await enterPassword(clumsy, site.admin, "not the password at all");
  await expect(alert(clumsy.page)).toBeVisible();

  const otto = new Person("otto", "Otto Auditor");
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await site.welcome(visitor, otto, "auditor");
  await enrol(visitor, otto);
  await expect(heading(page, "Your devices")).toBeVisible();

  const navigation = page.getByRole("navigation", { name: "Main" });
  await expect(navigation.getByRole("link", { name: "Audit log" })).toBeVisible();
  await expect(navigation.getByRole("link", { name: /Roles|People/ })).toHaveCount(0);

  // The role reads only: the console answers 403, and says so in words.
  visitor.allow(/status of 403/);
  for (const path of ["/admin/roles", "/admin/roles/member", "/admin/people", "/admin/people/new"]) {
    expect((await page.goto(path))?.status(), path).toBe(403);
    await expect(heading(page, "You do not have permission for this page")).toBeVisible();
  }
  await visitor.expectAccessible();

  await navigation.getByRole("link", { name: "Audit log" }).click();
  await expect(heading(page, "Audit log")).toBeVisible();
  await visitor.expectAccessible();
  const rows = page.locator("tbody tr");
  expect(await rows.count()).toBeGreaterThan(10);

  // By kind: the auditor's own four refusals are there.
  await page.getByLabel("Kind").selectOption("authz_fail");
  await page.getByRole("button", { name: "Filter" }).click();
  await expect(rows).toHaveCount(4);
  for (const row of await rows.all()) {
    await expect(row).toContainText("otto");
    await expect(row).toContainText("Denied");
  }

  // By person and kind: one failed sign-in of the administrator.
  await page.getByLabel("Person").fill(site.admin.username);
  await page.getByLabel("Kind").selectOption("authn_login_fail");
  await page.getByRole("button", { name: "Filter" }).click();
  await expect(rows).toHaveCount(1);
  await expect(rows).toContainText("Failure");
  await visitor.expectAccessible();

  await rows.getByRole("link").click();
  await expect(heading(page, "Authn login fail")).toBeVisible();
  const known = page.getByRole("region", { name: "What is known" });
  await expect(known).toContainText("127.0.0.1");
  await expect(known).toContainText("Chrom");
  await expect(known).toContainText(site.admin.username);
  // Nothing that was typed is kept (M15).
  expect(await page.content()).not.toContain("not the password at all");
  await visitor.expectAccessible();

  // A filter that matches nothing is a page, too.
  await page.goto("/admin/audit?person=nobody-at-all");
  await expect(page.getByText("No event matches this filter.")).toBeVisible();
  await visitor.expectAccessible();
});
