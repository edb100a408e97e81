"""Counts leads by workspace and source, exactly once: a subscriber to copy. See ../README.md.

usage: subscriber.py [--until-end] STATE_FILE
"""

import argparse
import os
import sqlite3
import sys
from pathlib import Path

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

BATCH = 500  # records in one transaction, at most
CALL = 30.0  # seconds, for a question to the broker


class NewerSchema(Exception):
    """An event in a form that this reader doesn't know."""


def run(brokers: str, file: str, until_end: bool) -> None:
    # autocommit: transactions begin and end where BEGIN and COMMIT stand.
    state = sqlite3.connect(file, isolation_level=None)
    state.executescript((Path(__file__).parent.parent / "state.sql").read_text())
    topic = os.environ.get("LEADS_TOPIC", "leads.events.v1")
    consumer = Consumer({
        "bootstrap.servers": brokers,
        # librdkafka wants a name. No group is joined, and nothing is committed: positions are ours.
        "group.id": "leads-subscriber",
        "enable.auto.commit": False,
        # A log without our position is another log, or has lost records: an error, not a new start.
        "auto.offset.reset": "error",
    })
    ends = resume(state, consumer, topic)
    while not until_end or any(next_ < end for next_, end in zip(positions(state), ends)):
        records = consumer.consume(BATCH, timeout=1.0)
        state.execute("BEGIN")
        for record in records:
            if record.error() is not None:
                raise KafkaException(record.error())
            apply(state, record)
        state.execute("COMMIT")
    consumer.close()
    for (line,) in state.execute("SELECT line FROM report ORDER BY line"):
        print(line)


def resume(state: sqlite3.Connection, consumer: Consumer, topic: str) -> list[int]:
    """Assigns every partition from its stored position; gives the ends of the log as of now."""
    metadata = consumer.list_topics(topic, timeout=CALL).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    partitions = sorted(metadata.partitions)
    state.executemany("INSERT OR IGNORE INTO positions VALUES (?, 0)", [(p,) for p in partitions])
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=CALL)[1] for p in partitions]
    for partition, next_, end in zip(partitions, positions(state), ends):
        if next_ > end:
            raise SystemExit(f"error: {topic} {partition} ends at {end}, the state is at {next_}: it is of another log")
    consumer.assign([TopicPartition(topic, p, next_) for p, next_ in zip(partitions, positions(state))])
    return ends


def positions(state: sqlite3.Connection) -> list[int]:
    return [next_ for (next_,) in state.execute("SELECT next_offset FROM positions ORDER BY partition")]


def apply(state: sqlite3.Connection, record: Message) -> None:
    """Applies a record, in the transaction that moves the position behind it."""
    partition, offset = record.partition(), record.offset()
    moved = state.execute(
        "UPDATE positions SET next_offset = ?2 + 1 WHERE partition = ?1 AND next_offset <= ?2",
        (partition, offset),
    )
    if moved.rowcount == 0:
        return  # read twice
    try:
        change = read(record)
    except NewerSchema as error:
        raise SystemExit(
            f"error: {partition}:{offset} has {error}, this reader knows 1: update it, and it goes on from here"
        ) from None
    except Exception as error:  # the SDK, JSON and a missing field each have their own
        print(f"passed over {partition}:{offset}, which is no event: {type(error).__name__}", file=sys.stderr)
        return
    if change is not None:
        write(state, *change)


def read(record: Message) -> tuple[str, dict] | None:
    """The event's type, and of the event what counts here. None for a type that was added to the log."""
    event = from_binary_event(KafkaMessage(dict(record.headers() or []), record.key(), record.value()))
    if event.get_type() not in ("LeadCreated", "LeadUpdated"):
        return None
    body = event.get_data()
    if body["schema_version"] != 1:
        raise NewerSchema(f"schema version {body['schema_version']}")
    # All of a new lead, or what is given of a known one.
    fields = body["lead"] if event.get_type() == "LeadCreated" else body["changes"]
    return event.get_type(), {
        "event": event.get_id(),
        "workspace": body["workspace_id"],
        "lead": event.get_subject(),
        "given": "source" in fields,  # null clears the source, absent leaves it
        "source": fields.get("source"),
        "expected": body.get("expected_version"),
    }


def write(state: sqlite3.Connection, type_: str, change: dict) -> None:
    """The rules for readers of docs/events.md."""
    if type_ == "LeadCreated":
        # Of two creations the first stands.
        state.execute("INSERT INTO leads VALUES (:workspace, :lead, :source, 1, :event) ON CONFLICT DO NOTHING", change)
        return
    state.execute(
        """UPDATE leads SET version = version + 1, last_event_id = :event,
                  source = CASE WHEN :given THEN :source ELSE source END
            WHERE workspace_id = :workspace AND lead_id = :lead
              AND last_event_id <> :event                       -- a duplicate
              AND version = coalesce(:expected, version)        -- too late for If-Match""",
        change,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Counts leads by workspace and source, exactly once.")
    parser.add_argument("--until-end", action="store_true", help="stop at the log's end as of now, and print the report")
    parser.add_argument("file", metavar="STATE_FILE", help="SQLite file of the state; made when it isn't there")
    arguments = parser.parse_args()
    if "KAFKA_BROKERS" not in os.environ:
        parser.error("KAFKA_BROKERS is not set")
    run(os.environ["KAFKA_BROKERS"], arguments.file, arguments.until_end)
