// The admin console: inviting, tightening a role, disabling.
import { Person } from "./person";
import { accept, alert, enrol, enterPassword, heading, invite, news, siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();

test("an invited person opens the link, chooses a password and is in", async ({ arrive }) => {
  const mia = new Person("mia", "Mia Member");
  const desk = site.desk.page;
  await desk.goto("/");
  await desk.getByRole("link", { name: "People" }).click();
  await expect(heading(desk, "People")).toBeVisible();
  await site.desk.expectAccessible();
  await desk.getByRole("link", { name: "Invite a person" }).click();
  await site.desk.expectAccessible();
  const link = await invite(site.desk, mia, "member");
  await site.desk.expectAccessible();

  // A name that is taken: said at its field, and nothing that was typed is lost.
  await desk.goto("/admin/people/new");
  await desk.getByLabel("Sign-in name").fill(mia.username);
  await desk.getByLabel("Name", { exact: true }).fill("Mia Other");
  await desk.getByLabel("E-mail address").fill("other@example.org");
  await desk.getByRole("checkbox", { name: "member", exact: true }).check();
  await desk.getByRole("button", { name: "Make the invitation" }).click();
  await expect(alert(desk)).toContainText("Sign-in name: already in use.");
  await expect(desk.getByLabel("Sign-in name")).toHaveValue(mia.username);
  await expect(desk.getByLabel("Name", { exact: true })).toHaveValue("Mia Other");
  await expect(desk.getByLabel("E-mail address")).toHaveValue("other@example.org");
  await expect(desk.getByRole("checkbox", { name: "member", exact: true })).toBeChecked();
  await site.desk.expectAccessible();

  // A machine that looks at links first does not use it up (C11).
  expect((await fetch(link, { redirect: "manual" })).status).toBe(303);

  const visitor = await arrive(site.server);
  await visitor.page.goto(link);
  await expect(heading(visitor.page, "Welcome")).toBeVisible();
  await expect(visitor.page.getByLabel("Sign-in name")).toHaveValue(mia.username);
  await visitor.expectAccessible();
  await accept(visitor, mia, link);
  await expect(heading(visitor.page, "Your devices")).toBeVisible();
  await expect(visitor.page.getByRole("navigation", { name: "Main" })).not.toContainText("Administration");
  await visitor.expectAccessible();

  await desk.goto("/admin/people?search=mia");
  await expect(desk.getByRole("row", { name: /Mia Member/ })).toContainText("Active");

  // Used once: dead for the next.
  const stranger = await arrive(site.server);
  stranger.allow(/status of 404/);
  await stranger.page.goto(link);
  await expect(stranger.page.getByLabel("Password")).toHaveCount(0);
});

test("a second factor that becomes required ends the session at the next click, with role and reason", async ({ arrive }) => {
  const mo = new Person("mo", "Mo Member");
  const visitor = await arrive(site.server);
  await site.welcome(visitor, mo, "member");
  await expect(heading(visitor.page, "Your devices")).toBeVisible();
  await expect(visitor.page.getByRole("article")).toContainText("(role member, policy 1)");

  const desk = site.desk.page;
  await desk.goto("/admin/roles");
  await expect(heading(desk, "Roles")).toBeVisible();
  await site.desk.expectAccessible();
  await desk.getByRole("link", { name: /^Edit limits.*member$/ }).click();
  await desk.getByRole("link", { name: /Banking and payments/ }).click();
  await expect(desk.getByLabel("Idle limit")).toHaveValue("15");
  await site.desk.expectAccessible();

  // A wrong value is refused at its field and changes nothing.
  site.desk.allow(/status of 422/);
  await desk.getByLabel("Idle limit").fill("3000");
  await desk.getByRole("button", { name: "Preview the change" }).click();
  await expect(desk.getByLabel("Idle limit")).toHaveAttribute("aria-invalid", "true");
  await expect(alert(desk)).toContainText("Idle limit");
  await site.desk.expectAccessible();

  await desk.getByRole("link", { name: /Banking and payments/ }).click();
  await desk.getByRole("button", { name: "Preview the change" }).click();
  const preview = desk.getByRole("region", { name: "What this change does" });
  await expect(preview).toContainText(/Ends \d sessions? of \d (person|people)/);
  await expect(preview).toContainText("must set up a second factor");
  await site.desk.expectAccessible();
  await preview.getByLabel("Reason").fill("Payments start on Monday");
  await preview.getByRole("button", { name: "Save these limits" }).click();
  await expect(news(desk)).toContainText("Saved as policy 2.");
  await expect(desk.getByRole("region", { name: "History" })).toContainText("Payments start on Monday");
  await site.desk.expectAccessible();

  const { page } = visitor;
  await page.getByRole("link", { name: "Security" }).click();
  await expect(heading(page, "Sign in")).toBeVisible();
  await expect(page.getByText("a second factor is required now (rule for role member)")).toBeVisible();
  await visitor.expectAccessible();

  // Signing in again leads through setting it up, and then to where the click was going.
  await enterPassword(visitor, mo);
  await enrol(visitor, mo);
  await expect(heading(page, "Security")).toBeVisible();
  await page.goto("/");
  await expect(page.getByRole("region", { name: "This device" })).toContainText("(role member, policy 2)");
  await expect(page.getByRole("region", { name: "Ended in the last 30 days" })).toContainText("A second factor became required (rule for role member)");
  await visitor.expectAccessible();
});

test("disabling a person ends the sessions at the next click and keeps the person out", async ({ arrive }) => {
  const max = new Person("max", "Max Member");
  const visitor = await arrive(site.server);
  await site.welcome(visitor, max, "member");
  // The role asks for a second factor if the test before this one ran.
  if (await heading(visitor.page, "Set up your authenticator app").isVisible()) await enrol(visitor, max);
  await expect(heading(visitor.page, "Your devices")).toBeVisible();

  const desk = site.desk.page;
  await desk.reload();
  await expect(heading(desk, max.name)).toBeVisible();
  await site.desk.expectAccessible();
  await desk.getByRole("link", { name: "Disable this account" }).click();
  await expect(desk.getByRole("main")).toContainText("Ends 1 session, listed below, at the next click.");
  await site.desk.expectAccessible();
  await desk.getByLabel("Reason").fill("Left the company");
  await desk.getByRole("button", { name: "Disable this account" }).click();
  await expect(news(desk)).toHaveText("The account was disabled, and 1 session was ended.");
  await expect(desk.getByRole("button", { name: "Enable this account" })).toBeVisible();
  await site.desk.expectAccessible();

  const { page } = visitor;
  await page.getByRole("link", { name: "Security" }).click();
  await expect(page.getByText("You were signed out because this account was disabled.")).toBeVisible();
  await enterPassword(visitor, max);
  await expect(alert(page)).toHaveText("The name or the password is not right.");
});
