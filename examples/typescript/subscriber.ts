// Counts leads by workspace and source, exactly once: a subscriber to copy. See ../README.md.
//
// usage: node subscriber.ts [--until-end] STATE_FILE

import { readFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { parseArgs } from 'node:util'
import { Consumer, stringDeserializers, type Message } from '@platformatic/kafka'
import { Kafka, type CloudEvent, type KafkaMessage } from 'cloudevents'

type Log = Consumer<string, string, string, string>
type Record = Message<string, string, string, string>

/** The value of an event, as far as it counts here. */
interface Body {
  schema_version: number
  workspace_id: string
  lead?: Fields // all of a new lead
  changes?: Fields // what is given of a known one: null clears it, absent leaves it
  expected_version?: number | null
}
interface Fields {
  source?: string | null
}
interface Change {
  created: boolean
  event: string
  workspace: string
  lead: string
  given: boolean
  source: string | null
  expected: number | null
}
/** An event in a form that this reader doesn't know. */
class NewerSchema extends Error {}

const BATCH = 500 // records in one transaction, at most

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { 'until-end': { type: 'boolean', default: false } }
})
const file = positionals[0]
const brokers = process.env.KAFKA_BROKERS
if (file === undefined || brokers === undefined) {
  console.error('usage: KAFKA_BROKERS=HOST:PORT node subscriber.ts [--until-end] STATE_FILE')
  process.exit(2)
}
const topic = process.env.LEADS_TOPIC ?? 'leads.events.v1'

const state = new DatabaseSync(file)
state.exec(readFileSync(new URL('../state.sql', import.meta.url), 'utf8'))
const movePosition = state.prepare(
  'UPDATE positions SET next_offset = :offset + 1 WHERE partition = :partition AND next_offset <= :offset'
)
// The rules for readers of docs/events.md. Of two creations the first stands.
const create = state.prepare('INSERT INTO leads VALUES (:workspace, :lead, :source, 1, :event) ON CONFLICT DO NOTHING')
const update = state.prepare(`
  UPDATE leads SET version = version + 1, last_event_id = :event,
         source = CASE WHEN :given THEN :source ELSE source END
   WHERE workspace_id = :workspace AND lead_id = :lead
     AND last_event_id <> :event                       -- a duplicate
     AND version = coalesce(:expected, version)        -- too late for If-Match`)

const consumer: Log = new Consumer({
  clientId: 'leads-subscriber',
  bootstrapBrokers: brokers.split(','),
  // This client reads as the member of a group. The group gets every partition for the one member, and no
  // commits: positions are ours. A member with a fixed id is back at once after a kill.
  groupId: `leads-subscriber.${topic}`,
  groupInstanceId: 'one',
  autocommit: false,
  deserializers: stringDeserializers
})

const partitions = (await consumer.metadata({ topics: [topic] })).topics.get(topic)?.partitionsCount ?? 0
if (partitions === 0) throw new Error(`there is no topic ${topic}`)
for (let partition = 0; partition < partitions; partition++) {
  state.prepare('INSERT OR IGNORE INTO positions VALUES (?, 0)').run(partition)
}
const ends = (await consumer.listOffsets({ topics: [topic] })).get(topic) ?? []
for (const [partition, next] of positions().entries()) {
  const end = ends[partition] ?? 0n
  if (next > end) throw new Error(`${topic} ${partition} ends at ${end}, the state is at ${next}: it is of another log`)
}

const stream = await consumer.consume({
  topics: [topic],
  mode: 'manual',
  offsets: positions().map((offset, partition) => ({ topic, partition, offset })),
  // A log without our position is another log, or has lost records: an error, not a new start.
  fallbackMode: 'fail'
})
if (!finished()) {
  let batch = 0
  for await (const record of stream) {
    if (batch++ === 0) state.exec('BEGIN')
    apply(record)
    if (batch < BATCH && stream.readableLength > 0) continue
    state.exec('COMMIT')
    batch = 0
    if (finished()) break
  }
}
await consumer.close(true)
for (const { line } of state.prepare('SELECT line FROM report ORDER BY line').iterate()) console.log(line)

function positions(): bigint[] {
  const rows = state.prepare('SELECT next_offset FROM positions ORDER BY partition').all()
  return rows.map(row => BigInt(row.next_offset as number))
}

function finished(): boolean {
  return flags['until-end'] && positions().every((next, partition) => next >= (ends[partition] ?? 0n))
}

/** Applies a record, in the transaction that moves the position behind it. */
function apply(record: Record): void {
  const { partition, offset } = record
  if (movePosition.run({ partition, offset }).changes === 0) return // read twice
  let change: Change | undefined
  try {
    change = read(record)
  } catch (error) {
    if (error instanceof NewerSchema) {
      throw new Error(`${partition}:${offset} ${error.message}, this reader knows 1: update it, and it goes on from here`)
    }
    console.error(`passed over ${partition}:${offset}, which is no event: ${(error as Error).name}`)
    return
  }
  if (change === undefined) return
  const { created, given, expected, ...lead } = change
  if (created) create.run(lead)
  else update.run({ ...lead, given: given ? 1 : 0, expected })
}

/** What counts here of an event; undefined for a type that was added to the log. */
function read(record: Record): Change | undefined {
  const message = { key: record.key, value: record.value, headers: Object.fromEntries(record.headers) }
  const event = Kafka.toEvent<Body>(message as unknown as KafkaMessage<Body>) as CloudEvent<Body>
  const created = event.type === 'LeadCreated'
  if (!created && event.type !== 'LeadUpdated') return undefined
  const body = event.data!
  if (typeof body.schema_version !== 'number') throw new TypeError('no schema_version')
  if (body.schema_version !== 1) throw new NewerSchema(`has schema version ${body.schema_version}`)
  const fields = (created ? body.lead : body.changes)!
  return {
    created,
    event: event.id,
    workspace: text(body.workspace_id),
    lead: text(event.subject),
    given: 'source' in fields,
    source: fields.source ?? null,
    expected: body.expected_version ?? null
  }
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('a field is missing')
  return value
}
