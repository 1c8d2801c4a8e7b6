// The first minutes of a fresh server: one link, one administrator, a second factor before anything else.
import { Person } from "./person";
import { Server } from "./server";
import { alert, enterCode, fillWelcome, heading, signIn, signOut } from "./steps";
import { expect, test } from "./visitor";

let server: Server;
test.beforeAll(async () => {
  server = await Server.start();
});
test.afterAll(() => server.stop());

test("the one-time link makes the first administrator, who enrols, saves codes and signs in again", async ({ arrive }) => {
  const ada = new Person("ada", "Ada Admin");
  const visitor = await arrive(server);
  const { page } = visitor;

  await page.goto("/");
  await expect(heading(page, "Sign in")).toBeVisible();
  await expect(page.getByText("This server has no account yet.")).toBeVisible();
  await visitor.expectAccessible();

  const link = await server.firstAdminLink();
  await page.goto(link);
  await expect(heading(page, "Make the first administrator")).toBeVisible();
  // The secret leaves the address at once (C11).
  expect(page.url()).toBe(`${server.url}/welcome`);
  await visitor.expectAccessible();

  await fillWelcome(visitor, ada, "password1234");
  const password = page.getByLabel("Password");
  await expect(password).toHaveAttribute("aria-invalid", "true");
  await expect(password).toHaveAccessibleDescription(/well known or easy to guess/);
  await expect(alert(page)).toContainText("well known or easy to guess");
  await visitor.expectAccessible();

  await fillWelcome(visitor, ada);
  await expect(heading(page, "Set up your authenticator app")).toBeVisible();
  await expect(page.getByRole("img", { name: "QR code of the key below" })).toBeVisible();
  await visitor.expectAccessible();

  ada.enrol(await page.locator(".secret code").innerText());
  // Not signed in yet: a page of the console leads back to signing in (P19).
  const other = await visitor.context.newPage();
  await other.goto("/security");
  await expect(heading(other, "Sign in")).toBeVisible();
  await other.close();

  await enterCode(visitor, ada.wrongCode(), "Confirm the code");
  await expect(alert(page)).toContainText("That code is not right");
  await expect(page.getByLabel("Six-digit code")).toHaveAccessibleDescription(/That code is not right/);
  await visitor.expectAccessible();

  await enterCode(visitor, await ada.code(), "Confirm the code");
  await expect(heading(page, "Save your recovery codes")).toBeVisible();
  await visitor.expectAccessible();
  ada.recoveryCodes = await page.locator(".codes code").allInnerTexts();
  expect(new Set(ada.recoveryCodes).size).toBe(10);

  await page.getByRole("button", { name: "I have saved them" }).click();
  await expect(heading(page, "Your devices")).toBeVisible();
  await expect(page.getByRole("article")).toHaveCount(1);
  await expect(page.getByRole("article")).toContainText("This device");
  await expect(page.getByRole("article")).toContainText("Chrom");
  await expect(page.getByRole("article")).toContainText(/Signs out .* \(role admin, policy 1\)/);
  await visitor.expectAccessible();

  // Shown once.
  visitor.allow(/status of 404/);
  await page.goto("/recovery-codes");
  expect(await page.content()).not.toContain(ada.recoveryCodes[0]);

  await page.goto("/");
  await signOut(visitor);
  await expect(page.getByText("You are signed out on this device.")).toBeVisible();
  await visitor.expectAccessible();
  await signIn(visitor, ada);
  await expect(heading(page, "Your devices")).toBeVisible();

  // The link is dead for everybody.
  const stranger = await arrive(server);
  stranger.allow(/status of 404/);
  await stranger.page.goto(link);
  await expect(stranger.page.getByLabel("Password")).toHaveCount(0);
  await stranger.expectAccessible();
});
