// A download that takes its time, and a table that goes on. They have a field of their own: 20,000
// records are in nobody's way there.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Field, Visit, until } from "./field.mjs";
import { Road } from "./road.mjs";

/** Bytes a second, at which a download takes seconds. */
const DIRT_ROAD = 50_000;

let field, road, visit, page;

before(async () => {
  field = await Field.pitched();
  const rows = Array.from({ length: 20_000 }, (_, n) => `l${n},Lead ${n}\n`);
  await writeFile(join(field.root, "leads.csv"), `id,name\n${rows.join("")}`);
  await field.run("ben", "import", "lead", join(field.root, "leads.csv"));
  await field.run("ben", "sync");
  // Whoever joins over a narrow road has time to look.
  road = await Road.to(field.address);
  const ticket = await field.run("relay", "relay", "invite", "--name", "dee", "--address", road.address);
  await field.run("dee", "join", ticket.trim());
  await field.run("dee", "sync");
  await field.serves("dee");
  visit = await Visit.of(field, "dee");
  page = visit.page;
});

after(async () => {
  try {
    await visit?.end();
  } finally {
    road?.close();
    await field?.struck();
  }
});

test("how much of a download has come is shown while it comes", async () => {
  await visit.open("/data");
  const row = page.locator("#type-lead");
  await row.filter({ hasText: "Synced 20,000 of 20,000" }).waitFor();
  road.narrow(DIRT_ROAD);
  const done = field.run("dee", "resync", "lead");
  const come = async () => {
    const shown = (await row.innerText()).match(/Downloaded ([\d,]+) of 20,000/);
    return Number(shown?.[1].replaceAll(",", "") ?? 0);
  };
  const some = await until(come, (count) => count > 0);
  const more = await until(come, (count) => count === 0 || count > some);
  assert.ok(some < more && more < 20_000, `${some}, then ${more}`);
  road.widen();
  await done;
  await row.filter({ hasText: "Synced 20,000 of 20,000" }).waitFor();
});

test("a table of that many goes on page by page", async () => {
  await visit.open("/records/lead");
  await page.locator("#row-lead-l0").waitFor();
  await page.click("#next");
  await page.locator("#row-lead-l0").waitFor({ state: "detached" });
  assert.equal(await page.locator("#rows tbody tr").count(), 50);
});
