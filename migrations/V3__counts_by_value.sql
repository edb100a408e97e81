-- Lists narrowed to a source or a code: their page through an index of its own, their total from counts.
--
-- Writers move projection_offset first: they wait here. One of an older version then finds that the
-- key it counts by is gone, and halts; it has not counted by value.
LOCK TABLE projection_offset IN EXCLUSIVE MODE;

DO $$
DECLARE
    generation record;
BEGIN
    FOR generation IN SELECT g.generation AS n, g.state FROM projection_generation AS g LOOP
        EXECUTE format('
            ALTER TABLE lead_counts_g%1$s
                ADD COLUMN field text COLLATE "C" NOT NULL DEFAULT ''all'',
                ADD COLUMN value text COLLATE "C" NOT NULL DEFAULT '''',
                DROP CONSTRAINT lead_counts_g%1$s_pkey,
                DROP CONSTRAINT lead_counts_leads_check;
            ALTER TABLE lead_counts_g%1$s
                ALTER COLUMN field DROP DEFAULT,
                ALTER COLUMN value DROP DEFAULT,
                ADD CONSTRAINT lead_counts_g%1$s_pkey
                    PRIMARY KEY (workspace_id, field, value, partition),
                ADD CONSTRAINT lead_counts_field CHECK (field IN (''all'', ''code'', ''source''));
            -- Partition -1: what was there before. A lead that then moves to another value is taken
            -- from its own partition, whose count may fall below 0; their sum is right.
            INSERT INTO lead_counts_g%1$s (workspace_id, field, value, partition, leads)
                SELECT workspace_id, ''source'', source, -1, count(*) FROM leads_g%1$s
                WHERE source IS NOT NULL GROUP BY 1, 3
                UNION ALL
                SELECT workspace_id, ''code'', code, -1, count(*) FROM leads_g%1$s
                WHERE code IS NOT NULL GROUP BY 1, 3;
        ', generation.n);
        -- One that is being built gets its indexes at the end, like those of the live one.
        IF generation.state <> 'building' THEN
            EXECUTE format('
                CREATE INDEX leads_g%1$s_source ON leads_g%1$s (workspace_id, source, created_at)
                    WHERE source IS NOT NULL;
                CREATE INDEX leads_g%1$s_code ON leads_g%1$s (workspace_id, code, created_at)
                    WHERE code IS NOT NULL;
                -- Without the id, which is sorted within a millisecond: each insert pays for it.
                DROP INDEX IF EXISTS leads_g%1$s_newest;
                CREATE INDEX leads_g%1$s_newest ON leads_g%1$s (workspace_id, created_at);
            ', generation.n);
        END IF;
        IF generation.state = 'live' THEN
            EXECUTE format('
                CREATE OR REPLACE VIEW lead_counts AS
                    SELECT workspace_id, partition, leads FROM lead_counts_g%1$s
                    WHERE field = ''all'';
                CREATE VIEW lead_value_counts AS
                    SELECT workspace_id, field, value, partition, leads FROM lead_counts_g%1$s
                    WHERE field <> ''all'';
            ', generation.n);
        END IF;
    END LOOP;
END
$$;
