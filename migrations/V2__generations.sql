-- Generations side by side: each has tables of its own, and reads go through views that a swap points
-- elsewhere. Views, because grants on them and views over them outlive a swap.
ALTER TABLE leads RENAME TO leads_g1;
ALTER INDEX leads_pkey RENAME TO leads_g1_pkey;
ALTER INDEX leads_newest RENAME TO leads_g1_newest;
ALTER INDEX leads_visitor RENAME TO leads_g1_visitor;
ALTER TABLE lead_counts RENAME TO lead_counts_g1;
ALTER INDEX lead_counts_pkey RENAME TO lead_counts_g1_pkey;

CREATE VIEW leads AS
SELECT workspace_id, id, visitor_id, code, source, created_at, updated_at, properties, location,
    identity_id, session_id, summary, company_id, version, last_event_id
FROM leads_g1;
CREATE VIEW lead_counts AS SELECT workspace_id, partition, leads FROM lead_counts_g1;

-- Set by a swap on the offsets of the generation that goes: a batch under way is waited for, and the
-- next one finds no row to move.
ALTER TABLE projection_offset ADD COLUMN sealed boolean NOT NULL DEFAULT false;

-- Who builds it, as HOST:PID; kept for `status` and for refusing a second one by name.
ALTER TABLE projection_generation ADD COLUMN builder text;
-- When it became live the last time.
ALTER TABLE projection_generation ADD COLUMN live_since timestamptz;
UPDATE projection_generation SET live_since = created_at WHERE state = 'live';

-- A generation has its own dead letters: what one version could not read, the next may.
ALTER TABLE dead_letters ADD COLUMN generation integer NOT NULL DEFAULT 1;
ALTER TABLE dead_letters ALTER COLUMN generation DROP DEFAULT;
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_pkey;
ALTER TABLE dead_letters ADD PRIMARY KEY (generation, topic, partition, "offset");
-- Whether later events of the lead are parked behind this one.
ALTER TABLE dead_letters ADD COLUMN holds_lead boolean NOT NULL DEFAULT false;
-- Those that are there held nothing: what came behind them is projected.
ALTER TABLE dead_letters ALTER COLUMN holds_lead DROP DEFAULT;
-- When a redrive projected it after all; null while it waits.
ALTER TABLE dead_letters ADD COLUMN redriven_at timestamptz;
-- What it was set aside for before, oldest first: [{"at", "reason", "error"}], one for each redrive
-- that failed. The columns reason and error tell the last.
ALTER TABLE dead_letters ADD COLUMN history jsonb NOT NULL DEFAULT '[]';
CREATE INDEX dead_letters_waiting ON dead_letters (generation, topic, partition, lead_id)
    WHERE redriven_at IS NULL;
