//! A page of a workspace's leads.

use chrono::{DateTime, Utc};
use leads_shared::{Lead, Timestamp};
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{ANSWER, COLUMNS, ReadModel, ReadModelError, run, stored_lead, unavailable};

/// What a list is narrowed to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Equal to the lead's source.
    pub source: Option<String>,
    /// Equal to the lead's code.
    pub code: Option<String>,
    /// Equal to the lead's visitor.
    pub visitor_id: Option<Uuid>,
    /// Created after, exclusively.
    pub created_after: Option<Timestamp>,
    /// Created before, exclusively.
    pub created_before: Option<Timestamp>,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// So many leads further down.
    Offset(i64),
    /// Behind the lead of this time and id.
    After(Timestamp, Uuid),
}

/// A page of a list, newest first.
#[derive(Debug)]
pub struct Page {
    /// At most as many as were asked for.
    pub leads: Vec<Lead<'static>>,
    /// Whether more follow.
    pub more: bool,
    /// How many the filter finds in all.
    pub total: i64,
}

impl ReadModel {
    /// A page of a workspace's leads: newest first, ties by id.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn list(
        &self,
        workspace_id: Uuid,
        filter: &Filter,
        start: Start,
        limit: i64,
    ) -> Result<Page, ReadModelError> {
        let mut query = Conditions::of(workspace_id, filter);
        let total_sql = total_sql(filter, &query);
        let filter_values = query.values.len();
        let limit_at = query.bind(limit + 1);
        let mut offset = String::new();
        match start {
            Start::Offset(rows) => offset = format!("OFFSET {}", query.bind(rows)),
            Start::After(time, id) => {
                let (time, id) = (query.bind(DateTime::<Utc>::from(time)), query.bind(id));
                query.sql.push(format!("(created_at, id) < ({time}, {id})"));
            }
        }
        let page_sql = format!(
            "SELECT {COLUMNS} FROM leads WHERE {} ORDER BY created_at DESC, id DESC LIMIT {limit_at} {offset}",
            query.text(),
        );
        let deadline = Instant::now() + ANSWER;
        let client = self.client(deadline).await?;
        let values = query.values();
        let both = futures_util::future::try_join(
            run(&client, deadline, &page_sql, &values),
            run(&client, deadline, &total_sql, &values[..filter_values]),
        )
        .await;
        let (rows, total) = self.settle(client, both)?;
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        let leads = rows.iter().take(limit).map(|row| stored_lead(row).map(|stored| stored.lead));
        Ok(Page {
            leads: leads.collect::<Result<_, _>>()?,
            more,
            total: total
                .first()
                .map_or(Ok(0), |row| row.try_get(0))
                .map_err(|error| unavailable(&error))?,
        })
    }
}

/// The conditions of a list and their values. The text depends on which filters are given, never on
/// what they say.
struct Conditions {
    sql: Vec<String>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    fn of(workspace_id: Uuid, filter: &Filter) -> Self {
        let Filter { source, code, visitor_id, created_after, created_before } = filter;
        let mut conditions = Self { sql: Vec::new(), values: Vec::new() };
        conditions.and("workspace_id =", Some(workspace_id));
        conditions.and("source =", source.clone());
        conditions.and("code =", code.clone());
        conditions.and("visitor_id =", *visitor_id);
        conditions.and("created_at >", created_after.map(DateTime::<Utc>::from));
        conditions.and("created_at <", created_before.map(DateTime::<Utc>::from));
        conditions
    }

    fn and(&mut self, left: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            let placeholder = self.bind(value);
            self.sql.push(format!("{left} {placeholder}"));
        }
    }

    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    fn text(&self) -> String {
        self.sql.join(" AND ")
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

/// The totals of a workspace, of a source and of a code are kept by the projection; others are
/// counted through the indexes.
fn total_sql(filter: &Filter, conditions: &Conditions) -> String {
    const SUM: &str = "SELECT COALESCE(SUM(leads), 0)::bigint FROM";
    let Filter { source, code, visitor_id, created_after, created_before } = filter;
    let others = visitor_id.is_some() || created_after.is_some() || created_before.is_some();
    match (source, code) {
        (None, None) if !others => format!("{SUM} lead_counts WHERE workspace_id = $1"),
        (Some(_), None) | (None, Some(_)) if !others => {
            let field = if source.is_some() { "source" } else { "code" };
            format!(
                "{SUM} lead_value_counts WHERE workspace_id = $1 AND field = '{field}' AND value = $2"
            )
        }
        _ => format!("SELECT COUNT(*) FROM leads WHERE {}", conditions.text()),
    }
}
