// The status page in a real browser: status_page.mjs PART URL KEY FOLDER, with node_modules in the working directory, and the
// browser's program in CHROMIUM. PART is `breaks` (three shards of two nodes, with a key) or `open` (without a key). Pictures go to
// FOLDER. Prints one line a step; the first that fails ends the program. A line `want …` asks the caller to kill or restart a
// process, and a line on standard input says that this is done.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const axe = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");

const [part, host, masterKey, folder] = process.argv.slice(2);

const step = (name, holds) => {
  assert.ok(holds, name);
  console.log("ok", name);
};

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const want = async (what) => {
  console.log("want", what);
  await input.next();
};

const profile = await mkdtemp(join(tmpdir(), "weft-status-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  viewport: { width: 1100, height: 800 },
  colorScheme: "light",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await context.newPage();
const complaints = [];
const asked = [];
page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => asked.push(request.url()));

/** Waits until the page says it, or tells what it says instead. */
const says = async (name, selector, expected, within = 20_000) => {
  const end = Date.now() + within;
  let last;
  do {
    last = (await page.locator(selector).allInnerTexts()).map((text) => text.trim().replace(/\s+/g, " "));
    if (expected(last)) return step(name, true);
    await new Promise((resolve) => setTimeout(resolve, 50));
  } while (Date.now() < end);
  throw new Error(`${name}: ${selector} says ${JSON.stringify(last)}; ${JSON.stringify(complaints)}`);
};

/** Lets axe look at the page. A script element would be refused by the page's own policy. */
const accessible = async (name) => {
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(told, [], name);
  step(`${name}: no violation of ${passes.length} rules`, passes.length > 10);
};

const fits = async (name) => {
  const [width, shown] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  step(`${name}: nothing sticks out (${width} of ${shown})`, width <= shown);
};

const LIGHT = { colorScheme: "light" };
const DARK = { colorScheme: "dark" };
const DESK = { width: 1100, height: 800 };
const PHONE = { width: 320, height: 640 };

/** The page in light, dark and on a phone, with a picture of each. */
const looked = async (name) => {
  for (const [way, scheme, size] of [
    ["light", LIGHT, DESK],
    ["dark", DARK, DESK],
    ["phone", LIGHT, PHONE],
    ["phone-dark", DARK, PHONE],
  ]) {
    await page.emulateMedia(scheme);
    await page.setViewportSize(size);
    await accessible(`${name}, ${way}`);
    await fits(`${name}, ${way}`);
    await page.screenshot({ path: join(folder, `status-${name}-${way}.png`), fullPage: true });
  }
  await page.emulateMedia(LIGHT);
  await page.setViewportSize(DESK);
};

const whole = async (nodes) => {
  await says("the cluster is whole", "#summary", ([text]) => text === `Green: all ${nodes} nodes are active`, 60_000);
  await says("nothing to look at", "#attention", ([text]) => text.endsWith("Nothing."), 20_000);
};

const withKey = async () => {
  await page.goto(`${host}/_cluster/ui`);
  await says("it asks for the key", "#summary", ([text]) => text === "The cluster asks for its master key");
  step("the field has the focus", await page.evaluate(() => document.activeElement.id === "key"));
  step("no data is shown", !(await page.locator("#data").isVisible()));
  await looked("form");
  await page.keyboard.type("a-wrong-key-for-tests");
  await page.keyboard.press("Enter");
  await says("a wrong key is refused in words", "#key-error", ([text]) => text === "The cluster refuses this key: it must be the master key.");
  step("the field is marked", (await page.locator("#key").getAttribute("aria-invalid")) === "true");
  await page.keyboard.type("ключ");
  await page.keyboard.press("Enter");
  await says("so is one that can't be sent", "#key-error", ([text]) => text.startsWith("A request can carry only"));
  await accessible("a refused key");
  await page.locator("#key").fill("");
  await page.keyboard.type(masterKey);
  await page.keyboard.press("Enter");
};

const breaks = async () => {
  await withKey();
  const expected = [0, 1, 2].flatMap((shard) => [0, 1].map((node) => `shard-${shard}-node-${node}`));
  await whole(6);
  await says("all nodes", ".replicas .id:not(.quiet)", (all) => expected.every((name) => all.includes(name)));
  const kept = await page.evaluate(() => [Object.values(sessionStorage), localStorage.length, document.cookie, location.href]);
  assert.deepEqual(kept, [[masterKey], 0, "", `${host}/_cluster/ui`]);
  step("the key is in the tab's storage only", true);
  await says("both indexes", ".indexes h3", (all) => all.join() === "films,tiny");
  await says("all slots of an index", ".indexes > li:first-child", ([text]) => {
    const slots = [...text.matchAll(/shard-\d ([\d,]+)/g)].map(([, count]) => Number(count.replace(",", "")));
    return slots.length === 3 && slots.reduce((sum, count) => sum + count) === 4096;
  });
  await says("what a task says is text", "#tasks", ([text]) => text.includes("<img src=x onerror=alert(1)>"));
  step("and no element", (await page.locator("img").count()) === 0);

  // Searches, until the page shows that every shard gets some.
  let searching = true;
  const searches = (async () => {
    const headers = { authorization: `Bearer ${masterKey}` };
    while (searching) await fetch(`${host}/indexes/films/search?q=amber`, { headers }).then((answer) => answer.text(), String);
  })();
  await says("rates", "tbody tr:first-child td:nth-of-type(1)", (all) => all.length === 3 && all.every((text) => parseFloat(text) > 1));
  await says("latencies", "tbody tr:first-child td:nth-of-type(2)", (all) => all.every((text) => /^[\d.,]+ m?s$/.test(text)));
  await looked("whole");

  const killed = Date.now();
  await want("kill shard-1-node-1");
  await says("the dead node", "#attention li", (all) => all.some((text) => text.includes("shard-1-node-1 doesn’t answer")), 10_000);
  await says("the state in words", "#summary", ([text]) => text === "Yellow: 5 of 6 nodes are active", 10_000 - (Date.now() - killed));
  step(`a dead node is shown after ${Date.now() - killed} ms`, Date.now() - killed <= 10_000);
  await looked("dead-node");
  await page.setViewportSize({ width: 1000, height: 608 });
  await page.screenshot({ path: join(folder, "status-page.png") });
  await page.setViewportSize(DESK);

  await want("restart shard-1-node-1");
  await whole(6);
  searching = false;
  await searches;

  await page.locator("#pause").focus();
  await page.keyboard.press("Space");
  await says("it can be paused by keyboard", "#updated", ([text]) => text.startsWith("Paused."));
  await page.keyboard.press("Space");
  await says("and goes on", "#updated", ([text]) => text.startsWith("As of"));
  step("the focus stays where it is", await page.evaluate(() => document.activeElement.id === "pause"));

  const before = complaints.filter((text) => !/status of (401|403)/.test(text));
  step(`no complaints: ${before}`, before.length === 0);
  await want("kill merger");
  await says("no answer", "#summary", ([text]) => text.startsWith("No answer from the cluster since"), 15_000);
  await accessible("no answer");
  await want("restart merger");
  await whole(6);

  await page.getByRole("button", { name: "Forget the key" }).click();
  await says("the key is forgotten", "#summary", ([text]) => text === "The key is forgotten");
  step("from the storage too", await page.evaluate(() => sessionStorage.length === 0));
  step("nothing is shown any more", !(await page.locator("#data").isVisible()));
};

const open = async () => {
  await page.goto(`${host}/_cluster/ui`);
  await whole(2);
  step("no form", !(await page.locator("#key-form").isVisible()));
  step("no key to forget", !(await page.locator("#forget").isVisible()));
  await accessible("without a key");
  step(`no complaints: ${complaints}`, complaints.length === 0);
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.textContent = "globalThis.foreign = true";
      document.body.append(script);
    } catch {
      return "refused";
    }
    return globalThis.foreign ?? "refused";
  });
  step("a foreign script is refused", ran === "refused");
};

try {
  await { breaks, open }[part]();
  step("the page asked nobody else", asked.every((url) => url.startsWith(`${host}/`) || url.startsWith("data:")));
  step("the end", true);
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
process.exit(0);
