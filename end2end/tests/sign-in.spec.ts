// Signing in and out.
import { Person } from "./person";
import { alert, enterCode, enterPassword, heading, signIn, signOut, siteOfThisFile } from "./steps";
import { expect, test } from "./visitor";

const site = siteOfThisFile();

test("a wrong password and a wrong code are announced and tied to their fields", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await page.goto("/security");
  await expect(heading(page, "Sign in")).toBeVisible();

  await enterPassword(visitor, site.admin, "not the password at all");
  await expect(alert(page)).toHaveText("The name or the password is not right.");
  await expect(page).toHaveTitle(/^Error: /);
  await visitor.expectAccessible();

  // A name that nobody has gets the very same answer (P9).
  await page.getByLabel("Sign-in name or e-mail address").fill("nobody-at-all");
  await page.getByLabel("Password").fill("not the password at all");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(alert(page)).toHaveText("The name or the password is not right.");

  await enterPassword(visitor, site.admin);
  await expect(heading(page, "Check it is you")).toBeVisible();
  await visitor.expectAccessible();
  await enterCode(visitor, site.admin.wrongCode());
  await expect(alert(page)).toHaveText("That code is not right. Wait for the next one and try again.");
  const code = page.getByLabel("Six-digit code");
  await expect(code).toHaveAttribute("aria-invalid", "true");
  await expect(code).toHaveAccessibleDescription(/That code is not right/);
  await visitor.expectAccessible();

  await page.getByRole("link", { name: "Use a recovery code instead" }).click();
  await expect(page.getByLabel("Recovery code")).toBeVisible();
  await visitor.expectAccessible();
  const used = site.admin.recoveryCode();
  await page.getByLabel("Recovery code").fill(` ${used.toUpperCase()} `);
  await page.getByRole("button", { name: "Continue" }).click();
  // Back to where the person was going.
  await expect(heading(page, "Security")).toBeVisible();
  await expect(page.getByText("9 of 10 left")).toBeVisible();
  await visitor.expectAccessible();
});

test("by keyboard alone, in a hurry: Enter right after the sixth digit", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await page.goto("/");
  await visitor.awake();
  // The first field has the focus.
  await page.keyboard.type(site.admin.username);
  await page.keyboard.press("Tab");
  await page.keyboard.type(site.admin.password);
  await page.keyboard.press("Enter");
  await expect(heading(page, "Check it is you")).toBeVisible();
  await visitor.awake();
  const sent: string[] = [];
  page.on("request", (request) => request.method() === "POST" && sent.push(new URL(request.url()).pathname));
  await page.keyboard.type(await site.admin.code());
  await page.keyboard.press("Enter");
  await expect(heading(page, "Your devices")).toBeVisible();
  // Each try counts against the limit: a habit must not cost two.
  expect(sent.filter((path) => path.includes("verify_code"))).toHaveLength(1);

  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("main")).toBeFocused();

  const out = page.getByRole("button", { name: "Sign out" });
  await page.reload();
  for (let presses = 0; presses < 20 && !(await out.evaluate((button) => button === document.activeElement)); presses += 1) {
    await page.keyboard.press("Tab");
  }
  await expect(out).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(heading(page, "Sign in")).toBeVisible();
});

test("S15: after signing out, back shows nothing private", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  const { page } = visitor;
  await signIn(visitor, site.admin, "recovery");
  await page.getByRole("link", { name: "Security" }).click();
  await expect(heading(page, "Security")).toBeVisible();
  await signOut(visitor);

  for (let back = 0; back < 2; back += 1) {
    await page.goBack();
    await expect(heading(page, "Sign in")).toBeVisible();
    await expect(page.getByText(site.admin.name)).toHaveCount(0);
  }
  const cookies = (await visitor.context.cookies()).map((cookie) => cookie.name);
  expect(cookies.filter((name) => /mayfly-(at|rt)$/.test(name))).toEqual([]);
});

test("S14: cookies are HttpOnly, Secure, SameSite and bound to this host", async ({ arrive }) => {
  const visitor = await arrive(site.server);
  await site.welcome(visitor, new Person("kim", "Kim Keeper"), "member");
  await expect(heading(visitor.page, "Your devices")).toBeVisible();
  const cookies = (await visitor.context.cookies()).filter((cookie) => cookie.name !== "theme");
  const names = cookies.map((cookie) => cookie.name).sort();
  expect(names).toEqual(expect.arrayContaining(["__Host-Http-mayfly-at", "__Host-Http-mayfly-device", "__Host-Http-mayfly-rt"]));
  for (const cookie of cookies) {
    expect(cookie).toMatchObject({ httpOnly: true, secure: true, sameSite: "Lax", path: "/", domain: "localhost" });
    expect(cookie.name).toMatch(/^__Host-Http-/);
  }
});
