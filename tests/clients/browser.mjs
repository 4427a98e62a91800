// A search page in a real browser: browser.mjs URL MASTER_KEY SCREENSHOT, with node_modules in the working directory, and the browser's
// program in CHROMIUM. The page comes from another origin than the answers. Prints one line a step; the first that fails ends
// the program.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(process.cwd() + "/");
const { build } = require("esbuild");
const { chromium } = require("playwright-core");
const { Meilisearch } = require("meilisearch");

const [host, masterKey, screenshot] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));

const step = (name, holds) => {
  assert.ok(holds, name);
  console.log("ok", name);
};

// 120 films: 40 "quiet" ones, each genre as often; the years differ.
const client = new Meilisearch({ host, apiKey: masterKey });
const films = client.index("films");
const genres = ["drama", "comedy", "western", "horror"];
const list = Array.from({ length: 120 }, (_, n) => ({
  id: n,
  title: `The ${["quiet", "loud", "last"][n % 3]} film ${n}`,
  genre: genres[n % 4],
  year: 1900 + n,
}));
const done = async (enqueued) => {
  const task = await client.tasks.waitForTask(enqueued, { timeout: 60_000 });
  assert.equal(task.status, "succeeded", JSON.stringify(task));
};
await done(await films.addDocuments(list, { primaryKey: "id" }));
await done(await films.updateSettings({ filterableAttributes: ["genre"], sortableAttributes: ["year"] }));
const key = await client.createKey({ actions: ["search"], indexes: ["films"], expiresAt: null });

// The page, of an origin of its own.
const bundle = await build({
  entryPoints: [join(here, "search_page/main.js")],
  bundle: true,
  write: false,
  format: "iife",
  define: { "process.env.NODE_ENV": '"production"' },
  nodePaths: [join(process.cwd(), "node_modules")],
  logLevel: "error",
});
const html = await readFile(join(here, "search_page/index.html"));
const server = createServer((request, response) => {
  const script = request.url === "/page.js";
  response.setHeader("content-type", script ? "text/javascript" : "text/html");
  response.end(script ? bundle.outputFiles[0].contents : html);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const profile = await mkdtemp(join(tmpdir(), "weft-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  viewport: { width: 1100, height: 700 },
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
try {
  const page = await context.newPage();
  const asked = [];
  const complaints = [];
  page.on("response", (response) => response.url().startsWith(host) && asked.push(response));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  const search = new URLSearchParams({ host, key: key.key });
  await page.goto(`http://127.0.0.1:${server.address().port}/?${search}`);

  // Waits until the page says it, or tells what it says instead.
  const says = async (name, selector, expected) => {
    const found = () => page.locator(selector).allInnerTexts().then((all) => all.map((text) => text.trim().replace(/\s+/g, " ")));
    const end = Date.now() + 20_000;
    let last;
    do {
      last = await found();
      if (expected(last)) return step(name, true);
      await new Promise((resolve) => setTimeout(resolve, 50));
    } while (Date.now() < end);
    throw new Error(`${name}: ${selector} says ${JSON.stringify(last)}; ${JSON.stringify(complaints)}`);
  };
  const titles = "#hits article h2";

  await says("the first page", titles, (all) => all.length === 6);
  await says("all films are counted", "#stats", ([text]) => text.startsWith("120 results"));
  await says("each genre with its count", "#genres label", (all) => all.length === 4 && all.every((text) => /^\D+30$/.test(text)));

  await page.locator("#box input").pressSequentially("quie", { delay: 20 });
  await says("typing", "#stats", ([text]) => text.startsWith("40 results"));
  await says("highlighting", `${titles} mark`, (all) => all.length === 6 && all.every((text) => text === "quie"));
  await says("facets follow the query", "#genres label", (all) => all.length === 4 && all.every((text) => /^\D+10$/.test(text)));

  await page.locator("#genres label", { hasText: "western" }).click();
  await says("a facet is chosen", "#stats", ([text]) => text.startsWith("10 results"));
  await says("only its films are left", "#hits article p", (all) => all.length === 6 && all.every((text) => text.startsWith("western")));
  await says("the other facets can still be chosen", "#genres label", (all) => all.length === 4);

  await page.locator("#pages a", { hasText: "2" }).first().click();
  await says("the second page", titles, (all) => all.length === 4);
  await says("and it is the last one", "#pages .ais-Pagination-item--page", (all) => all.join() === "1,2");

  await page.locator("#sort select").selectOption("films:year:desc");
  await says("sorting", "#hits article p", ([first]) => first === "western, 2014");
  await page.screenshot({ path: screenshot });

  const preflights = await Promise.all(asked.map((response) => response.request().method()));
  step("every answer was good", asked.every((response) => response.ok()) && preflights.includes("POST"));
  const found = asked.filter((response) => response.request().method() === "POST");
  const headers = await Promise.all(found.map((response) => response.allHeaders()));
  step("answers came compressed", headers.some((all) => all["content-encoding"] === "br" || all["content-encoding"] === "gzip"));

  // What goes wrong must reach the page as what it is, and not as a network error.
  const refused = await page.evaluate(async ({ host }) => {
    const ask = (path, init) => fetch(host + path, init).then(async (answer) => [answer.status, (await answer.text()).slice(0, 200)], String);
    return {
      noKey: await ask("/indexes/films/search", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" }),
      wrongKey: await ask("/indexes/films/documents/1", { headers: { authorization: "Bearer wrong" } }),
      noIndex: await ask("/indexes/none/settings", { headers: { authorization: "Bearer wrong", "x-own": "1" } }),
      noPath: await ask("/nothing", { method: "PATCH" }),
      internal: await ask("/_weft/table"),
    };
  }, { host });
  step("no key", refused.noKey[0] === 401 && refused.noKey[1].includes("missing_authorization_header"));
  step("a wrong key", refused.wrongKey[0] === 403 && refused.wrongKey[1].includes("invalid_api_key"));
  step("a wrong key and a header of one's own", refused.noIndex[0] === 403);
  step("no such path", refused.noPath[0] === 404);
  step("what Envoy refuses itself", refused.internal[0] === 404);
  const unexpected = complaints.filter((text) => !/status of (401|403|404)/.test(text));
  step(`no complaints: ${unexpected}`, unexpected.length === 0);
} finally {
  await context.close();
  server.close();
  await rm(profile, { recursive: true, force: true });
}
