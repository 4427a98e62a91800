"""Everyday life with the official Python client: everyday.py URL MASTER_KEY. Ends with 0 if all went as on one node."""

import datetime
import sys

import meilisearch
from meilisearch.errors import MeilisearchApiError

client = meilisearch.Client(sys.argv[1], sys.argv[2])


def done(task):
    """Waits for a task, as applications do, and insists that it succeeded."""
    settled = client.wait_for_task(task.task_uid, timeout_in_ms=60_000)
    assert settled.status == "succeeded", settled
    return settled


def ids(answer):
    return [hit["id"] for hit in answer["hits"]]


assert client.is_healthy()

# An index, settings, documents in three formats.
done(client.create_index("books", {"primaryKey": "id"}))
books = client.index("books")
done(books.update_settings({
    "filterableAttributes": ["genre", "year"],
    "sortableAttributes": ["year"],
    "synonyms": {"sci-fi": ["science fiction"]},
}))
assert books.get_filterable_attributes() == ["genre", "year"], books.get_filterable_attributes()
done(books.add_documents([
    {"id": number, "title": f"Volume {number}", "genre": "odd" if number % 2 else "even", "year": 1900 + number}
    for number in range(200)
]))
done(books.add_documents_ndjson(b'{"id":200,"title":"Dune","genre":"sf","year":1965}\n{"id":"201","title":"Emma","genre":"novel","year":1815}\n'))
done(books.add_documents_csv(b'id,title,genre,year:number\n202,Ulysses,novel,1922\n'))
assert books.get_stats().number_of_documents == 203

# Searches.
assert ids(books.search("dune")) == [200]
assert ids(books.search("", {"sort": ["year:asc"], "limit": 3})) == ["201", 0, 1]
odd = books.search("volume", {"filter": "genre = odd", "facets": ["genre"], "hitsPerPage": 10, "page": 2})
assert odd["totalHits"] == 100 and odd["totalPages"] == 10 and len(odd["hits"]) == 10, odd
assert odd["facetDistribution"] == {"genre": {"odd": 100}}, odd
both = client.multi_search([{"indexUid": "books", "q": "emma"}, {"indexUid": "books", "q": "ulysses"}])
assert [ids(result) for result in both["results"]] == [["201"], ["202"]], both
assert books.facet_search("genre", "no")["facetHits"] == [{"value": "novel", "count": 2}]

# Single documents: read, updated in part, deleted in each way.
assert books.get_document(200).title == "Dune"
done(books.update_documents([{"id": 200, "year": 1966}]))
assert (books.get_document(200).title, books.get_document(200).year) == ("Dune", 1966)
done(books.delete_document(0))
done(books.delete_documents(ids=[1, 2]))
done(books.delete_documents(filter="year > 2000"))
# 0, 1 and 2 went by id; 101 to 199 by the filter.
assert books.get_stats().number_of_documents == 203 - 3 - 99
assert len(books.get_documents({"limit": 50, "offset": 20}).results) == 50

# Errors as one node words them.
for code, attempt in [
    ("document_not_found", lambda: books.get_document(0)),
    ("index_not_found", lambda: client.index("nowhere").search("")),
    ("invalid_search_filter", lambda: books.search("", {"filter": "title = x"})),
    ("invalid_api_key", lambda: meilisearch.Client(sys.argv[1], "wrong").index("books").search("")),
]:
    try:
        attempt()
        raise AssertionError(f"no {code}")
    except MeilisearchApiError as error:
        assert error.code == code, error

# Keys and tenant tokens.
key = client.create_key({"actions": ["search"], "indexes": ["books"], "expiresAt": None, "description": "everyday"})
searcher = meilisearch.Client(sys.argv[1], key.key)
assert ids(searcher.index("books").search("dune")) == [200]
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
token = client.generate_tenant_token(key.uid, {"books": {"filter": "genre = novel"}}, api_key=key.key, expires_at=soon)
tenant = meilisearch.Client(sys.argv[1], token)
assert sorted(map(str, ids(tenant.index("books").search("")))) == ["201", "202"]
client.delete_key(key.uid)

# Lists, and the end of the index.
assert [index.uid for index in client.get_indexes()["results"]] == ["books"]
assert client.get_tasks({"indexUids": ["books"], "statuses": ["failed"]}).results == []
done(client.delete_index("books"))
assert client.get_indexes()["results"] == []
print("as on one node")
