-- Operators' lists: the newest dead letters first, a page at the cost of its rows, however many there
-- are. Waiting ones by themselves, for those that were redriven may be many more; with the reason, so
-- that counting by it reads no row.
CREATE INDEX dead_letters_newest ON dead_letters (generation, topic, dead_at, partition, "offset")
    INCLUDE (redriven_at);
CREATE INDEX dead_letters_newest_waiting
    ON dead_letters (generation, topic, dead_at, partition, "offset") INCLUDE (reason)
    WHERE redriven_at IS NULL;
