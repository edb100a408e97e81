//! Everything that the checks judge, looked at once, each as far as it can be had.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chrono::Utc;
use leads_shared::topic::{self, TopicSpec};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::finding::{Seen, Unseen};
use super::kafka::{Address, try_addresses};
use super::server::{Connections, Transaction, Writable};
use super::topics::TopicLook;
use super::{database, server};
use crate::disk::Disk;
use crate::migrate;
use crate::source::admin::Admin;
use crate::source::group::Group;
use crate::source::inspect::{Around, Away, Bounds, Inspector, Obstacle, Shape};
use crate::status::Settings;
use crate::status::look::detached;
use crate::status::read_model::{self, DeadLetters, Generation, Offset};
use crate::status::session::Session;

/// How long the brokers may take to be found, and to answer a question.
const CONTACT: Duration = Duration::from_secs(4);
const ANSWER: Duration = Duration::from_secs(2);
/// And each stage at most, so that all of it ends after about fifteen seconds.
const ASK: Duration = Duration::from_secs(7);
const READ: Duration = Duration::from_secs(4);
const MODEL: Duration = Duration::from_secs(7);
/// Between two looks at offsets that ought to move.
const MOVE: Duration = Duration::from_secs(2);

/// What was seen.
pub(super) struct Looked {
    /// `KAFKA_BROKERS`.
    pub(super) brokers: String,
    /// `security.protocol` in small letters; empty when it is not set.
    pub(super) protocol: String,
    /// The consumer group.
    pub(super) group_name: String,
    /// The database in `DATABASE_URL`.
    pub(super) database_name: String,
    /// Each of the brokers.
    pub(super) addresses: Vec<Address>,
    /// Whether any broker answers.
    pub(super) contact: Result<(), Away>,
    /// The events topic.
    pub(super) events: TopicLook,
    /// The dead letter topic.
    pub(super) dead_letter_topic: TopicLook,
    /// The topic of keys.
    pub(super) access: TopicLook,
    /// The group.
    pub(super) group: Seen<Group>,
    /// Where the partitions of the events topic start and end.
    pub(super) bounds: Seen<BTreeMap<i32, Bounds>>,
    /// The records at the live generation's offsets.
    pub(super) around: Seen<BTreeMap<i32, Around>>,
    /// Whether PostgreSQL can be asked.
    pub(super) session: Result<(), database::Away>,
    /// The schema's version.
    pub(super) schema: Seen<i32>,
    /// The user, and what it may not do.
    pub(super) permissions: Seen<(String, Vec<database::Missing>)>,
    /// Whether the server writes.
    pub(super) writable: Seen<Writable>,
    /// How many are connected.
    pub(super) connections: Seen<Connections>,
    /// Transactions in the way.
    pub(super) transactions: Seen<Vec<Transaction>>,
    /// How far PostgreSQL's clock is ahead of ours, in seconds.
    pub(super) clock: Seen<f64>,
    /// The disk of PostgreSQL's data.
    pub(super) disk: Seen<Disk>,
    /// All generations.
    pub(super) generations: Seen<Vec<Generation>>,
    /// The offsets of all generations.
    pub(super) offsets: Seen<Vec<Offset>>,
    /// The same, [`MOVE`] after the log's ends were read.
    pub(super) moved: Seen<Vec<Offset>>,
    /// What could not be projected.
    pub(super) dead_letters: Seen<DeadLetters>,
}

impl Looked {
    /// The offsets of the live generation.
    pub(super) fn live_offsets(&self) -> Seen<Vec<Offset>> {
        let (all, offsets) = match (&self.generations, &self.offsets) {
            (Ok(all), Ok(offsets)) => (all, offsets),
            (Err(why), _) | (_, Err(why)) => return Err(why.clone()),
        };
        let live = all.iter().find(|it| it.state == "live").map(|it| it.number);
        Ok(offsets.iter().filter(|it| Some(it.generation) == live).cloned().collect())
    }

    /// How far in the future the newest record was made that was read, in seconds.
    pub(super) fn newest_record_ahead(&self) -> f64 {
        let records = self.around.iter().flat_map(BTreeMap::values);
        let glimpses = records.flat_map(|around| [around.before, around.next]);
        let newest = glimpses.flatten().filter_map(|it| it.time_millis).max().unwrap_or(0);
        let ahead = (newest - Utc::now().timestamp_millis()).max(0);
        Duration::from_millis(ahead.unsigned_abs()).as_secs_f64()
    }
}

/// What the brokers say without knowing of any offset.
struct Asked {
    inspector: Inspector,
    shapes: [Seen<Option<Shape>>; 3],
    group: Seen<Group>,
}

/// Looks; takes some seconds when something is behind, and about fifteen at most.
pub(super) async fn look(settings: &Settings, admin: &Admin, access: &str) -> Looked {
    let (addresses, asked, (session, mut looked)) = tokio::join!(
        try_addresses(&settings.kafka.brokers),
        ask(settings, access),
        model(settings, access),
    );
    looked.addresses = addresses;
    match asked {
        Err(away) => looked.contact = Err(away),
        Ok(Asked { inspector, shapes, group }) => {
            looked.contact = Ok(());
            looked.group = group;
            set_topics(&mut looked, admin, shapes).await;
            log(&mut looked, inspector).await;
        }
    }
    second_look(&mut looked, settings, session.as_ref()).await;
    looked
}

async fn ask(settings: &Settings, access: &str) -> Result<Asked, Away> {
    let Settings { kafka, topic, group, .. } = settings.clone();
    let topics = [topic.clone(), topic::dead_letters(&topic), access.to_owned()];
    let asked = detached(ASK, move || {
        let inspector = Inspector::new(&kafka, &topic, &group)
            .map_err(|cause| Away { obstacle: Obstacle::Silence, cause })?;
        inspector.contact(CONTACT)?;
        let shapes = topics.map(|topic| inspector.shape(&topic, ANSWER).map_err(no_answer));
        let group = inspector.group(ANSWER).map_err(no_answer);
        Ok(Asked { inspector, shapes, group })
    });
    let silent = || Err(Away { obstacle: Obstacle::Silence, cause: "no answer".to_owned() });
    asked.await.unwrap_or_else(silent)
}

fn no_answer(why: String) -> Unseen {
    Unseen::failed(
        why,
        "look at the brokers' logs; the addresses in advertised.listeners must be reachable from \
         here",
    )
}

async fn set_topics(looked: &mut Looked, admin: &Admin, shapes: [Seen<Option<Shape>>; 3]) {
    let specs =
        [&looked.events, &looked.dead_letter_topic, &looked.access].map(|look| look.spec.clone());
    let [events, dead_letters, access] = specs;
    let [a, b, c] = shapes;
    (looked.events, looked.dead_letter_topic, looked.access) = tokio::join!(
        TopicLook::new(admin, events, a),
        TopicLook::new(admin, dead_letters, b),
        TopicLook::new(admin, access, c),
    );
}

async fn log(looked: &mut Looked, inspector: Inspector) {
    let partitions = match &looked.events.shape {
        Ok(Some(shape)) => shape.partitions,
        Ok(None) => {
            let why = Unseen::after("there is no events topic");
            (looked.bounds, looked.around) = (Err(why.clone()), Err(why));
            return;
        }
        Err(why) => {
            (looked.bounds, looked.around) = (Err(why.clone()), Err(why.clone()));
            return;
        }
    };
    let live = looked.live_offsets();
    let offsets: Seen<BTreeMap<i32, i64>> =
        live.map(|live| live.iter().map(|it| (it.partition, it.next)).collect());
    let read = detached(READ, move || {
        let bounds = inspector.bounds(partitions, ANSWER).map_err(no_answer);
        let around = match (&bounds, &offsets) {
            (Ok(bounds), Ok(offsets)) => Ok(inspector.around(offsets, bounds, ANSWER)),
            (Err(_), _) => Err(Unseen::after("the log's ends could not be read")),
            (_, Err(why)) => Err(why.clone()),
        };
        (bounds, around)
    });
    let silent = || (Err(no_answer("no answer".to_owned())), Err(Unseen::after("no answer")));
    (looked.bounds, looked.around) = read.await.unwrap_or_else(silent);
}

/// Waits only when something is behind.
async fn second_look(looked: &mut Looked, settings: &Settings, session: Option<&Session>) {
    looked.moved.clone_from(&looked.offsets);
    let (Ok(offsets), Ok(bounds)) = (looked.live_offsets(), &looked.bounds) else { return };
    let behind = |it: &Offset| bounds.get(&it.partition).is_some_and(|log| it.next < log.end);
    if let Some(session) = session.filter(|_| offsets.iter().any(behind)) {
        tokio::time::sleep(MOVE).await;
        let end = Instant::now() + ANSWER;
        looked.moved = within(end, offsets_of(&session.client, &settings.topic)).await;
    }
}

async fn offsets_of(client: &Client, topic: &str) -> Seen<Vec<Offset>> {
    read_model::offsets(client, topic).await.map_err(|error| database::unseen(&error))
}

/// PostgreSQL's half; Kafka's is left unseen.
async fn model(settings: &Settings, access: &str) -> (Option<Session>, Looked) {
    let end = Instant::now() + MODEL;
    let mut looked = unseen(settings, access);
    match Session::open(&settings.database, "leads-consumer doctor").await {
        Ok(session) => {
            looked.session = Ok(());
            ask_server(&mut looked, &session.client, end).await;
            ask_model(&mut looked, &session.client, &settings.topic, end).await;
            (Some(session), looked)
        }
        Err(error) => {
            looked.session = Err(database::Away::of(&error));
            (None, looked)
        }
    }
}

async fn ask_server(looked: &mut Looked, client: &Client, end: Instant) {
    looked.clock = within(end, server::look_clock(client)).await;
    looked.writable = within(end, server::look_writable(client)).await;
    looked.connections = within(end, server::look_connections(client)).await;
    looked.transactions = within(end, server::look_transactions(client)).await;
    looked.disk = within(end, server::look_disk(client)).await;
    looked.schema = within(end, database::look_schema(client)).await;
}

async fn ask_model(looked: &mut Looked, client: &Client, topic: &str, end: Instant) {
    match &looked.schema {
        Ok(found) if *found < migrate::known() => {
            return set_model(looked, &Unseen::after("the schema is not up to date"));
        }
        Ok(_) => {}
        Err(_) => return set_model(looked, &Unseen::after("the schema is not known")),
    }
    let refused = |error: tokio_postgres::Error| database::unseen(&error);
    let generations = async { read_model::generations(client).await.map_err(refused) };
    looked.generations = within(end, generations).await;
    looked.permissions = match &looked.generations {
        Ok(all) => within(end, database::look_permissions(client, all)).await,
        Err(_) => within(end, database::look_permissions(client, &[])).await,
    };
    looked.offsets = within(end, offsets_of(client, topic)).await;
    let dead_letters = async { read_model::dead_letters(client, topic).await.map_err(refused) };
    looked.dead_letters = within(end, dead_letters).await;
}

fn set_model(looked: &mut Looked, why: &Unseen) {
    looked.permissions = Err(why.clone());
    looked.generations = Err(why.clone());
    looked.offsets = Err(why.clone());
    looked.moved = Err(why.clone());
    looked.dead_letters = Err(why.clone());
}

async fn within<T>(end: Instant, looking: impl Future<Output = Seen<T>>) -> Seen<T> {
    match tokio::time::timeout_at(end, looking).await {
        Ok(seen) => seen,
        Err(_) => Err(Unseen::failed(
            "PostgreSQL does not answer in time",
            "look at its log and its load: leads-consumer doctor again",
        )),
    }
}

/// Nothing seen yet.
fn unseen(settings: &Settings, access: &str) -> Looked {
    let Settings { kafka, topic, group, database } = settings;
    let no_kafka = Unseen::after("Kafka can't be asked");
    let no_database = || Unseen::after("PostgreSQL can't be asked");
    let set = |name: &str| kafka.settings.iter().find(|(known, _)| known == name);
    let look = |spec: TopicSpec| TopicLook::unseen(spec, &no_kafka);
    Looked {
        brokers: kafka.brokers.clone(),
        protocol: set("security.protocol").map(|it| it.1.to_lowercase()).unwrap_or_default(),
        group_name: group.clone(),
        database_name: database.config.get_dbname().unwrap_or_default().to_owned(),
        addresses: Vec::new(),
        contact: Ok(()),
        events: look(topic::events(topic, 0)),
        dead_letter_topic: look(topic::dead_letter_spec(topic, 0)),
        access: look(topic::access(access)),
        group: Err(no_kafka.clone()),
        bounds: Err(no_kafka.clone()),
        around: Err(no_kafka.clone()),
        session: Ok(()),
        schema: Err(no_database()),
        permissions: Err(no_database()),
        writable: Err(no_database()),
        connections: Err(no_database()),
        transactions: Err(no_database()),
        clock: Err(no_database()),
        disk: Err(no_database()),
        generations: Err(no_database()),
        offsets: Err(no_database()),
        moved: Err(no_database()),
        dead_letters: Err(no_database()),
    }
}
