// The console in a real browser, beside a real relay: every page and action, asserted in the page and in
// the relay's store.

import assert from "node:assert/strict";
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { faintText } from "./contrast.mjs";
import { Field, Visit, until } from "./field.mjs";

let field, serving, visit, page;

before(async () => {
  field = await Field.pitched();
  await field.run("ben", "put", "outlet/o1", "name=Harbour Kiosk", "city=Tallinn");
  await field.run("ben", "put", "order/b1", "outlet=o1", "discount=10", "note=Call first");
  await field.run("ben", "put", "visit/v1", "region=north", "remark=closed");
  await field.run("ben", "sync");
  serving = await field.serves("ann");
  visit = await Visit.of(field, "ann");
  page = visit.page;
});

after(async () => {
  try {
    await visit?.end();
  } finally {
    await field?.struck();
  }
});

const text = (selector) => page.locator(selector).innerText();
const strip = (wanted) => page.locator("#strip .state", { hasText: wanted }).waitFor();

test("today says that everything is synced", async () => {
  await visit.open("/");
  await strip("Online, synced");
  assert.match(await text("#unsaved"), /Everything that was captured here is on the relay/);
  await page.locator("nav [aria-current=page]", { hasText: "Today" }).first().waitFor();
  await visit.picture("today");
  await page.click("#sync-now");
  await page.locator("#told", { hasText: "Synced: 0 sent, 0 received" }).waitFor();
  await page.click("#seen");
});

test("a record is made by the form of its type, and reaches the relay judged", async () => {
  await visit.open("/records/order");
  await page.click("#new");
  await page.fill("[name='id:']", "a1");
  await page.fill("[name='f:outlet']", "o1");
  await page.selectOption("[name='f:status']", "placed");
  await page.fill("[name='f:discount']", "12");
  await page.fill("[name='f:note']", "Two pallets\nby noon");
  await page.fill("[name='add:boxes']", "4");
  await page.fill("[name='new:lines.product']", "Tea");
  await page.fill("[name='new:lines.quantity']", "3");
  await visit.picture("edit");
  await page.click("#save");
  await page.locator("#told", { hasText: "Saved on this device" }).waitFor();
  await page.locator("#state", { hasText: "Valid" }).waitFor();
  const stored = await until(() => field.onRelay("order/a1"), (record) => record.state === "valid");
  assert.equal(stored.fields.discount, 12);
  assert.equal(stored.fields.note, "Two pallets\nby noon");
  assert.equal(stored.fields.boxes, 4);
  assert.equal(stored.fields.lines[0].product, "Tea");
  await page.click("#seen");
  assert.equal(await page.locator("#told .banner").count(), 0);
});

test("an edit writes what was changed and nothing else", async () => {
  await visit.open("/edit/order/a1");
  // Meanwhile another device writes another field: the form does not undo that.
  await field.run("ben", "sync");
  await field.run("ben", "put", "order/a1", "status=confirmed");
  await field.run("ben", "sync");
  await page.fill("[name='f:discount']", "15");
  await page.fill("[name='add:boxes']", "-1");
  await page.click("#save");
  const stored = await until(() => field.onRelay("order/a1"), ({ fields }) => fields.discount === 15 && fields.status === "confirmed");
  assert.equal(stored.fields.boxes, 3);
  await page.locator("#history", { hasText: "discount: 12 → 15" }).waitFor();
});

test("what a field cannot hold is said, and what was typed stays", async () => {
  await visit.open("/new/order");
  await page.fill("[name='id:']", "a/b");
  await page.fill("[name='f:note']", "kept");
  await page.click("#save");
  assert.match(await text("#problem"), /id/);
  assert.equal(await page.inputValue("[name='f:note']"), "kept");
  // A form that is not well-formed is answered like any other.
  visit.complaints = visit.complaints.filter((complaint) => !complaint.includes("422"));
});

test("a value that is not allowed stays in the form, and what was typed stays after an error", async () => {
  await field.run("ben", "put", "order/b2", "outlet=o1", "status=lost");
  await field.run("ben", "sync");
  await visit.open("/edit/order/b2");
  assert.equal(await page.inputValue("[name='f:status']"), "lost");
  await page.fill("[name='f:note']", "looked for");
  await page.click("#save");
  const stored = await until(() => field.onRelay("order/b2"), ({ fields }) => fields.note === "looked for");
  assert.equal(stored.fields.status, "lost");
  await field.run("ann", "put", "order/b2", "status=placed");
  await visit.open("/new/order");
  await page.fill("[name='id:']", "C-17");
  await page.fill("[name='f:outlet']", "o1");
  // Chosen so that only the device can refuse it.
  await page.locator("[name='f:discount']").evaluate((input) => { input.type = "text"; input.value = "much"; });
  await page.click("#save");
  await page.locator("#problem", { hasText: "discount" }).waitFor();
  assert.equal(await page.inputValue("[name='id:']"), "C-17");
  visit.complaints = visit.complaints.filter((complaint) => !complaint.includes("422"));
});

test("an action is run by its form, and says what came of it", async () => {
  await field.run("ann", "put", "lead/l1", "name=Quay Bar");
  await visit.open("/");
  await page.click("#nav-actions");
  await page.fill("#convert_lead [name='f:lead']", "l1");
  await visit.picture("actions");
  await page.click("#convert_lead button");
  await page.locator("#told", { hasText: "is done: 2 records written" }).waitFor();
  const stored = await until(() => field.onRelay("outlet/l1"), (record) => record.state === "valid");
  assert.equal(stored.fields.name, "Quay Bar");
  await page.locator("#calls", { hasText: "convert_lead" }).waitFor();
  await page.click("#seen");
  await page.fill("#convert_lead [name='f:lead']", "l1");
  await page.click("#convert_lead button");
  await page.locator("#convert_lead [role=alert]", { hasText: "this lead is an outlet already" }).waitFor();
  assert.equal(await page.inputValue("#convert_lead [name='f:lead']"), "l1");
  visit.complaints = visit.complaints.filter((complaint) => !complaint.includes("422"));
});

test("a question is answered in a table", async () => {
  await visit.open("/actions");
  await page.click("#outlets_by_city button");
  await page.locator("#answer td", { hasText: "Tallinn" }).waitFor();
});

test("a page follows what others write", async () => {
  await visit.open("/records/outlet");
  await page.locator("#rows", { hasText: "Harbour Kiosk" }).waitFor();
  await field.run("ben", "put", "outlet/o2", "name=Station <b>Bakery</b>");
  await field.run("ben", "sync");
  await page.locator("#rows", { hasText: "Station <b>Bakery</b>" }).waitFor();
  await visit.picture("records");
});

test("records are found by their words", async () => {
  await visit.open("/records");
  await page.fill("#q", "harb");
  await page.press("#q", "Enter");
  await page.locator("#rows", { hasText: "Harbour Kiosk" }).waitFor();
  assert.equal(await page.locator("#rows tbody tr").count(), 1);
  await page.fill("#q", "nowhere");
  await page.press("#q", "Enter");
  await page.locator("#live", { hasText: "Nothing has “nowhere” in it" }).waitFor();
});

test("a held record shows its reason, and an edit offline mends it", async () => {
  await visit.open("/edit/order/a1");
  await page.fill("[name='f:discount']", "45");
  await page.click("#save");
  await page.locator("#told", { hasText: "likely to be held" }).waitFor();
  await until(() => field.onRelay("order/a1"), (record) => record.state === "held");
  await page.locator("#reasons", { hasText: "the discount is above 30 percent" }).waitFor();
  await page.locator("#state", { hasText: "Held" }).waitFor();
  await page.locator("tr.differs.blamed td.merged", { hasText: "45" }).waitFor();
  await page.locator("nav .bubble", { hasText: "1" }).first().waitFor();
  await visit.picture("record-held");
  await visit.open("/attention");
  await page.locator("#held-order-a1", { hasText: "above 30 percent" }).waitFor();
  assert.match(await text("#held-order-a1 .since"), /^About discount, since \S+/);
  await visit.picture("attention");
  await visit.open("/");
  await page.locator("#needs-attention", { hasText: "a1" }).waitFor();

  await field.stop(field.relay);
  await strip("Sync error");
  await page.locator("#sync-error", { hasText: "Tap to retry" }).waitFor();
  await visit.picture("today-error");
  await visit.open("/records/order/a1");
  await page.click("#last-valid-discount");
  await page.locator("#state", { hasText: "Likely valid" }).waitFor();
  await page.locator("#state", { hasText: "unsaved" }).waitFor();
  await visit.open("/");
  await page.locator("#unsaved", { hasText: "1 unsaved" }).waitFor();
  assert.doesNotMatch(await text("#strip"), /synced/);

  await page.click("#try-again");
  await page.locator("#told", { hasText: "the relay was not reached" }).waitFor();
  await page.click("#seen");
  await field.relayServes(field.address);
  await strip("Online, synced");
  const mended = await until(() => field.onRelay("order/a1"), (record) => record.state === "valid");
  assert.equal(mended.fields.discount, 15);
  await visit.open("/attention");
  await page.locator("#live", { hasText: "Nothing needs attention" }).waitFor();
});

test("stop trying puts a record aside on the relay too, and reopen takes it up", async () => {
  await field.run("ben", "sync");
  await field.run("ben", "put", "order/b1", "discount=50");
  await field.run("ben", "sync");
  await visit.open("/records/order/b1");
  await page.locator("#reasons").waitFor();
  await page.click("#retry");
  await page.locator("#told", { hasText: "judged again" }).waitFor();
  await page.click("#stop-trying");
  await page.fill("#note", "agreed by phone");
  // What is typed stays while the page is brought up to date.
  await field.run("ben", "put", "order/b1", "note=Call later");
  await field.run("ben", "sync");
  await page.locator("#content-table", { hasText: "Call later" }).waitFor();
  assert.equal(await page.inputValue("#note"), "agreed by phone");
  await page.click("#dismiss");
  await page.locator("#dismissed", { hasText: "agreed by phone" }).waitFor();
  const aside = await until(() => field.onRelay("order/b1"), (record) => record.dismissed);
  assert.deepEqual([aside.dismissed.who, aside.dismissed.note], ["ann", "agreed by phone"]);
  await page.click("#reopen");
  await page.locator("#dismissed").waitFor({ state: "detached" });
  await until(() => field.onRelay("order/b1"), (record) => !record.dismissed);

  await visit.open("/attention");
  const card = page.locator("#held-order-b1");
  await card.locator("button", { hasText: "Retry" }).click();
  await page.locator("#told", { hasText: "It is judged again" }).waitFor();
  await page.click("#seen");
  await page.click("#retry-");
  await page.locator("#told", { hasText: /\d records?: judged again/ }).waitFor();
  await page.click("#seen");
  await card.locator("summary").click();
  await card.locator("input[name=note]").fill("a sample");
  await card.locator("details button").click();
  await page.locator("#dismissed", { hasText: "a sample" }).waitFor();
  await until(() => field.onRelay("order/b1"), (record) => record.dismissed?.note === "a sample");
  await page.locator("#dismissed button", { hasText: "Reopen" }).click();
  await card.waitFor();
  await until(() => field.onRelay("order/b1"), (record) => !record.dismissed);
});

test("a page is told what a command does, and shows it", async () => {
  await visit.open("/attention");
  await page.locator("#held-order-b1").waitFor();
  await field.run("ann", "attention", "dismiss", "order/b1", "--note", "typed");
  await page.locator("#dismissed", { hasText: "typed" }).waitFor();
  await field.run("ann", "attention", "reopen", "order/b1");
  await page.locator("#held-order-b1").waitFor();
  await visit.open("/data");
  await field.run("ann", "pause", "lead");
  await page.locator("#type-lead", { hasText: "Paused" }).waitFor();
  await field.run("ann", "resume");
  await page.locator("#type-lead", { hasText: "synced" }).waitFor();
  await visit.open("/settings");
  await field.run("ann", "pin", "order/b1", "--owner", "till");
  await page.locator("#pins", { hasText: "order/b1" }).waitFor();
  await field.run("ann", "unpin", "--owner", "till");
  await page.locator("#pins").waitFor({ state: "detached" });
});

test("concurrent values are shown, and one is chosen", async () => {
  await field.run("ben", "sync");
  await visit.open("/data/outlet");
  await page.click("#pause-outlet");
  await page.locator("#object", { hasText: "Paused" }).waitFor();
  await field.run("ben", "put", "outlet/o1", "city=Riga");
  await field.run("ben", "sync");
  await visit.open("/edit/outlet/o1");
  await page.fill("[name='f:city']", "Tartu");
  await page.click("#save");
  await visit.open("/data");
  await page.click("#resume-");
  await visit.open("/records/outlet/o1");
  await page.locator("#conflict-city").waitFor();
  await page.locator("#conflict-city li", { hasText: "Riga" }).locator("button").click();
  await page.locator("#conflict-city").waitFor({ state: "detached" });
  const chosen = await until(() => field.onRelay("outlet/o1"), ({ fields, conflicts }) => fields.city === "Riga" && !conflicts.length);
  assert.equal(chosen.state, "valid");
});

test("a paused type is exchanged no more, until it is resumed", async () => {
  await visit.open("/data");
  await page.locator("#type-visit", { hasText: "synced" }).waitFor();
  await visit.picture("data");
  await page.click("#pause-");
  await page.locator("#type-visit", { hasText: "Paused" }).waitFor();
  await visit.open("/new/visit");
  await page.fill("[name='id:']", "v2");
  await page.fill("[name='f:region']", "south");
  await page.click("#save");
  await page.locator("#state", { hasText: "unsaved" }).waitFor();
  await visit.open("/");
  await page.locator("#paused", { hasText: "Visit" }).waitFor();
  await assert.rejects(field.onRelay("visit/v2"), ({ stdout }) => stdout.includes("there is no record"));
  await page.click("#paused button");
  await until(async () => (await field.json("relay", "list", "visit")).records.length, (count) => count === 2);
  await strip("Online, synced");
  await visit.open("/data/visit");
  await page.click("#pause-visit");
  await page.locator("#object", { hasText: "Paused" }).waitFor();
  await page.click("#resume-visit");
  await page.locator("#object", { hasText: "synced" }).waitFor();
});

test("clearing says before what goes and what stays, and ends with a proof", async () => {
  await field.run("ann", "pin", "visit/v1", "--reason", "open", "--owner", "test");
  await visit.open("/data/visit");
  await visit.picture("object");
  await page.click("#more-actions");
  await page.click("#clear-this");
  assert.match(await text("#plan"), /Kept, because in use\s+1 record/);
  assert.match(await text("#plan"), /Replaced by the relay's copy\s+2 records/);
  await visit.picture("clear");
  await page.click("#clear-now");
  await page.locator("#told", { hasText: "downloaded again and proven: 2 records" }).waitFor();
  await page.locator("#object", { hasText: "Fully synced" }).waitFor();
  await page.click("#seen");
  await page.click("#more-actions");
  await page.click("#resync-visit");
  await page.locator("#told", { hasText: "visit was downloaded again and proven: 2 records" }).waitFor();
  await page.click("#seen");
  assert.equal((await field.json("relay", "list", "visit")).records.length, 2, "the relay keeps what it has");
});

test("all of it is downloaded again, and what is unsaved stays and is sent", async () => {
  const onRelay = async () => Object.fromEntries((await field.json("relay", "status")).types.map((row) => [row.type, row.local]));
  const before = await onRelay();
  await visit.open("/data");
  await page.click("#more-actions");
  await page.click("#resync-");
  await page.locator("#told", { hasText: "Everything was downloaded again and proven" }).waitFor();
  await page.click("#seen");
  assert.deepEqual(await onRelay(), before);

  await field.stop(field.relay);
  await strip("Sync error");
  await field.run("ann", "put", "order/u1", "outlet=o1", "note=not sent");
  await visit.open("/data");
  await page.click("#more-actions");
  await page.click("#clear-all");
  assert.match(await text("#plan"), /Kept, because unsaved\s+1 record/);
  await field.relayServes(field.address);
  await page.click("#clear-now");
  await page.locator("#told", { hasText: "Everything was downloaded again and proven" }).waitFor();
  await page.click("#seen");
  assert.equal((await field.onRelay("order/u1")).fields.note, "not sent");
  assert.deepEqual(await onRelay(), { ...before, order: before.order + 1 });
  await strip("Online, synced");
});

test("a record is marked as in use, deleted and brought back", async () => {
  await visit.open("/records/order/a1");
  await page.click("#more-actions");
  await page.click("#pin");
  await page.locator("#state", { hasText: "in use by console" }).waitFor();
  assert.equal((await field.json("ann", "pin")).records.length, 2);
  await visit.open("/settings");
  await page.locator("#pins", { hasText: "order/a1" }).waitFor();
  await visit.open("/records/order/a1");
  await page.click("#more-actions");
  await page.click("#unpin");
  await page.locator("#state", { hasText: "in use" }).waitFor({ state: "detached" });
  await page.click("#more-actions");
  await page.click("#delete");
  await page.locator("#state", { hasText: "deleted" }).waitFor();
  await until(() => field.onRelay("order/a1"), (record) => record.deleted);
  await page.click("#undelete");
  await until(() => field.onRelay("order/a1"), (record) => !record.deleted);
});

test("the past of a record can be read", async () => {
  await visit.open("/records/order/a1");
  await page.locator("#history li").last().locator("a").click();
  await page.locator("main", { hasText: "as it was" }).waitFor();
  await page.locator("tr", { hasText: "Discount" }).locator("td", { hasText: "12" }).waitFor();
});

test("a history is a timeline of what each change found and left, page by page", async () => {
  for (let n = 1; n <= 60; n++) await field.run("ann", "put", "visit/v1", `remark=look ${n}`);
  await visit.open("/records/visit/v1");
  await page.locator("#history", { hasText: "remark: look 59 → look 60" }).waitFor();
  assert.equal(await page.locator("#history li").count(), 10);
  assert.match(await text("#history header"), /61 changes/);
  await page.click("#older");
  await page.locator("h1", { hasText: "History of v1" }).waitFor();
  assert.equal(await page.locator("#history li").count(), 50);
  await visit.picture("history");
  await page.click("#older");
  await page.locator("#history", { hasText: "remark: closed → look 1" }).waitFor();
  assert.equal(await page.locator("#history li").count(), 11);
  assert.equal(await page.locator("#older").count(), 0);
  await page.click("#newest");
  await page.locator("#history", { hasText: "look 60" }).waitFor();
});

test("a record goes back to what it was, and that is one more change", async () => {
  await visit.open("/records/visit/v1");
  assert.equal(await page.locator("#history li").first().locator("button").count(), 0, "it is so now");
  await page.locator("#history li", { hasText: "look 57 → look 58" }).locator("button").click();
  await page.locator("#told", { hasText: "Written as it was then" }).waitFor();
  await page.locator("#history", { hasText: "remark: look 60 → look 58" }).waitFor();
  assert.match(await text("#history header"), /62 changes/);
  await page.click("#seen");
  await until(() => field.onRelay("visit/v1"), ({ fields }) => fields.remark === "look 58");
});

test("one field goes back to what it was, and the others stay", async () => {
  await visit.open("/records/visit/v1");
  await page.locator("#history li", { hasText: "look 55 → look 56" }).locator("a").click();
  await page.locator("tr.differs", { hasText: "look 56" }).locator("td", { hasText: "look 58" }).waitFor();
  await visit.picture("as-it-was");
  await page.click("#revert-remark");
  await page.locator("#told", { hasText: "Written as it was then" }).waitFor();
  await page.click("#seen");
  await until(() => field.onRelay("visit/v1"), ({ fields }) => fields.remark === "look 56");

  await page.locator("#history li", { hasText: "look 56 → look 57" }).locator("a").click();
  await page.click("#revert");
  await page.locator("#told", { hasText: "Written as it was then" }).waitFor();
  await page.click("#seen");
  await until(() => field.onRelay("visit/v1"), ({ fields }) => fields.remark === "look 57");
});

test("a record is shared as a text: copied, and by the browser's own sheet where it has one", async () => {
  await visit.context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await visit.open("/records/outlet/o1");
  const wanted = "Harbour Kiosk, Riga";
  assert.equal((await text("#share-text")).split("\n")[0], wanted);
  assert.equal(await page.locator("#send").isVisible(), await page.evaluate(() => !!navigator.share));
  await page.click("#copy");
  await page.locator("#copy", { hasText: "Copied" }).waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied, (await field.run("ann", "share", "outlet/o1")).trimEnd());
  await visit.picture("share");

  const phone = await Visit.of(field, "ann", { viewport: { width: 390, height: 844 } });
  await phone.page.addInitScript(() => {
    navigator.share = async ({ text }) => { document.title = text; };
  });
  await phone.open("/records/outlet/o1");
  await phone.page.click("#send");
  await phone.page.waitForFunction((wanted) => document.title.startsWith(wanted), wanted);
  await phone.end();
});

test("a held record is shared with a mark", async () => {
  await field.run("ann", "put", "order/s1", "outlet=o1", "discount=45");
  await visit.open("/records/order/s1");
  await page.locator("#state", { hasText: "Held" }).waitFor();
  assert.match(await text("#share-text"), /\[held: the discount is above 30 percent\]$/);
  await page.locator("#history li", { hasText: "discount: none → 45" }).waitFor();
  await field.run("ann", "put", "order/s1", "discount=5");
  await page.locator("#share-text", { hasNotText: "[" }).waitFor();
});

test("peers: how this device is reached, and what was exchanged with another", async () => {
  await visit.open("/peers");
  const place = await text("#place");
  assert.equal(await page.locator(".qr").evaluate((image) => image.complete && image.naturalWidth > 0), true);
  await field.run("ben", "put", "outlet/o3", "name=By hand");
  await field.run("ben", "sync", "--peer", place);
  await page.locator("#met", { hasText: "ben" }).waitFor();
  await visit.picture("peers");
  await page.fill("#peer", "no address");
  await page.click("#meet");
  await page.locator("#told", { hasText: "no address" }).waitFor();
  await page.click("#seen");
});

test("peers: who is near is found, and met by a click or by the address", async () => {
  const near = await field.start("ben", ["sync", "--watch", "--nearby", "--listen", "127.0.0.1:0"], "listening ");
  await visit.open("/peers");
  await page.click("#look");
  const ben = page.locator("#near li", { hasText: "ben" });
  await ben.waitFor();
  await ben.locator("button", { hasText: "Exchange now" }).click();
  await page.locator("#told", { hasText: "Met ben" }).waitFor();
  await page.click("#seen");
  await page.locator("#met", { hasText: "ben" }).waitFor();
  await visit.picture("peers-near");
  const place = (await field.json("ben", "peers", "--wait", "1s")).listening;
  await page.fill("#peer", place);
  await page.click("#meet");
  await page.locator("#told", { hasText: "Met ben" }).waitFor();
  await page.click("#seen");
  await field.stop(near.child);
});

test("settings: who this device is, and whether all of it is sound", async () => {
  await visit.open("/settings");
  await page.locator("#identity", { hasText: "Harbour Supplies" }).waitFor();
  await page.locator("#catalog", { hasText: "Number" }).waitFor();
  await page.click("#check");
  await page.locator("#checks li .badge").first().waitFor();
  assert.equal(await page.locator("#checks .badge.bad").count(), 0);
  await page.click("#repair");
  await page.locator("#told", { hasText: "derived again" }).waitFor();
  await strip("Online, synced");
  await visit.picture("settings");
  await page.fill("#address", field.address);
  await page.locator("#relay button").click();
  await page.locator("#told", { hasText: "The relay answers" }).waitFor();
  await page.click("#seen");
});

test("all of it is reached by the keyboard", async () => {
  await visit.open("/");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  const reached = new Set();
  for (let n = 0; n < 25; n++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id));
  }
  for (const id of ["nav-today", "nav-records", "nav-attention", "nav-data", "nav-peers", "nav-settings", "sync-now"]) {
    assert.ok(reached.has(id), id);
  }
});

test("a photo is attached by its form, seen small, sent after its record, and removed", async () => {
  await field.run("ann", "put", "visit/p1", "region=north", "remark=shelf");
  await visit.open("/records/visit/p1");
  const photo = { name: "shelf & door.png", mimeType: "image/png", buffer: await page.screenshot() };
  await page.setInputFiles("#choose-photos", photo);
  await page.click("#attach-photos");
  const row = page.locator("ul.files li").first();
  await row.locator("text=here and on the relay").waitFor();
  const picture = row.locator("img.small-picture");
  assert.ok(await picture.evaluate((image) => image.decode().then(() => image.naturalWidth > 10)));
  await visit.picture("files");
  const stored = await until(() => field.onRelay("visit/p1"), ({ fields }) => fields.photos?.length === 1);
  await visit.open("/settings");
  await page.locator("#catalog dt", { hasText: "Attached files" }).waitFor();
  await visit.open("/records/visit/p1");
  const [{ id, name, size }] = stored.fields.photos;
  assert.deepEqual([name, size], [photo.name, photo.buffer.length]);
  const had = await page.context().request.get(visit.path(`/files/visit/p1/${id}`));
  assert.deepEqual(await had.body(), photo.buffer);
  assert.match(had.headers()["content-disposition"], /^attachment; filename\*=UTF-8''shelf%20%26%20door\.png$/);
  assert.equal(had.headers()["content-type"], "application/octet-stream");
  await field.run("ben", "sync");
  await field.run("ben", "attachments", "get", "visit/p1", photo.name);

  // What does not fit is said, and nothing is changed.
  await page.setInputFiles("#choose-photos", { name: "walk.mp4", mimeType: "video/mp4", buffer: Buffer.from("moving") });
  await page.click("#attach-photos");
  await page.locator("main", { hasText: "video/mp4 is none of the kinds of file that it takes" }).waitFor();
  await visit.open("/records/visit/p1");
  await page.click(`#detach-${id}`);
  await until(() => field.onRelay("visit/p1"), ({ fields }) => !fields.photos?.length);
  visit.complaints = visit.complaints.filter((complaint) => !complaint.includes("422"));
});

test("files wait while they are paused, are tried again, and come from elsewhere by their button", async () => {
  const photo = { name: "quay.png", mimeType: "image/png", buffer: await page.screenshot() };
  await field.run("ann", "put", "visit/p2", "region=north");
  await visit.open("/data");
  await page.click("#more-actions");
  await page.click("#files-pause-");
  await page.locator("#files", { hasText: "Files are paused" }).waitFor();
  await visit.open("/records/visit/p2");
  await page.setInputFiles("#choose-photos", photo);
  await page.click("#attach-photos");
  const { fields } = await until(() => field.onRelay("visit/p2"), ({ fields }) => fields.photos?.length === 1);
  const { id } = fields.photos[0];
  await visit.open("/data");
  await page.locator("#files li", { hasText: "quay.png" }).waitFor();
  await visit.picture("data-files");

  // The disk has rotted: what is not what it was is refused, and stays until it is mended.
  const kept = join(field.root, "ann", "blobs", id);
  const mode = (await stat(kept)).mode;
  await chmod(kept, 0o600);
  await writeFile(kept, Buffer.alloc(photo.buffer.length));
  await page.locator("#files header button", { hasText: "Resume files" }).click();
  await page.locator("#files li", { hasText: "failed: " }).waitFor();
  await writeFile(kept, photo.buffer);
  await chmod(kept, mode);
  await page.click("#files-retry-");
  await page.locator("#told", { hasText: "1 file to be tried again" }).waitFor();
  await page.click("#seen");
  await page.locator("#files").waitFor({ state: "detached" });

  await field.run("ben", "sync");
  const serves = await field.serves("ben");
  const other = await Visit.of(field, "ben");
  await other.open("/records/visit/p2");
  const row = other.page.locator(`#file-${id}`);
  await row.locator("text=not on this device").waitFor();
  const [had] = await Promise.all([other.page.waitForEvent("download"), other.page.click(`#get-${id}`)]);
  assert.equal(had.suggestedFilename(), photo.name);
  assert.deepEqual(await readFile(await had.path()), photo.buffer);
  await row.locator("text=here and on the relay").waitFor();
  await other.end();
  await field.stop(serves);
});

test("pages that nobody sees hold no connection, and catch up when they are looked at", async () => {
  const looks = (hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  };
  const others = [];
  // A browser has six connections to one place.
  for (let n = 0; n < 8; n++) {
    const other = await visit.context.newPage();
    await other.goto(visit.path("/records/outlet"), { timeout: 20_000 });
    await other.evaluate(looks, true);
    others.push(other);
  }
  await field.run("ben", "put", "outlet/o77", "name=Ferry Stall");
  await field.run("ben", "sync");
  await visit.open("/records/outlet");
  await page.locator("#live", { hasText: "Ferry Stall" }).waitFor();
  assert.equal(await others[0].locator("#live", { hasText: "Ferry Stall" }).count(), 0);
  await others[0].evaluate(looks, false);
  await others[0].locator("#live", { hasText: "Ferry Stall" }).waitFor({ timeout: 20_000 });
  for (const other of others) await other.close();
});

test("an address opens the console once, and a session ends when it is told to", async () => {
  const again = await visit.context.request.get(visit.url);
  assert.equal(again.status(), 401);
  await visit.open("/settings");
  await page.click("#leave");
  await page.locator("main", { hasText: "there is no session here" }).waitFor();
  await page.goto((await field.run("ann", "console")).trim());
  await page.waitForURL((url) => url.pathname === "/");
  visit.complaints = visit.complaints.filter((complaint) => !complaint.includes("401"));
});

test("in the dark it is as readable", async () => {
  const dark = await Visit.of(field, "ann", { colorScheme: "dark" });
  await dark.picture("today-dark");
  await dark.open("/records/order/b1");
  await dark.picture("record-dark");
  await dark.end();
});

test("words stand out from what is behind them by 4.5 to 1, light and dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const seen = await Visit.of(field, "ann", { colorScheme });
    for (const path of ["/", "/data", "/records/order", "/records/order/b1", "/records/visit/v1/history", "/attention", "/peers", "/settings", "/edit/order/b1", "/clear"]) {
      await seen.open(path);
      const faint = await seen.page.evaluate(faintText);
      assert.deepEqual(faint, [], `${colorScheme} ${path}`);
    }
    await seen.end();
  }
});
