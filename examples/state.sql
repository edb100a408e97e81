-- What each subscriber keeps: its state, and the place in the log that the state stands for.
-- One file, so that one transaction moves both.

PRAGMA journal_mode = WAL;
-- A power cut may take the last commits back. It takes their positions back with them.
PRAGMA synchronous = NORMAL;

CREATE TABLE IF NOT EXISTS positions (
  partition   INTEGER PRIMARY KEY,
  next_offset INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS leads (
  workspace_id  TEXT NOT NULL,
  lead_id       TEXT NOT NULL,
  source        TEXT,
  version       INTEGER NOT NULL,
  last_event_id TEXT NOT NULL,
  PRIMARY KEY (workspace_id, lead_id)
);

-- One JSON text a line: leads by workspace and source, then each lead with its version.
CREATE VIEW IF NOT EXISTS report (line) AS
  SELECT json_object('workspace_id', workspace_id, 'source', source, 'leads', count(*))
    FROM leads GROUP BY workspace_id, source
  UNION ALL
  SELECT json_object('lead_id', lead_id, 'workspace_id', workspace_id, 'source', source, 'version', version)
    FROM leads;
