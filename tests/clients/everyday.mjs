// Everyday life with the official JavaScript client: everyday.mjs URL MASTER_KEY, with node_modules beside the working
// directory. Ends with 0 if all went as on one node.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const { Meilisearch, MeiliSearch } = createRequire(process.cwd() + '/')('meilisearch')
const [url, apiKey] = process.argv.slice(2)
const connect = (apiKey) => new (Meilisearch ?? MeiliSearch)({ host: url, apiKey })
const client = connect(apiKey)
const tasks = client.tasks ?? client

async function done(enqueued) {
  const { taskUid } = await enqueued
  const task = await tasks.waitForTask(taskUid, { timeout: 60_000 })
  assert.equal(task.status, 'succeeded', JSON.stringify(task))
  return task
}
const ids = (answer) => answer.hits.map((hit) => hit.id)

assert.ok(await client.isHealthy())
await done(client.createIndex('books', { primaryKey: 'id' }))
const books = client.index('books')
await done(books.updateSettings({ filterableAttributes: ['genre', 'year'], sortableAttributes: ['year'] }))
assert.deepEqual((await books.getSettings()).sortableAttributes, ['year'])

const volumes = Array.from({ length: 200 }, (_, id) => ({ id, title: `Volume ${id}`, genre: id % 2 ? 'odd' : 'even', year: 1900 + id }))
await done(books.addDocuments([...volumes, { id: 200, title: 'Dune', genre: 'sf', year: 1965 }]))
await done(books.addDocumentsFromString('{"id":"a-1","title":"Emma","genre":"novel","year":1815}\n', 'application/x-ndjson'))
assert.equal((await books.getStats()).numberOfDocuments, 202)

assert.deepEqual(ids(await books.search('dune')), [200])
assert.deepEqual(ids(await books.search('', { sort: ['year:asc'], limit: 2 })), ['a-1', 0])
const even = await books.search('volume', { filter: 'genre = even', facets: ['genre', 'year'], hitsPerPage: 20, page: 5 })
assert.equal(even.totalHits, 100)
assert.equal(even.hits.length, 20)
assert.deepEqual(even.facetStats.year, { min: 1900, max: 2098 })
const many = await client.multiSearch({ queries: [{ indexUid: 'books', q: 'emma' }, { indexUid: 'books', q: 'dune' }] })
assert.deepEqual(many.results.map(ids), [['a-1'], [200]])
const federated = await client.multiSearch({ federation: { limit: 5 }, queries: [{ indexUid: 'books', q: 'emma' }, { indexUid: 'books', q: 'dune' }] })
assert.deepEqual(new Set(ids(federated)), new Set(['a-1', 200]))

assert.equal((await books.getDocument('a-1')).title, 'Emma')
await done(books.updateDocuments([{ id: 'a-1', year: 1816 }]))
assert.deepEqual(await books.getDocument('a-1'), { id: 'a-1', title: 'Emma', genre: 'novel', year: 1816 })
await done(books.deleteDocuments({ filter: 'genre = odd' }))
await done(books.deleteDocument(0))
assert.equal((await books.getStats()).numberOfDocuments, 101)

const code = (promise) => promise.then(() => 'none', (error) => error.cause?.code ?? error.code)
assert.equal(await code(books.getDocument(0)), 'document_not_found')
assert.equal(await code(client.index('nowhere').search('')), 'index_not_found')
assert.equal(await code(books.search('', { sort: ['title:asc'] })), 'invalid_search_sort')
assert.equal(await code(connect('wrong').index('books').search('')), 'invalid_api_key')

await done(client.deleteIndex('books'))
console.log('as on one node')
