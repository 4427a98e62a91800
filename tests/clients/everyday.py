"""Everyday life with the official Python client: usage `everyday.py URL MASTER_KEY`.

Prints one line a step; the first that fails ends the program with a traceback.
"""

import sys
import time

import meilisearch
from meilisearch.errors import MeilisearchApiError

URL, KEY = sys.argv[1], sys.argv[2]
client = meilisearch.Client(URL, KEY)


def step(name, holds):
    assert holds, name
    print("ok", name)


def done(task):
    settled = client.wait_for_task(task.task_uid, timeout_in_ms=60_000)
    assert settled.status == "succeeded", settled
    return settled


def refused(code, call):
    try:
        call()
    except MeilisearchApiError as error:
        return error.code == code
    return False


step("health", client.health()["status"] == "available" and client.is_healthy())
step("version", client.get_version()["pkgVersion"])

done(client.create_index("books", {"primaryKey": "id"}))
books = client.index("books")
step("index", client.get_index("books").primary_key == "id")

shelf = [
    {"id": n, "title": f"Volume {n} of the {kind} saga", "kind": kind, "year": 1950 + n % 70}
    for n, kind in enumerate(["river", "forest", "desert"] * 60)
]
task = books.add_documents(shelf)
step("a task's uid is an integer", isinstance(task.task_uid, int))
settled = done(task)
step("documents", settled.details["indexedDocuments"] == 180)
done(books.add_documents_ndjson(b'{"id": 500, "title": "Lines", "kind": "lake", "year": 2001}\n'))
done(books.add_documents_csv(b"id,title,kind,year\n501,Commas,lake,2002\n"))
done(books.update_documents([{"id": 500, "year": 2011}]))
lines = books.get_document(500)
step("a partial update keeps the other fields", lines.year == 2011 and lines.title == "Lines")
done(books.add_documents_in_batches(shelf, batch_size=50)[-1])
step("count", books.get_stats().number_of_documents == 182)

done(books.update_settings({
    "filterableAttributes": ["kind", "year"],
    "sortableAttributes": ["year"],
    "synonyms": {"woods": ["forest"]},
}))
step("settings", books.get_settings()["sortableAttributes"] == ["year"])
step("one setting", sorted(books.get_filterable_attributes()) == ["kind", "year"])

done(books.update_synonyms({"woods": ["forest"], "sand": ["desert"]}))
done(books.reset_stop_words())
step("one setting changed", sorted(books.get_synonyms()) == ["sand", "woods"])
federated = client.multi_search([{"indexUid": "books", "q": "river"}, {"indexUid": "books", "q": "lake"}], {"limit": 4})
step("federated search", len(federated["hits"]) == 4)

found = books.search("saga", {"limit": 5, "sort": ["year:desc"], "facets": ["kind"], "filter": "kind != lake"})
years = [hit["year"] for hit in found["hits"]]
step("search", len(years) == 5 and years == sorted(years, reverse=True) and found["estimatedTotalHits"] == 180)
step("facets", found["facetDistribution"]["kind"] == {"desert": 60, "forest": 60, "river": 60})
step("synonym", books.search("woods", {"limit": 1})["hits"][0]["kind"] == "forest")
pages = books.search("", {"page": 2, "hitsPerPage": 100})
step("pages", pages["totalHits"] == 182 and pages["totalPages"] == 2 and len(pages["hits"]) == 82)
both = client.multi_search([
    {"indexUid": "books", "q": "river", "limit": 2},
    {"indexUid": "books", "q": "lake", "limit": 2},
])
step("multi-search", [len(result["hits"]) for result in both["results"]] == [2, 2])
step("facet search", books.facet_search("kind", "fo")["facetHits"][0] == {"value": "forest", "count": 60})
listed = books.get_documents({"limit": 3, "filter": "kind = lake"})
step("list of documents", listed.total == 2)

done(books.delete_document(500))
done(books.delete_documents([0, 1, 2]))
done(books.delete_documents(filter="kind = lake"))
step("deletes", books.get_stats().number_of_documents == 177)
step("no such document", refused("document_not_found", lambda: books.get_document(500)))
step("no such index", refused("index_not_found", lambda: client.index("none").search("x")))
step("bad filter", refused("invalid_search_filter", lambda: books.search("x", {"filter": "kind ="})))

tasks = client.get_tasks({"limit": 3, "indexUids": "books"})
step("tasks", len(tasks.results) == 3 and tasks.total > 5)
step("no such task", refused("task_not_found", lambda: client.get_task(4_000_000)))

key = client.create_key({"actions": ["search"], "indexes": ["books"], "expiresAt": None, "name": "search books"})
searcher = meilisearch.Client(URL, key.key)
step("a search key searches", searcher.index("books").search("river")["hits"])
step("and no more", refused("invalid_api_key", lambda: searcher.index("books").delete_document(5)))
token = client.generate_tenant_token(key.uid, {"books": {"filter": "kind = river"}}, api_key=key.key)
tenant = meilisearch.Client(URL, token)
kinds = {hit["kind"] for hit in tenant.index("books").search("", {"limit": 200})["hits"]}
step("a tenant sees its own", kinds == {"river"})
shared = tenant.multi_search([{"indexUid": "books", "q": "", "limit": 200}])["results"][0]["hits"]
step("in a multi-search, too", shared and {hit["kind"] for hit in shared} == {"river"})
client.update_key(key.uid, {"name": "renamed"})
step("a key's name", client.get_key(key.uid).name == "renamed")
client.delete_key(key.uid)
deadline = time.monotonic() + 10
while not refused("invalid_api_key", lambda: searcher.index("books").search("river")):
    assert time.monotonic() < deadline, "a deleted key still searches"
step("a deleted key", True)

done(client.create_index("novels", {"primaryKey": "id"}))
done(client.swap_indexes([{"indexes": ["books", "novels"]}]))
step("swap", client.index("novels").get_stats().number_of_documents == 177)
step("instance stats", client.get_all_stats()["indexes"]["novels"]["numberOfDocuments"] == 177)
done(client.index("novels").delete_all_documents())
done(client.delete_index("novels"))
done(client.delete_index("books"))
step("nothing is left", client.get_indexes()["results"] == [])
