// What a dead letter's reason means and what mends it; docs/operations.md has the same table.

export const REASONS = {
  undecodable: {
    what: "No event: not JSON, a field is missing, or a tombstone.",
    cure: "Find who wrote it. Nobody will be able to read it: give it up (docs/operations.md, Giving a record up).",
  },
  unknown_type: {
    what: "An event of a newer producer: its type is not known here.",
    cure: "Start the newer leads-consumer, then redrive.",
  },
  unknown_version: {
    what: "An event of a newer producer: its schema version is not known here.",
    cure: "Start the newer leads-consumer, then redrive.",
  },
  refused_by_postgres: {
    what: "A value that the tables don't take; the error names table and constraint.",
    cure: "Mend the tables, then redrive. Otherwise give it up (docs/operations.md, Giving a record up).",
  },
  parked: {
    what: "Nothing is wrong with it: an earlier event of its lead waits.",
    cure: "Redrive the one that it waits behind.",
  },
  inconsistent: {
    what: "It contradicts its key or itself.",
    cure: "Mend the producer, send the change again.",
  },
  wrong_partition: {
    what: "It came from a producer with another partitioner.",
    cure: "Mend the producer (murmur2_random), send the change again.",
  },
  unknown_lead: {
    what: "An update of a lead that was not there yet.",
    cure: "Send the change again.",
  },
};

export function explain(reason) {
  return REASONS[reason] ?? { what: "A reason that this console does not know.", cure: "Look at the record." };
}

/** A reason in words for people: refused by PostgreSQL. */
export function spoken(reason) {
  return reason.replaceAll("_", " ").replace("postgres", "PostgreSQL");
}
