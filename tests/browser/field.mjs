// A relay, two devices and a browser: each the real thing. What is said to be so on a page is looked
// up in the relay's store too.

import { execFile, spawn } from "node:child_process";
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const BINARY = process.env.FIELDKEEP_BINARY;
const CHROMIUM = process.env.FIELDKEEP_CHROMIUM ?? "/usr/bin/chromium";
export const SHOTS = process.env.FIELDKEEP_SHOTS ?? join(tmpdir(), "fieldkeep-screenshots");
const PATIENCE = 30_000;

/** What every operator of a test signs in with. */
export const PASSWORD = "correct horse battery";

export const CATALOG = `
catalog = 1
[type.outlet]
share = "{{ record.name }}, {{ record.city }}"
[type.outlet.field]
name = { required = true }
city = {}
open = { schema = { type = "boolean" } }

[type.order.field]
outlet = { ref = "outlet", required = true }
status = { schema = { enum = ["draft", "placed", "confirmed"] } }
discount = { schema = { type = "integer", minimum = 0 } }
note = { kind = "text" }
boxes = { kind = "counter" }
[type.order.field.lines]
kind = "set"
[type.order.field.lines.field]
product = {}
quantity = { schema = { type = "integer" } }
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"

[type.lead]
buckets = 16
[type.lead.field]
name = { required = true }
status = {}
[action.convert_lead]
description = "Make an outlet of a lead"
who = "everyone"
input.lead = { required = true, ref = "lead" }
record.lead = "lead/{input.lead}"
[[action.convert_lead.require]]
cel = "!has(records.lead.status)"
reason = "this lead is an outlet already"
[[action.convert_lead.effect]]
type = "lead"
id = "input.lead"
fields = { status = "'converted'" }
[[action.convert_lead.effect]]
type = "outlet"
id = "input.lead"
fields = { name = "records.lead.name" }
[query.outlets_by_city]
who = "everyone"
sql = "SELECT city, count(*) AS outlets FROM outlet WHERE city IS NOT NULL GROUP BY city"

[type.visit]
scope = "region"
[type.visit.field]
region = {}
remark = {}
[type.visit.field.photos]
kind = "attachment"
media = ["image/*", "text/plain"]
max_size = "2 MB"
`;

/** Everything that a test needs, in a folder of its own. */
export class Field {
  #running = [];

  static async pitched() {
    const field = await Field.founded();
    await field.relayServes("127.0.0.1:0");
    await field.settled();
    return field;
  }

  /** One whose relay has a console, for operators with these roles. */
  static async overseen(operators) {
    const field = await Field.founded();
    for (const [name, role] of Object.entries(operators)) {
      await field.runWith("relay", `${PASSWORD}\n`, "relay", "operator", "add", name, "--role", role);
    }
    const { child, line } = await field.start("relay", ["relay", "serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"], "console ");
    field.relay = child;
    field.console = line.split(" ")[1];
    await field.settled();
    return field;
  }

  /** An organisation that nobody serves yet. */
  static async founded() {
    const field = new Field();
    field.root = await mkdtemp(join(tmpdir(), "fieldkeep-browser-"));
    await writeFile(join(field.root, "catalog.toml"), CATALOG);
    await field.run("relay", "relay", "init", "--catalog", join(field.root, "catalog.toml"), "--name", "Harbour Supplies");
    return field;
  }

  /** Has two devices join. */
  async settled() {
    for (const name of ["ann", "ben"]) {
      const ticket = await this.run("relay", "relay", "invite", "--name", name);
      await this.run(name, "join", ticket.trim());
    }
    await this.run("ben", "sync");
  }

  environment(dir) {
    return { ...process.env, FIELDKEEP_DIR: join(this.root, dir), XDG_STATE_HOME: join(this.root, "state") };
  }

  /** Runs a command on a directory to its end, and tells what it printed. */
  async run(dir, ...args) {
    const ran = await promisify(execFile)(BINARY, args, { env: this.environment(dir), timeout: PATIENCE * 2 });
    return ran.stdout;
  }

  /** Runs a command that reads its standard input. */
  async runWith(dir, input, ...args) {
    const running = promisify(execFile)(BINARY, args, { env: this.environment(dir), timeout: PATIENCE * 2 });
    running.child.stdin.end(input);
    return (await running).stdout;
  }

  async json(dir, ...args) {
    return JSON.parse(await this.run(dir, ...args, "--json"));
  }

  /** A record as the relay's own store has it. */
  async onRelay(record) {
    return this.json("relay", "get", record);
  }

  /** Starts what does not end by itself, and waits for a line of it. */
  async start(dir, args, beginning) {
    const child = spawn(BINARY, args, { env: this.environment(dir), stdio: ["ignore", "pipe", "inherit"] });
    this.#running.push(child);
    const line = await new Promise((resolve, reject) => {
      let text = "";
      const late = setTimeout(() => reject(new Error(`no ${beginning}: ${text}`)), PATIENCE);
      child.stdout.on("data", (data) => {
        text += data;
        const line = text.split("\n").slice(0, -1).find((line) => line.startsWith(beginning));
        if (line) {
          clearTimeout(late);
          resolve(line);
        }
      });
      child.on("exit", (code) => reject(new Error(`${args.join(" ")} ended with ${code}: ${text}`)));
    });
    return { child, line };
  }

  async relayServes(address) {
    const { child, line } = await this.start("relay", ["relay", "serve", "--listen", address], "listening ");
    this.relay = child;
    this.address = line.split(" ")[1];
  }

  async stop(child) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.on("exit", resolve));
    child.kill("SIGINT");
    await gone;
  }

  async serves(dir) {
    const { child } = await this.start(dir, ["serve", "--console", "127.0.0.1:0", "--no-nearby", "--listen", "127.0.0.1:0"], "console ");
    return child;
  }

  async struck() {
    for (const child of this.#running.reverse()) await this.stop(child);
    await rm(this.root, { recursive: true, force: true });
  }
}

/** A browser with the console open, which fails on anything that a page complains about. */
export class Visit {
  complaints = [];

  static async of(field, dir, options = {}) {
    const visit = await Visit.begun(options);
    visit.url = (await field.run(dir, "console")).trim();
    await visit.page.goto(visit.url);
    await visit.page.waitForURL((url) => url.pathname === "/");
    return visit;
  }

  /** An operator at the console of the relay. */
  static async signedIn(field, name, options = {}) {
    const visit = await Visit.begun(options);
    visit.url = field.console;
    await visit.open("/");
    await visit.page.fill("#name", name);
    await visit.page.fill("#password", PASSWORD);
    await visit.page.click("#enter");
    await visit.page.waitForURL((url) => url.pathname === "/");
    return visit;
  }

  /** A browser that has gone nowhere yet. */
  static async begun(options) {
    const visit = new Visit();
    visit.browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
    visit.context = await visit.browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    visit.page = await visit.context.newPage();
    visit.page.setDefaultTimeout(PATIENCE);
    visit.page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") visit.complaints.push(message.text());
    });
    visit.page.on("pageerror", (error) => visit.complaints.push(String(error)));
    await visit.page.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => console.error("policy", event.violatedDirective, event.blockedURI));
    });
    return visit;
  }

  path(path) {
    return new URL(path, this.url).href;
  }

  async open(path) {
    await this.page.goto(this.path(path));
  }

  /** Pictures of a page, as a desk and as a phone show it. */
  async picture(name) {
    await mkdir(SHOTS, { recursive: true });
    for (const [width, height] of [[390, 844], [1280, 900]]) {
      await this.page.setViewportSize({ width, height });
      await this.page.screenshot({ path: join(SHOTS, `${name}-${width}.png`) });
      const wide = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) throw new Error(`${name} is ${wide} pixels wider than ${width}`);
    }
  }

  async end() {
    await this.browser.close();
    if (this.complaints.length) throw new Error(`the pages complained: ${this.complaints.join("; ")}`);
  }
}

/** Waits until something asked again and again is so. */
export async function until(what, is) {
  const late = Date.now() + PATIENCE;
  for (;;) {
    const found = await what();
    if (is(found)) return found;
    if (Date.now() > late) throw new Error(`not so: ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
