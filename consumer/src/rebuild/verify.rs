//! Comparing a rebuilt generation with the live one, row by row, byte for byte.
//!
//! The live one goes on meanwhile. Both are looked at in one snapshot, together with how far each
//! was; the leads of the events that only one of them has seen are left out, by the log.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::TryStreamExt;
use leads_shared::partition;
use postgres_openssl::MakeTlsConnector;
use serde::Serialize;
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use super::RebuildError;
use crate::connection::Connection;
use crate::source::log::{Log, Range};
use crate::store::{counts_table, leads_table};

/// Differences that are listed one by one.
const LISTED: usize = 20;
/// More events between the two than this are not read to leave their leads out.
const MOST_BETWEEN: i64 = 5_000_000;

/// What the comparison found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Leads of the live generation.
    pub(super) live_leads: i64,
    /// Leads of the new one.
    pub(super) new_leads: i64,
    /// Counts of the new one, by workspace, source and code, that are not the number of its leads.
    pub(super) miscounted: i64,
    /// Leads left out, because only one of the two has seen all their events.
    pub(super) left_out: usize,
    /// Leads that differ.
    pub(super) differences: u64,
    /// The first of them.
    pub(super) listed: Vec<Difference>,
    /// How many differ, by partition and workspace.
    pub(super) by_partition_and_workspace: Vec<Share>,
}

/// A lead that differs.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// Its workspace.
    pub(super) workspace_id: Uuid,
    /// The lead.
    pub(super) lead_id: Uuid,
    /// The partition of its events.
    pub(super) partition: i32,
    /// `only_live`, `only_new` or `different`.
    pub(super) kind: String,
}

/// The differences of one workspace in one partition.
#[derive(Debug, Serialize)]
pub(super) struct Share {
    /// The partition.
    pub(super) partition: i32,
    /// The workspace.
    pub(super) workspace_id: Uuid,
    /// How many leads differ.
    pub(super) differences: u64,
}

impl Report {
    /// Whether the new generation is the live one again.
    pub(super) fn is_equal(&self) -> bool {
        self.differences == 0 && self.miscounted == 0
    }
}

/// What is compared.
pub(super) struct Comparison<'a> {
    /// How PostgreSQL is reached.
    pub(super) config: &'a Config,
    /// Its TLS.
    pub(super) tls: &'a MakeTlsConnector,
    /// The log.
    pub(super) log: &'a Log,
    /// The topic of events.
    pub(super) topic: &'a str,
    /// Its partitions.
    pub(super) partitions: u32,
    /// The live generation.
    pub(super) live: i32,
    /// The one that was built; nobody writes it now.
    pub(super) new: i32,
}

impl Comparison<'_> {
    /// Compares; takes about as long as reading both tables.
    ///
    /// # Errors
    /// PostgreSQL's or Kafka's, or that the live generation is too far behind to be compared.
    pub(super) async fn run(&self) -> Result<Report, RebuildError> {
        let client = Connection::named(self.config, self.tls, "leads-consumer verify").await?;
        let result = self.compare(&client).await;
        client.close().await;
        result
    }

    async fn compare(&self, client: &Client) -> Result<Report, RebuildError> {
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let ranges = self.between(client).await?;
        let events: i64 = ranges.iter().map(|range| range.to - range.from).sum();
        if events > MOST_BETWEEN {
            return Err(RebuildError::Failed(format!(
                "{events} events are in one generation and not in the other, too many to compare \
                 them: is a consumer running? See `leads-consumer status`; \
                 --accept-differences swaps without comparing"
            )));
        }
        let left_out =
            self.log.leads_in(ranges).await.map_err(|error| RebuildError::kafka(&error))?;
        let (live, new) = (leads_table(self.live), leads_table(self.new));
        let sizes = format!("SELECT (SELECT count(*) FROM {live}), (SELECT count(*) FROM {new})");
        let sizes = client.query_one(&sizes, &[]).await?;
        let mut report = Report {
            live_leads: sizes.try_get(0)?,
            new_leads: sizes.try_get(1)?,
            miscounted: self.miscounted(client).await?,
            left_out: left_out.len(),
            ..Report::default()
        };
        // *<> compares the bytes that are stored, so that 1.0 is not 1.00.
        let differences = format!(
            "SELECT coalesce(a.workspace_id, b.workspace_id), coalesce(a.id, b.id),
                 CASE WHEN b.id IS NULL THEN 'only_live' WHEN a.id IS NULL THEN 'only_new'
                     ELSE 'different' END
             FROM {live} AS a FULL JOIN {new} AS b
                 ON a.workspace_id = b.workspace_id AND a.id = b.id
             WHERE a.id IS NULL OR b.id IS NULL OR a.* *<> b.*"
        );
        let mut shares: BTreeMap<(i32, Uuid), u64> = BTreeMap::new();
        let rows = client.query_raw(&differences, std::iter::empty::<i32>()).await?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            let (workspace_id, lead_id): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(1)?);
            if left_out.contains(&lead_id) {
                continue;
            }
            let partition = partition::of_key(lead_id.to_string().as_bytes(), self.partitions);
            report.differences += 1;
            *shares.entry((partition, workspace_id)).or_default() += 1;
            if report.listed.len() < LISTED {
                let kind = row.try_get(2)?;
                report.listed.push(Difference { workspace_id, lead_id, partition, kind });
            }
        }
        report.by_partition_and_workspace = shares
            .into_iter()
            .map(|((partition, workspace_id), differences)| Share {
                partition,
                workspace_id,
                differences,
            })
            .collect();
        client.batch_execute("COMMIT").await?;
        Ok(report)
    }

    /// Totals that lists would tell wrongly of the new generation.
    async fn miscounted(&self, client: &Client) -> Result<i64, RebuildError> {
        let (new, counts) = (leads_table(self.new), counts_table(self.new));
        let query = format!(
            "WITH there AS (
                 SELECT workspace_id, 'all' AS field, '' AS value, count(*) AS leads FROM {new}
                 GROUP BY workspace_id
                 UNION ALL
                 SELECT workspace_id, 'source', source, count(*) FROM {new}
                 WHERE source IS NOT NULL GROUP BY workspace_id, source
                 UNION ALL
                 SELECT workspace_id, 'code', code, count(*) FROM {new}
                 WHERE code IS NOT NULL GROUP BY workspace_id, code
             ), counted AS (
                 SELECT workspace_id, field, value, sum(leads) AS leads FROM {counts}
                 GROUP BY workspace_id, field, value
             )
             SELECT count(*) FROM there FULL JOIN counted USING (workspace_id, field, value)
             WHERE coalesce(there.leads, 0) <> coalesce(counted.leads, 0)"
        );
        Ok(client.query_one(&query, &[]).await?.try_get(0)?)
    }

    /// The events that one of the two has projected and the other has not, in this snapshot.
    async fn between(&self, client: &Client) -> Result<Vec<Range>, RebuildError> {
        // One without a row has projected nothing of the partition.
        let query = "SELECT partition, CASE count(*) WHEN 2 THEN min(next_offset) ELSE 0 END,
                 max(next_offset)
             FROM projection_offset
             WHERE generation IN ($1, $2) AND topic = $3 GROUP BY partition ORDER BY partition";
        let rows = client.query(query, &[&self.live, &self.new, &self.topic]).await?;
        rows.iter()
            .map(|row| {
                Ok(Range { partition: row.try_get(0)?, from: row.try_get(1)?, to: row.try_get(2)? })
            })
            .collect()
    }
}
