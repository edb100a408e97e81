//! `dlq redrive`

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{DlqError, Reader, json_line, time};
use crate::cli::{DlqRedriveArgs, Place};
use crate::failure::Failure;
use crate::projection::parking::LeadAt;
use crate::store::redrive::{Chain, Fate, Redriven};
use crate::store::{Store, Target};

/// How often a lead is tried that meets a lock, a rebuild's swap or a server that restarts.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// What is printed of a record.
#[derive(Serialize)]
struct Line<'a> {
    partition: i32,
    offset: i64,
    lead_id: Option<Uuid>,
    /// Why it had been set aside.
    was: &'a str,
    /// `projected`, `failed` or `waits`.
    outcome: &'static str,
    /// Why it failed again.
    reason: Option<&'static str>,
    error: Option<&'a str>,
    dry_run: bool,
}

#[derive(Default)]
struct Total {
    projected: usize,
    failed: usize,
    waits: usize,
}

pub(super) async fn run(
    reader: &Reader<'_>,
    args: &DlqRedriveArgs,
    out: &mut impl Write,
) -> Result<(), DlqError> {
    let DlqRedriveArgs { common: _, place, lead, all: _, yes } = args;
    let dry = !yes;
    let Reader { database, topic, json, .. } = reader;
    let chains = match place {
        Some(place) => chain_of(reader, *place, out).await?.into_iter().collect(),
        None => chains(reader, *lead).await?,
    };
    let mut store = Store::new(&database.config, &database.tls, topic, Target::Live);
    let mut total = Total::default();
    for chain in chains {
        let redriven = redrive(&mut store, chain, dry).await?;
        for it in &redriven {
            total.add(&it.fate);
            let line = line(it, chain, dry);
            if *json { json_line(out, &line)? } else { print(&line, out)? }
        }
        out.flush()?;
    }
    if !json {
        writeln!(out, "{}", total.summary(dry))?;
    }
    match total.failed {
        0 => Ok(()),
        failed if dry => Err(DlqError::Failed(format!("{failed} would fail again"))),
        failed => Err(DlqError::Failed(format!(
            "{failed} failed again; `leads-consumer dlq show PARTITION:OFFSET` shows one of them"
        ))),
    }
}

/// What is redriven with the record there; none when it has been redriven already.
async fn chain_of(
    reader: &Reader<'_>,
    place: Place,
    out: &mut impl Write,
) -> Result<Option<Chain>, DlqError> {
    let Reader { client, generation, topic, .. } = reader;
    let Place { partition, offset } = place;
    let query = "SELECT partition, lead_id, \"offset\", redriven_at FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4";
    let row = client.query_opt(query, &[generation, topic, &partition, &offset]).await?;
    let row = row.ok_or_else(|| reader.not_found(place))?;
    if let Some(at) = row.try_get::<_, Option<_>>(3)?.map(time) {
        if !reader.json {
            writeln!(out, "{partition}:{offset} was redriven at {at}")?;
        }
        return Ok(None);
    }
    Ok(Some(chain(&row)?))
}

/// All that waits, or all of a lead; those first that have waited longest.
async fn chains(reader: &Reader<'_>, lead: Option<Uuid>) -> Result<Vec<Chain>, DlqError> {
    let Reader { client, generation, topic, .. } = reader;
    let query = "SELECT partition, lead_id, min(\"offset\") FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND redriven_at IS NULL
             AND ($3::uuid IS NULL OR lead_id = $3)
         GROUP BY partition, lead_id, CASE WHEN lead_id IS NULL THEN \"offset\" END
         ORDER BY min(dead_at), 1, 3";
    let rows = client.query(query, &[generation, topic, &lead]).await?;
    Ok(rows.iter().map(chain).collect::<Result<_, _>>()?)
}

fn chain(row: &Row) -> Result<Chain, tokio_postgres::Error> {
    let (partition, offset) = (row.try_get(0)?, row.try_get(2)?);
    Ok(match row.try_get(1)? {
        Some(lead_id) => Chain::Lead(LeadAt { partition, lead_id }),
        None => Chain::Record { partition, offset },
    })
}

async fn redrive(store: &mut Store, chain: Chain, dry: bool) -> Result<Vec<Redriven>, DlqError> {
    let mut tries = 1;
    loop {
        match store.redrive(chain, dry).await {
            Ok(redriven) => return Ok(redriven),
            Err(Failure::Retry { .. } | Failure::Fenced | Failure::Again) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}

fn line(it: &Redriven, chain: Chain, dry_run: bool) -> Line<'_> {
    let (outcome, reason, error) = match &it.fate {
        Fate::Projected => ("projected", None, None),
        Fate::Failed(why) => ("failed", Some(why.reason.name()), Some(why.error.as_str())),
        Fate::Waits => ("waits", None, None),
    };
    let lead_id = match chain {
        Chain::Lead(lead) => Some(lead.lead_id),
        Chain::Record { .. } => None,
    };
    let Redriven { partition, offset, reason: was, .. } = it;
    Line { partition: *partition, offset: *offset, lead_id, was, outcome, reason, error, dry_run }
}

fn print(line: &Line<'_>, out: &mut impl Write) -> Result<(), DlqError> {
    let Line { partition, offset, lead_id, was, outcome, reason, error, dry_run } = line;
    let fate = match (*outcome, dry_run) {
        ("projected", false) => "projected",
        ("projected", true) => "would be projected",
        ("failed", false) => "failed again",
        ("failed", true) => "would fail again",
        (_, false) => "waits on",
        (_, true) => "would wait on",
    };
    let lead = lead_id.map_or("-".to_owned(), |id| id.to_string());
    write!(out, "{partition}:{offset}  {lead}  {was}  {fate}")?;
    if let (Some(reason), Some(error)) = (reason, error) {
        write!(out, ": {reason}: {error}")?;
    }
    Ok(writeln!(out)?)
}

impl Total {
    fn add(&mut self, fate: &Fate) {
        match fate {
            Fate::Projected => self.projected += 1,
            Fate::Failed(_) => self.failed += 1,
            Fate::Waits => self.waits += 1,
        }
    }

    fn summary(&self, dry: bool) -> String {
        let Self { projected, failed, waits } = self;
        match (projected + failed + waits, dry) {
            (0, _) => "nothing waits".to_owned(),
            (_, false) => format!("{projected} projected, {failed} failed again, {waits} wait on"),
            (_, true) => format!(
                "dry run, nothing was changed: {projected} would be projected, {failed} would fail \
                 again, {waits} would wait on; --yes does it"
            ),
        }
    }
}
