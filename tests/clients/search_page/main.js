// A search page as shops have it: InstantSearch over the official adapter. The test opens it with ?host=…&key=….

import instantsearch from "instantsearch.js";
import { configure, hits, pagination, refinementList, searchBox, sortBy, stats } from "instantsearch.js/es/widgets";
import { instantMeiliSearch } from "@meilisearch/instant-meilisearch";

const given = new URLSearchParams(location.search);
const { searchClient } = instantMeiliSearch(given.get("host"), given.get("key"), {
  finitePagination: true,
  // Headers of one's own are what makes a browser ask first.
  requestInit: { headers: { "Meili-Include-Metadata": "true", "X-Weft-Partial": "error" } },
});

const search = instantsearch({ indexName: "films", searchClient });
search.on("error", ({ error }) => {
  document.querySelector("#error").textContent = String(error);
});
search.addWidgets([
  configure({ hitsPerPage: 6 }),
  searchBox({ container: "#box", placeholder: "Search films" }),
  stats({ container: "#stats" }),
  sortBy({
    container: "#sort",
    items: [
      { label: "Best match", value: "films" },
      { label: "Newest", value: "films:year:desc" },
    ],
  }),
  refinementList({ container: "#genres", attribute: "genre", sortBy: ["count:desc", "name:asc"] }),
  hits({
    container: "#hits",
    templates: {
      item: (hit, { html, components }) =>
        html`<article data-id="${hit.id}">
          <h2>${components.Highlight({ attribute: "title", hit })}</h2>
          <p>${hit.genre}, ${hit.year}</p>
        </article>`,
    },
  }),
  pagination({ container: "#pages" }),
]);
search.start();
