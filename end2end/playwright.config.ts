// How the browser tests run: which browser, in which two shapes. `cargo xtask test` calls this and passes
//   MAYFLY_BIN       the server's binary; every test file starts its own server from it, so none is started here
//   MAYFLY_CHROMIUM  the browser (default /usr/bin/chromium, the system's package)
import { defineConfig, devices } from "@playwright/test";

const desktop = {
  ...devices["Desktop Chrome"],
  launchOptions: {
    executablePath: process.env.MAYFLY_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      // Chromium refuses its sandbox to root, and in most containers.
      "--no-sandbox",
      "--disable-gpu",
      // Only the server under test is to be talked to.
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  },
};

export default defineConfig({
  testDir: "./tests",
  outputDir: "./test-results",
  // A test that fails now and then has found something: it is not tried again until it passes.
  retries: 0,
  workers: 2,
  forbidOnly: !!process.env.CI,
  // A story of many pages, on a machine that may be busy with other things.
  timeout: 90_000,
  expect: { timeout: 10_000 },
  // The full run opens ten tabs a hundred times over, in two projects.
  globalTimeout: (process.env.MAYFLY_TEST_FULL === "1" ? 75 : 30) * 60_000,
  reporter: [["dot"]],
  use: {
    locale: "en-GB",
    timezoneId: "UTC",
    trace: "retain-on-failure",
    screenshot: "only-on-failure",
  },
  projects: [
    { name: "javascript", use: { ...desktop, javaScriptEnabled: true } },
    // Every page works without JavaScript; this project proves it with the same tests.
    // What programs do is the same in both.
    { name: "no-javascript", testIgnore: ["oauth.spec.ts", "logout.spec.ts", "mail.spec.ts", "forged.spec.ts"], use: { ...desktop, javaScriptEnabled: false } },
  ],
});
