// The console of a relay in a real browser: an operator walks through every page and does every action,
// asserted in the page and in the relay's store.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faintText } from "./contrast.mjs";
import { CATALOG, Field, Visit, until } from "./field.mjs";

let field, visit, page;

before(async () => {
  field = await Field.overseen({ eve: "administer", jon: "judge", vic: "view" });
  await field.run("ann", "put", "outlet/o1", "name=Harbour Kiosk", "city=Tallinn");
  await field.run("ann", "put", "order/a1", "outlet=o1", "discount=10", "note=Call first");
  await field.run("ann", "sync");
  await field.run("ann", "put", "order/a1", "discount=45");
  await field.run("ann", "put", "order/a2", "outlet=o1", "discount=33", "note=<b>Two</b> pallets");
  await field.run("ann", "sync");
  await field.run("ben", "put", "order/b1", "outlet=o1", "discount=80");
  await field.run("ben", "put", "order/b2", "outlet=nowhere", "discount=5");
  await field.run("ben", "sync");
  await field.serves("ben");
  visit = await Visit.signedIn(field, "eve");
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
const told = (wanted) => page.locator("#told", { hasText: wanted }).waitFor();
const quarantine = (...args) => field.json("relay", "relay", "quarantine", ...args);
const found = async (...args) => (await quarantine("list", ...args)).records.map(({ id }) => id);
const newest = async (record) => (await quarantine("trail", record)).records[0];
const shown = () => page.locator("#rows tbody tr .whole").allInnerTexts();

test("whoever gives a wrong password stays outside, and is told so", async () => {
  const other = await Visit.begun({});
  other.url = field.console;
  await other.open("/catalog");
  await other.page.fill("#name", "eve");
  await other.page.fill("#password", "not the password");
  await other.page.click("#enter");
  await other.page.locator("#problem", { hasText: "do not belong together" }).waitFor();
  assert.equal(await other.page.inputValue("#name"), "eve");
  await other.picture("relay-sign-in");
  await other.page.fill("#password", "correct horse battery");
  await other.page.keyboard.press("Enter");
  await other.page.waitForURL((url) => url.pathname === "/catalog");
  other.complaints = other.complaints.filter((complaint) => !complaint.includes("403"));
  await other.end();
});

test("the overview tells how the relay is doing, and follows it", async () => {
  await visit.open("/");
  await page.locator("#tile-held strong", { hasText: /^3$/ }).waitFor();
  await page.locator("#tile-waiting strong", { hasText: /^1$/ }).waitFor();
  await page.locator("#tile-devices strong", { hasText: /^1$/ }).waitFor();
  await page.locator("#chart-by-rule .legend", { hasText: "discount 3" }).waitFor();
  const path = () => page.locator("#chart-judging path.curve").first().getAttribute("d");
  await page.locator("#chart-judging svg[role=img]").waitFor();
  const before = await path();
  await until(path, (now) => now !== before);
  const height = () => page.evaluate(() => document.documentElement.scrollHeight);
  const tall = await height();
  await field.run("ann", "put", "order/a3", "outlet=o1", "discount=31");
  await field.run("ann", "sync");
  await page.locator("#tile-held strong", { hasText: /^4$/ }).waitFor();
  await page.locator("#chart-by-rule .legend", { hasText: "discount 4" }).waitFor();
  assert.equal(await height(), tall, "nothing jumps while it is brought up to date");
  await page.click("#numbers-throughput summary");
  await page.locator("#numbers-throughput tbody tr").first().waitFor();
  await until(path, (now) => now !== before);
  assert.equal(await page.locator("#numbers-throughput[open]").count(), 1, "what was opened stays open");
  await page.click("#numbers-throughput summary");
  await visit.picture("relay-overview");
  await page.click(".switch a:text('24 hours')");
  await page.locator(".switch [aria-current]", { hasText: "24 hours" }).waitFor();
});

test("held records are found by what they and their verdicts say", async () => {
  await page.click("#nav-quarantine");
  assert.deepEqual((await shown()).sort(), ["a1", "a2", "a3", "b1", "b2"]);
  await visit.picture("relay-quarantine");
  await page.fill("#text", "PALLETS");
  await page.press("#text", "Enter");
  await page.waitForURL(/text=PALLETS/);
  assert.deepEqual(await shown(), ["a2"]);
  await page.click("#clear");
  await page.selectOption("#rule", "reference_absent");
  await page.click("#find");
  await page.waitForURL(/rule=reference_absent/);
  assert.deepEqual(await shown(), ["b2"]);
  await page.click("#clear");
  await page.click("#rare summary");
  await page.selectOption("#device", { label: await page.locator("#device option", { hasText: "ben" }).innerText() });
  await page.click("#find");
  await page.waitForURL(/device=/);
  assert.deepEqual(await shown(), ["b2", "b1"]);
  await page.click("#clear");
  await page.fill("#text", "nowhere to be found");
  await page.click("#find");
  await page.locator("main", { hasText: "Nothing is held under these conditions" }).waitFor();
  await visit.picture("relay-quarantine-empty");
});

test("what is held meanwhile is news, and moves nothing on the page", async () => {
  await visit.open("/quarantine?type=order");
  const before = await shown();
  await field.run("ann", "put", "order/a4", "outlet=o1", "discount=99");
  await field.run("ann", "sync");
  await page.locator("#live", { hasText: "1 record more came here meanwhile" }).or(page.locator("#live", { hasText: "1 record" })).first().waitFor();
  assert.deepEqual(await shown(), before);
  await page.locator("#nav-quarantine .bubble", { hasText: "6" }).waitFor();
  await page.click("#show-news");
  await page.locator("#row-order-a4").waitFor();
});

test("a held record shows what it was, who wrote it and what refers to it", async () => {
  await visit.open("/quarantine");
  await page.click("#row-order-a1 a");
  await page.waitForURL(/quarantine\/order\/a1/);
  assert.match(await text("#reasons"), /the discount is above 30 percent/);
  assert.match(await text("#culprits"), /discount\s+ann\s+ann/);
  const row = page.locator("#content-table tr.differs.blamed");
  assert.deepEqual(await row.locator("td").allInnerTexts(), ["Discount", "45", "10"]);
  await visit.picture("relay-held");
  await visit.open("/quarantine/order/a2");
  assert.match(await text("#content-table"), /<b>Two<\/b> pallets/);
});

test("an operator decides, and the trail has his name", async () => {
  await visit.open("/quarantine/order/a1");
  await page.click("#rejudge");
  await told("Judged again: it is not valid");
  assert.equal((await newest("order/a1")).act, "rejudge");
  await page.fill("#person", "mia");
  await page.click("#assign");
  await told("mia looks after it");
  assert.deepEqual(await found("--assigned", "mia"), ["a1"]);
  await page.fill("#note", "sold at the fair");
  await page.click("#dismiss");
  await page.locator("#dismissed", { hasText: "sold at the fair" }).waitFor();
  assert.deepEqual(await found("--dismissed"), ["a1"]);
  const decision = await newest("order/a1");
  assert.deepEqual([decision.who, decision.act, decision.note], ["eve", "dismiss", "sold at the fair"]);
  await visit.picture("relay-held-aside");
  await page.click("#reopen");
  await told("Taken up again");
  assert.deepEqual(await found("--dismissed"), []);
  await page.fill("#person", "");
  await page.click("#assign");
  await told("Nobody looks after it");
  assert.deepEqual(await found("--assigned", "mia"), []);
  await page.click("#seen");
  assert.equal(await page.locator("#told .banner").count(), 0);
  await visit.open("/quarantine/trail");
  await page.locator("#trail", { hasText: "sold at the fair" }).waitFor();
  await visit.picture("relay-trail");
  await page.locator("#acts a", { hasText: "Assigned" }).click();
  await page.locator("#trail", { hasText: "sold at the fair" }).waitFor({ state: "detached" });
  await page.locator("#trail", { hasText: "to mia" }).waitFor();
});

test("all that is sought is judged again, and exported", async () => {
  await visit.open("/quarantine?rule=discount");
  await page.click("#more-actions");
  const [sent] = await Promise.all([page.waitForEvent("download"), page.click("#export-csv")]);
  assert.equal(sent.suggestedFilename(), "quarantine.csv");
  const rows = (await (await import("node:fs/promises")).readFile(await sent.path(), "utf8")).trim().split("\n");
  assert.equal(rows.length, 1 + (await found("--rule", "discount")).length);
  await page.click("#rejudge-all");
  await told("5 records judged again: 0 valid by now");
  const trail = (await quarantine("trail")).records.slice(0, 5);
  assert.deepEqual(trail.map(({ who, act }) => `${who} ${act}`), Array(5).fill("eve rejudge"));
});

test("a record is explained: where it lies, who wrote it, and its verdict", async () => {
  await page.click("#nav-records");
  await visit.picture("relay-records");
  await page.fill("#record", "order/b1");
  await page.click("#go");
  await page.waitForURL(/records\/order\/b1/);
  assert.match(await text("#explanation"), /order\/b1 is here: held/);
  assert.match(await text("#explanation"), /ann, ben/);
  assert.match(await text("#heads"), /ben/);
  assert.match(await text("#history"), /discount: none → 80/);
  await visit.picture("relay-record");
  await page.click("#all-changes");
  await page.waitForURL(/history$/);
  await visit.open("/records/order/b1");
  await page.click("#in-quarantine");
  await page.waitForURL(/quarantine\/order\/b1/);
  await visit.open("/records?record=nonsense");
  await page.locator("#problem", { hasText: "names no record" }).waitFor();
  await visit.open("/records/order/none");
  await page.locator("#absent", { hasText: "no device has sent a change of it" }).waitFor();
  await visit.open("/records/order");
  assert.equal(await page.locator("#rows tbody tr").count(), 6);
});

test("devices are listed with what they may, and who is connected", async () => {
  await page.click("#nav-devices");
  const row = (name) => page.locator("#devices tbody tr", { hasText: name });
  await row("ben").locator("text=Connected").waitFor();
  await row("ann").locator("text=Not connected").waitFor();
  assert.match(await row("ben").innerText(), /everything/);
  await visit.picture("relay-devices");
});

test("a catalog is tried, published as it was tried, and gone back from", async () => {
  const inForce = async () => (await field.json("relay", "relay", "catalog", "list")).catalogs[0];
  await page.click("#nav-catalog");
  await page.fill("#source", "catalog = 1\n[type.Order]");
  await page.click("#try-it");
  await page.locator("#problem", { hasText: "Nothing was compared" }).waitFor();
  assert.match(await page.inputValue("#source"), /type\.Order/);
  await visit.picture("relay-catalog-refused");
  visit.complaints = visit.complaints.filter((complaint) => !complaint.includes("422"));
  await page.setInputFiles("#file", { name: "catalog.toml", mimeType: "text/plain", buffer: Buffer.from(CATALOG.replace("<= 30", "<= 50")) });
  await page.click("#try-it");
  await page.locator("#trial", { hasText: "3 would be released" }).waitFor();
  await page.locator("#causes", { hasText: "rule discount of order" }).waitFor();
  await page.click("#checked summary");
  await visit.picture("relay-catalog-tried");
  assert.equal((await inForce()).number, 1);
  await page.fill("#why", "a spring sale");
  await page.click("#publish");
  assert.equal((await inForce()).number, 1, "a browser asks to confirm it");
  await page.check("#confirmed");
  await page.click("#publish");
  await told("Catalog 2 is in force");
  await page.locator("#in-force", { hasText: "Everything is judged by it" }).waitFor();
  const published = await inForce();
  assert.deepEqual([published.number, published.note], [2, "a spring sale"]);
  assert.equal((await field.onRelay("order/a1")).state, "valid");
  await page.click("#back-to-1");
  await page.locator("#trial", { hasText: "Going back to catalog 1" }).waitFor();
  await page.locator("#weights", { hasText: "3 would be held" }).waitFor();
  await page.click("#forget");
  await page.locator("#trial").waitFor({ state: "detached" });
  await page.click("#back-to-1");
  await page.check("#confirmed");
  await page.click("#publish");
  await told("Catalog 3 is in force");
  await page.locator("#in-force", { hasText: "Everything is judged by it" }).waitFor();
  assert.equal((await inForce()).number, 3);
  assert.equal((await field.onRelay("order/a1")).state, "held");
  await visit.picture("relay-catalog");
});

test("who has access, and what was done, is on a page of its own", async () => {
  await page.click("#nav-access");
  assert.match(await text("#operators"), /jon\s+judge/);
  await page.locator("#deeds", { hasText: "went back to catalog 1, as number 3" }).waitFor();
  await page.locator("#deeds", { hasText: "was not let in" }).waitFor();
  await visit.picture("relay-access");
});

test("who may only look is offered nothing else", async () => {
  const vic = await Visit.signedIn(field, "vic");
  for (const path of ["/quarantine/order/a1", "/catalog", "/quarantine"]) {
    await vic.open(path);
    for (const action of ["#rejudge", "#dismiss", "#assign", "#rejudge-all", "#try", "#back-to-2", "#nav-access"]) {
      assert.equal(await vic.page.locator(action).count(), 0, `${path} ${action}`);
    }
  }
  await vic.end();
});

test("all of it is reached by the keyboard", async () => {
  await visit.open("/quarantine");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  const reached = new Set();
  for (let n = 0; n < 60; n++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id));
  }
  for (const id of ["nav-overview", "nav-catalog", "text", "type", "find", "more-actions", "sign-out"]) {
    assert.ok(reached.has(id), `${id} is reached`);
  }
});

test("words stand out from what is behind them by 4.5 to 1, light and dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const seen = await Visit.signedIn(field, "eve", { colorScheme });
    for (const path of ["/", "/quarantine", "/quarantine/order/a1", "/quarantine/trail", "/records", "/records/order/a1", "/devices", "/catalog", "/limits", "/backup", "/access"]) {
      await seen.open(path);
      assert.deepEqual(await seen.page.evaluate(faintText), [], `${colorScheme} ${path}`);
    }
    if (colorScheme === "dark") {
      await seen.open("/");
      await seen.picture("relay-overview-dark");
      await seen.open("/quarantine/order/a1");
      await seen.picture("relay-held-dark");
    }
    await seen.end();
  }
});

test("whoever signs out has to sign in again, and an open page says that its session is over", async () => {
  const other = await visit.context.newPage();
  await other.goto(visit.path("/devices"));
  await visit.open("/");
  await page.click("#sign-out");
  await page.waitForURL(/sign-in/);
  await field.run("relay", "relay", "quarantine", "dismiss", "order/b1");
  await other.locator("#gone", { hasText: "Nobody is signed in here any more" }).waitFor();
  visit.complaints = visit.complaints.filter((complaint) => !/401|303|ERR_/.test(complaint));
  await other.close();
});
