//! `leads-api keys create|list|revoke|rotate`

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use leads_shared::{Timestamp, topic};
use serde::Serialize;
use uuid::Uuid;

use super::{AccessRecord, KeyKind, Scope, Secret};
use crate::broker::{KafkaConfig, publish_once, read_to_end};
use crate::cli::{CommonArgs, CreateArgs, KeysCommand, ListArgs, OneKeyArgs};
use crate::config::{PostgresArgs, kafka_config, postgres_config};
use crate::read_model::ReadModel;

/// Longest wait for Kafka.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Wrong usage or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The work failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// What `create` and `rotate` print: the only time that a key is shown.
#[derive(Serialize)]
struct NewKey<'a> {
    id: Uuid,
    key: &'a str,
    workspace_id: Uuid,
    name: Option<&'a str>,
    kind: KeyKind,
    scopes: &'a [Scope],
    rate_limit: u32,
    created_at: Timestamp,
}

/// What `list` prints of a key.
#[derive(Serialize)]
struct ListedKey<'a> {
    id: Uuid,
    workspace_id: Uuid,
    name: Option<&'a str>,
    kind: KeyKind,
    scopes: &'a [Scope],
    rate_limit: u32,
    created_at: Timestamp,
    rotated_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

/// Runs a command and returns what it prints.
///
/// # Errors
/// See [`CommandError`].
pub fn run(
    command: KeysCommand,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String, CommandError> {
    match command {
        KeysCommand::Create(args) => {
            let topic = Topic::open(environment, &args.common)?;
            create(args, &topic)
        }
        KeysCommand::List(args) => {
            let topic = Topic::open(environment, &args.common)?;
            list(&args, &topic)
        }
        KeysCommand::Revoke(args) => {
            let topic = Topic::open(environment, &args.common)?;
            revoke(&args, &topic)
        }
        KeysCommand::Rotate(args) => {
            let topic = Topic::open(environment, &args.common)?;
            rotate(&args, &topic)
        }
    }
}

/// The access topic, as the commands use it.
struct Topic {
    config: KafkaConfig,
    name: String,
}

impl Topic {
    fn open(
        environment: impl IntoIterator<Item = (String, String)>,
        common: &CommonArgs,
    ) -> Result<Self, CommandError> {
        let name = common.kafka.access_topic.clone();
        if !topic::is_valid_name(&name) {
            let message = format!("LEADS_ACCESS_TOPIC={name} is no valid topic name");
            return Err(CommandError::Usage(message));
        }
        let config =
            kafka_config(&common.kafka, PATIENCE, environment).map_err(CommandError::Usage)?;
        Ok(Self { config, name })
    }

    /// The newest state of every key.
    fn read(&self) -> Result<BTreeMap<Uuid, AccessRecord>, CommandError> {
        let mut records = BTreeMap::new();
        read_to_end(&self.config, &self.name, PATIENCE, |key, value| {
            let Some(id) = std::str::from_utf8(key).ok().and_then(|id| id.parse().ok()) else {
                return;
            };
            match value.and_then(|value| serde_json::from_slice(value).ok()) {
                Some(record) => drop(records.insert(id, record)),
                None => drop(records.remove(&id)),
            }
        })
        .map_err(CommandError::Failed)?;
        Ok(records)
    }

    /// The key `id`, which must be there and not revoked.
    fn active(&self, id: Uuid) -> Result<AccessRecord, CommandError> {
        let record = self.read()?.remove(&id).ok_or_else(|| {
            CommandError::Failed(format!(
                "no key has the id {id}; `leads-api keys list` shows them"
            ))
        })?;
        match record.revoked_at {
            None => Ok(record),
            Some(at) => Err(CommandError::Failed(format!("key {id} was revoked at {at}"))),
        }
    }

    fn write(&self, record: &AccessRecord) -> Result<(), CommandError> {
        let value = serde_json::to_vec(record).map_err(|e| CommandError::Failed(e.to_string()))?;
        publish_once(&self.config, &self.name, &record.id.to_string(), &value).map_err(|error| {
            CommandError::Failed(format!(
                "topic {} did not take the key: {error}. Is KAFKA_BROKERS right, and has `leads-consumer topics` been run?",
                self.name
            ))
        })
    }
}

fn create(args: CreateArgs, topic: &Topic) -> Result<String, CommandError> {
    let name = args.name.filter(|name| !name.is_empty());
    if name
        .as_ref()
        .is_some_and(|name| name.chars().count() > 255 || name.contains(char::is_control))
    {
        let message = "--name takes at most 255 characters, none of them control characters";
        return Err(CommandError::Usage(message.to_owned()));
    }
    let mut scopes = args.scopes;
    scopes.dedup();
    let mut record = AccessRecord {
        id: Uuid::now_v7(),
        workspace_id: args.workspace,
        name,
        kind: args.kind,
        scopes,
        rate_limit: args.rate_limit.unwrap_or_else(|| args.kind.default_rate_limit()),
        sha256: String::new(),
        created_at: Timestamp::from(Utc::now()),
        rotated_at: None,
        revoked_at: None,
    };
    let secret = Secret::from_bytes(record.kind, &rand::random());
    record.set_digest(&secret.digest());
    topic.write(&record)?;
    show_new(&record, &secret, args.common.json)
}

fn rotate(args: &OneKeyArgs, topic: &Topic) -> Result<String, CommandError> {
    let mut record = topic.active(args.id)?;
    let secret = Secret::from_bytes(record.kind, &rand::random());
    record.set_digest(&secret.digest());
    record.rotated_at = Some(Timestamp::from(Utc::now()));
    topic.write(&record)?;
    show_new(&record, &secret, args.common.json)
}

fn revoke(args: &OneKeyArgs, topic: &Topic) -> Result<String, CommandError> {
    let mut record = topic.active(args.id)?;
    let now = Timestamp::from(Utc::now());
    record.revoked_at = Some(now);
    topic.write(&record)?;
    if args.common.json {
        to_json(&serde_json::json!({ "id": record.id, "revoked_at": now }))
    } else {
        Ok(format!("revoked {} of workspace {}", record.id, record.workspace_id))
    }
}

fn list(args: &ListArgs, topic: &Topic) -> Result<String, CommandError> {
    let records = topic.read()?;
    let uses = args.database_url.as_deref().map(last_uses).unwrap_or_default();
    let wanted = |record: &&AccessRecord| args.workspace.is_none_or(|w| w == record.workspace_id);
    let keys: Vec<ListedKey<'_>> = records
        .values()
        .filter(wanted)
        .map(|record| ListedKey {
            id: record.id,
            workspace_id: record.workspace_id,
            name: record.name.as_deref(),
            kind: record.kind,
            scopes: &record.scopes,
            rate_limit: record.rate_limit,
            created_at: record.created_at,
            rotated_at: record.rotated_at,
            revoked_at: record.revoked_at,
            last_used_at: uses.get(&record.id.to_string()).copied(),
        })
        .collect();
    if args.common.json { to_json(&keys) } else { Ok(table(&keys)) }
}

/// Best effort: an empty map when PostgreSQL is not there.
fn last_uses(database_url: &str) -> HashMap<String, Timestamp> {
    let args = PostgresArgs {
        database_url: database_url.to_owned(),
        database_root_cert: std::env::var_os("PGSSLROOTCERT").map(PathBuf::from),
    };
    let Ok(postgres) = postgres_config(&args, 1) else { return HashMap::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return HashMap::new();
    };
    let uses = async {
        let read_model = ReadModel::new(postgres.config, postgres.tls, 1, String::new()).ok()?;
        read_model.key_uses().await.ok()
    };
    runtime.block_on(uses).unwrap_or_default()
}

fn show_new(record: &AccessRecord, secret: &Secret, json: bool) -> Result<String, CommandError> {
    if json {
        return to_json(&NewKey {
            id: record.id,
            key: secret.reveal(),
            workspace_id: record.workspace_id,
            name: record.name.as_deref(),
            kind: record.kind,
            scopes: &record.scopes,
            rate_limit: record.rate_limit,
            created_at: record.created_at,
        });
    }
    Ok(format!(
        "key        {}\nid         {}\nworkspace  {}\nscopes     {}\nlimit      {}\n\nKeep the key now: it is not shown again.",
        secret.reveal(),
        record.id,
        record.workspace_id,
        names(&record.scopes),
        limit(record.rate_limit),
    ))
}

fn table(keys: &[ListedKey<'_>]) -> String {
    let mut lines = vec![format!(
        "{:<36}  {:<36}  {:<4}  {:<34}  {:>10}  {:<24}  {}",
        "ID", "WORKSPACE", "KIND", "SCOPES", "LIMIT", "LAST USE", "NAME"
    )];
    lines.extend(keys.iter().map(|key| {
        let last = match (key.revoked_at, key.last_used_at) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(at)) => at.to_string(),
            (None, None) => "-".to_owned(),
        };
        format!(
            "{:<36}  {:<36}  {:<4}  {:<34}  {:>10}  {last:<24}  {}",
            key.id.to_string(),
            key.workspace_id.to_string(),
            key.kind.name(),
            names(key.scopes),
            limit(key.rate_limit),
            key.name.unwrap_or("-"),
        )
    }));
    lines.join("\n")
}

fn names(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(",")
}

fn limit(rate_limit: u32) -> String {
    if rate_limit == 0 { "none".to_owned() } else { format!("{rate_limit}/min") }
}

fn to_json(value: &impl Serialize) -> Result<String, CommandError> {
    serde_json::to_string(value).map_err(|error| CommandError::Failed(error.to_string()))
}
