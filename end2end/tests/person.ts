// Owns: what one person knows: name, password, authenticator, recovery codes. Knows nothing of pages.
import { randomUUID } from "node:crypto";
import { Secret, TOTP } from "otpauth";

const STEP_MS = 30_000;
/** A code must still be accepted when it arrives: not used in the last moments of its time. */
const MARGIN_MS = 4_000;

export class Person {
  readonly password = `seven quiet rivers ${randomUUID()}`;
  readonly email: string;
  recoveryCodes: string[] = [];
  private totp: TOTP | undefined;
  private lastStep = 0;

  constructor(
    readonly username: string,
    /** Name as people read it. */
    readonly name: string,
  ) {
    this.email = `${username}@example.org`;
  }

  /** Takes the text key from the page into the authenticator app. */
  enrol(textKey: string): void {
    this.totp = new TOTP({ secret: Secret.fromBase32(textKey.replace(/\s/g, "")), digits: 6, period: STEP_MS / 1000 });
    this.lastStep = 0;
  }

  /**
   * A code that the server accepts now and has not seen. It accepts the current step and the one before, each
   * once, so two codes need no waiting; a third waits for the next step.
   */
  async code(): Promise<string> {
    if (!this.totp) throw new Error(`${this.username} has no authenticator`);
    const now = Date.now();
    const current = Math.floor(now / STEP_MS);
    const left = (current + 1) * STEP_MS - now;
    // Shortly before the step changes the one before is about to be refused.
    const oldest = left > MARGIN_MS ? current - 1 : current;
    const step = Math.max(oldest, this.lastStep + 1);
    if (step > current) {
      await new Promise((done) => setTimeout(done, step * STEP_MS - now + 100));
    }
    this.lastStep = step;
    return this.totp.generate({ timestamp: step * STEP_MS });
  }

  /** Six digits that are certainly wrong now. */
  wrongCode(): string {
    const totp = this.totp;
    if (!totp) return "000000";
    const around = [-2, -1, 0, 1, 2].map((step) => totp.generate({ timestamp: Date.now() + step * STEP_MS }));
    return ["111111", "222222", "333333", "444444", "555555", "666666"].find((code) => !around.includes(code))!;
  }

  /** A recovery code that was not used yet. */
  recoveryCode(): string {
    const code = this.recoveryCodes.pop();
    if (!code) throw new Error(`${this.username} has no recovery code left`);
    return code;
  }
}
