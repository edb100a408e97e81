-- The read model: every row here can be thrown away and rebuilt from the log,
-- but for access_key_usage, which is a convenience and may be lost.

-- Generations of the projection. Reads follow the live one; a rebuild fills another beside it.
CREATE TABLE projection_generation (
    generation integer PRIMARY KEY,
    state      text NOT NULL CHECK (state IN ('live', 'building', 'previous')),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX projection_generation_one_live ON projection_generation (state) WHERE state = 'live';
INSERT INTO projection_generation (generation, state) VALUES (1, 'live');

-- How far each partition is projected. A batch moves it in the transaction of its rows, and only
-- from the offset it started at: whoever finds another offset has been replaced.
CREATE TABLE projection_offset (
    generation    integer NOT NULL REFERENCES projection_generation,
    topic         text NOT NULL,
    partition     integer NOT NULL,
    -- The offset of the next record to apply.
    next_offset   bigint NOT NULL CHECK (next_offset >= 0),
    -- The event id of the record before it, to be found there again; null when it had none.
    last_event_id uuid,
    PRIMARY KEY (generation, topic, partition)
)
-- Updated once a batch: leave room for HOT updates, and vacuum early.
WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- The leads of the live generation.
CREATE TABLE leads (
    workspace_id  uuid NOT NULL,
    id            uuid NOT NULL,
    visitor_id    uuid,
    code          text,
    source        text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    properties    jsonb,
    location      jsonb,
    identity_id   uuid,
    session_id    uuid,
    summary       jsonb,
    company_id    uuid,
    -- How many events took effect, in log order.
    version       bigint NOT NULL CHECK (version >= 1),
    -- The last one that did.
    last_event_id uuid NOT NULL,
    PRIMARY KEY (workspace_id, id)
);
-- Newest first, ties by id: the order of every list, read backwards. Ascending, because leads come in
-- by time: pages fill up and split at their end, where a descending index would split in halves.
CREATE INDEX leads_newest ON leads (workspace_id, created_at, id);
-- A visitor has few leads: sorting them is cheaper than a wider key on every insert.
CREATE INDEX leads_visitor ON leads (workspace_id, visitor_id) WHERE visitor_id IS NOT NULL;

-- How many leads a workspace has, by partition: two partitions never write the same row, so their
-- transactions never wait for each other, and a list's total needs no scan.
CREATE TABLE lead_counts (
    workspace_id uuid NOT NULL,
    partition    integer NOT NULL,
    leads        bigint NOT NULL CHECK (leads >= 0),
    PRIMARY KEY (workspace_id, partition)
)
WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- Updates that came too late for the version they expected: how the API tells a 412 by log order.
-- Rows are kept for a day.
CREATE TABLE precondition_failures (
    event_id    uuid PRIMARY KEY,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX precondition_failures_age ON precondition_failures (occurred_at);

-- Records that can't be projected, exactly once each. The dead letter topic is their export.
CREATE TABLE dead_letters (
    topic         text NOT NULL,
    partition     integer NOT NULL,
    "offset"      bigint NOT NULL,
    -- The lead by the record's key, when the key is a UUID.
    lead_id       uuid,
    reason        text NOT NULL,
    error         text NOT NULL,
    record_key    bytea,
    record_value  bytea,
    header_names  text[] NOT NULL,
    header_values bytea[] NOT NULL,
    -- The record's own time, and when it was set aside.
    record_time   timestamptz,
    dead_at       timestamptz NOT NULL DEFAULT now(),
    -- When the dead letter topic acknowledged it.
    exported_at   timestamptz,
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX dead_letters_to_export ON dead_letters (dead_at) WHERE exported_at IS NULL;

-- When a key was last used, written by the API at most once a minute and key, best effort.
CREATE TABLE access_key_usage (
    key_id       text PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);
