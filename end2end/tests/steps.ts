// Owns: what people do on the pages, as they would say it. Each step ends where the person sees its result.
import { type Browser, expect, type Page, test } from "@playwright/test";
import type { Certificate } from "./certificate";
import { Person } from "./person";
import { Server } from "./server";
import { Visitor } from "./visitor";

export const heading = (page: Page, name: string | RegExp) => page.getByRole("heading", { level: 1, name });

export const alert = (page: Page) => page.getByRole("main").getByRole("alert");

export const news = (page: Page) => page.getByRole("main").locator(".message[role=status]");

/** Types a code. With JavaScript the sixth digit sends the form; without, the button does. */
export async function enterCode(visitor: Visitor, code: string, button = "Continue"): Promise<void> {
  await visitor.awake();
  await visitor.page.getByLabel("Six-digit code").fill(code);
  if (!visitor.scripts) await visitor.page.getByRole("button", { name: button }).click();
}

/** From an opened one-time link to the next page. */
export async function fillWelcome(visitor: Visitor, person: Person, password = person.password): Promise<void> {
  const { page } = visitor;
  await page.getByLabel("Sign-in name").fill(person.username);
  await page.getByLabel("Your name").fill(person.name);
  await page.getByLabel("E-mail address").fill(person.email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Continue" }).click();
}

/** From "Set up your authenticator app" to the page after the recovery codes. */
export async function enrol(visitor: Visitor, person: Person): Promise<void> {
  const { page } = visitor;
  await expect(heading(page, "Set up your authenticator app")).toBeVisible();
  person.enrol(await page.locator(".secret code").innerText());
  await enterCode(visitor, await person.code(), "Confirm the code");
  await expect(heading(page, "Save your recovery codes")).toBeVisible();
  person.recoveryCodes = await page.locator(".codes code").allInnerTexts();
  await page.getByRole("button", { name: "I have saved them" }).click();
}

export async function enterPassword(visitor: Visitor, person: Person, password = person.password): Promise<void> {
  const { page } = visitor;
  await page.getByLabel("Sign-in name or e-mail address").fill(person.username);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Signs in from wherever the sign-in page is, or from `/`. */
export async function signIn(visitor: Visitor, person: Person, factor: "code" | "recovery" | "none" = "code"): Promise<void> {
  const { page } = visitor;
  if (!page.url().includes("/sign-in")) await page.goto("/");
  await enterPassword(visitor, person);
  if (factor === "none") return;
  await expect(heading(page, "Check it is you")).toBeVisible();
  if (factor === "code") {
    await enterCode(visitor, await person.code());
  } else {
    await page.getByRole("link", { name: "Use a recovery code instead" }).click();
    await page.getByLabel("Recovery code").fill(person.recoveryCode());
    await page.getByRole("button", { name: "Continue" }).click();
  }
  await expect(page.getByRole("button", { name: "Sign out" })).toBeVisible();
}

export async function signOut(visitor: Visitor): Promise<void> {
  await visitor.page.getByRole("button", { name: "Sign out" }).click();
  await expect(heading(visitor.page, "Sign in")).toBeVisible();
}

/** An administrator makes an invitation; the result is its one-time link. */
export async function invite(admin: Visitor, person: Person, role: string): Promise<string> {
  const { page } = admin;
  await page.goto("/admin/people/new");
  await page.getByLabel("Sign-in name").fill(person.username);
  await page.getByLabel("Name", { exact: true }).fill(person.name);
  await page.getByLabel("E-mail address").fill(person.email);
  await page.getByRole("checkbox", { name: role, exact: true }).check();
  await page.getByRole("button", { name: "Make the invitation" }).click();
  await expect(heading(page, person.name)).toBeVisible();
  return page.locator(".invitation code").innerText();
}

/** The invited person opens the link and chooses a password. */
export async function accept(visitor: Visitor, person: Person, link: string): Promise<void> {
  await visitor.page.goto(link);
  await expect(heading(visitor.page, "Welcome")).toBeVisible();
  await fillWelcome(visitor, person);
}

/** One server for the tests of a file, and its administrator, signed in at a browser that stays open. */
export class Site {
  server!: Server;
  admin!: Person;
  desk!: Visitor;

  async open(browser: Browser, certificate?: Certificate, changes: NodeJS.ProcessEnv = {}): Promise<void> {
    this.server = await Server.start(changes, certificate);
    this.admin = new Person("ada", "Ada Admin");
    this.desk = await Visitor.arrive(browser, this.server);
    await this.desk.page.goto(await this.server.firstAdminLink());
    await fillWelcome(this.desk, this.admin);
    await enrol(this.desk, this.admin);
    await expect(heading(this.desk.page, "Your devices")).toBeVisible();
    this.desk.expectQuiet();
  }

  async close(): Promise<void> {
    await this.desk?.leave();
    await this.server?.stop();
  }

  /** A person with this role, invited and signed in at a browser of their own. */
  async welcome(visitor: Visitor, person: Person, role: string): Promise<void> {
    await accept(visitor, person, await invite(this.desk, person, role));
  }
}

/** Gives a test file its site. */
export function siteOfThisFile(): Site {
  const site = new Site();
  test.beforeAll(({ browser }) => site.open(browser));
  test.afterEach(() => site.desk.expectQuiet());
  test.afterAll(() => site.close());
  return site;
}
