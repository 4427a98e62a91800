// Everyday life with the official JavaScript client: everyday.mjs URL MASTER_KEY, with node_modules beside the working
// directory. Prints one line a step; the first that fails ends the program with its stack.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { Meilisearch } = require("meilisearch");
const { generateTenantToken } = require("meilisearch/token");

const [host, apiKey] = process.argv.slice(2);
const client = new Meilisearch({ host, apiKey });

const step = (name, holds) => {
  assert.ok(holds, name);
  console.log("ok", name);
};

const done = async (enqueued) => {
  const task = await client.tasks.waitForTask(enqueued, { timeout: 60_000 });
  assert.equal(task.status, "succeeded", JSON.stringify(task));
  return task;
};

const refused = async (code, promise) => {
  const error = await promise.then(() => null, (error) => error);
  return error?.cause?.code === code;
};

step("health", (await client.health()).status === "available");

const films = client.index("films");
const list = Array.from({ length: 150 }, (_, n) => ({
  id: `film-${n}`,
  title: `The ${["quiet", "loud", "last"][n % 3]} film ${n}`,
  genre: ["drama", "comedy"][n % 2],
  rating: n % 10,
}));
await done(await films.addDocuments(list, { primaryKey: "id" }));
step("documents", (await films.getStats()).numberOfDocuments === 150);

await done(await films.addDocumentsFromString('{"id":"film-900","title":"Lines","genre":"drama"}', "application/x-ndjson"));
await done(await films.updateDocuments([{ id: "film-900", rating: 9 }]));
await done(await films.addDocumentsFromString("id,title,genre,rating:number\nfilm-901,Commas,drama,9\n", "text/csv"));
step("typed CSV", (await films.getDocument("film-901")).rating === 9);
const lines = await films.getDocument("film-900");
step("a partial update", lines.title === "Lines" && lines.rating === 9);

await done(await films.updateSettings({
  filterableAttributes: ["genre", "rating"],
  sortableAttributes: ["rating"],
  rankingRules: ["words", "typo", "proximity", "attribute", "sort", "exactness"],
}));
step("settings", (await films.getSettings()).rankingRules.length === 6);

await done(await films.updateSynonyms({ silent: ["quiet"] }));
await done(await films.resetStopWords());
step("one setting", (await films.getSynonyms()).silent[0] === "quiet");

const found = await films.search("quiet film", {
  limit: 7,
  offset: 3,
  filter: ["genre = drama"],
  facets: ["genre", "rating"],
  attributesToHighlight: ["title"],
  showRankingScore: true,
});
step("search", found.hits.length === 7 && found.hits.every((hit) => hit.genre === "drama"));
step("highlight", found.hits[0]._formatted.title.includes("<em>quiet</em>"));
step("scores fall", found.hits.every((hit, n) => n === 0 || hit._rankingScore <= found.hits[n - 1]._rankingScore));
step("facet stats", found.facetStats.rating.max === 8);

const sorted = await films.search("", { sort: ["rating:desc"], limit: 152 });
step("sort", sorted.hits.every((hit, n) => n === 0 || (hit.rating ?? -1) <= (sorted.hits[n - 1].rating ?? 99)));

const both = await client.multiSearch({ queries: [{ indexUid: "films", q: "loud" }, { indexUid: "films", q: "last" }] });
step("multi-search", both.results.length === 2 && both.results.every((result) => result.hits.length === 20));

await done(await films.deleteDocuments(["film-0", "film-1"]));
await done(await films.deleteDocuments({ filter: "rating = 9" }));
step("deletes", (await films.getStats()).numberOfDocuments === 133);
step("no such document", await refused("document_not_found", films.getDocument("film-0")));
step("no such index", await refused("index_not_found", client.index("none").search("x")));

const failed = await client.tasks.waitForTask(await films.addDocuments([{ id: "not valid" }]));
step("a bad id fails its task", failed.status === "failed" && failed.error.code === "invalid_document_id");

const tasks = await client.tasks.getTasks({ indexUids: ["films"], statuses: ["failed"], limit: 1 });
step("tasks", tasks.results.length === 1 && Number.isInteger(tasks.results[0].uid));

const key = await client.createKey({ actions: ["search", "documents.add"], indexes: ["films"], expiresAt: null });
const limited = new Meilisearch({ host, apiKey: key.key });
step("a key for one index", (await limited.index("films").search("loud")).hits.length > 0);
step("and no more", await refused("invalid_api_key", limited.index("films").deleteAllDocuments()));
await client.updateKey(key.uid, { name: "films" });
step("a key's name", (await client.getKey(key.uid)).name === "films");
const token = await generateTenantToken({
  apiKey: key.key,
  apiKeyUid: key.uid,
  searchRules: { films: { filter: "genre = comedy" } },
});
const tenant = new Meilisearch({ host, apiKey: token });
const own = await tenant.multiSearch({ queries: [{ indexUid: "films", q: "", limit: 200 }] });
step("a tenant sees its own", own.results[0].hits.length > 0 && own.results[0].hits.every((hit) => hit.genre === "comedy"));
step("and nothing else", await refused("invalid_api_key", tenant.getIndexes()));
await client.deleteKey(key.uid);

await done(await films.delete());
step("nothing is left", (await client.getIndexes()).results.length === 0);
