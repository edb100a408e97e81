//! The keys that open something now, kept true by following the access topic.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::{AccessRecord, Digest, Scope};
use crate::broker::{Followed, KafkaConfig, follow};
use crate::in_flight::Share;
use crate::rate_limit::Window;

/// A key that is neither revoked nor replaced.
#[derive(Debug)]
pub struct ActiveKey {
    /// The key's id.
    pub id: Uuid,
    /// The workspace it opens.
    pub workspace_id: Uuid,
    /// Its requests of the present minute.
    pub window: Window,
    /// What it has in flight; stays the same when the key is rotated.
    pub share: Arc<Share>,
    write: bool,
    read: bool,
    system: bool,
    /// Unix milliseconds of the last use; 0 when there was none since `take_last_use`.
    last_use: AtomicI64,
}

impl ActiveKey {
    fn of(record: &AccessRecord, share: Arc<Share>) -> Self {
        Self {
            id: record.id,
            workspace_id: record.workspace_id,
            window: Window::new(record.rate_limit),
            share,
            write: record.scopes.contains(&Scope::LeadsWrite),
            read: record.scopes.contains(&Scope::LeadsRead),
            system: record.scopes.contains(&Scope::SystemRead),
            last_use: AtomicI64::new(0),
        }
    }

    /// Whether the key may do what `scope` names.
    pub fn allows(&self, scope: Scope) -> bool {
        match scope {
            Scope::LeadsWrite => self.write,
            Scope::LeadsRead => self.read,
            Scope::SystemRead => self.system,
        }
    }

    /// Notes a use at `unix_millis`.
    pub fn used(&self, unix_millis: i64) {
        self.last_use.store(unix_millis, Ordering::Relaxed);
    }
}

/// The table of active keys, by the digest of their text.
#[derive(Debug, Default)]
pub struct Directory {
    loaded: AtomicBool,
    keys: RwLock<Keys>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Keys {
    by_digest: HashMap<Digest, Arc<ActiveKey>>,
    digests: HashMap<Uuid, Digest>,
    /// Every key, revoked ones too. By id, which is by age.
    records: BTreeMap<Uuid, Arc<AccessRecord>>,
}

/// A page of all keys, the newest first.
#[derive(Debug)]
pub struct KeyPage {
    /// A key, and when it was used since that was last written down, in Unix milliseconds.
    pub keys: Vec<(Arc<AccessRecord>, Option<i64>)>,
    /// Whether more follow.
    pub more: bool,
    /// How many keys there are in all.
    pub total: usize,
}

impl Directory {
    /// Whether everything that was in the topic at the start has been read.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Relaxed)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).by_digest.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key whose text has this digest.
    pub fn find(&self, digest: &Digest) -> Option<Arc<ActiveKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.by_digest.get(digest).cloned()
    }

    /// The newest state of a key, revoked or not.
    pub fn record(&self, id: Uuid) -> Option<Arc<AccessRecord>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.records.get(&id).cloned()
    }

    /// At most `limit` keys older than `before`, revoked ones too.
    pub fn page(&self, before: Option<Uuid>, limit: usize) -> KeyPage {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let bound = before.map_or(Bound::Unbounded, Bound::Excluded);
        let mut older = keys.records.range((Bound::Unbounded, bound)).rev();
        let page = older.by_ref().take(limit);
        let page = page.map(|(id, record)| (Arc::clone(record), keys.last_use(*id))).collect();
        KeyPage { keys: page, more: older.next().is_some(), total: keys.records.len() }
    }

    /// Changes whenever a key is made, replaced or revoked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Key ids and the time of their last use, of those used since the last call.
    pub fn take_last_uses(&self) -> Vec<(Uuid, i64)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let uses =
            keys.by_digest.values().map(|key| (key.id, key.last_use.swap(0, Ordering::Relaxed)));
        uses.filter(|(_, at)| *at != 0).collect()
    }

    /// Takes in the newest state of a key. What was opened by an older text of it no longer is.
    pub fn apply(&self, record: &AccessRecord) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.records.get(&record.id).is_some_and(|known| **known == *record) {
            // Its window of requests and its last use stay as they are.
            return;
        }
        let before = keys.forget(record.id);
        keys.records.insert(record.id, Arc::new(record.clone()));
        if let (None, Some(digest)) = (record.revoked_at, record.digest()) {
            keys.digests.insert(record.id, digest);
            let share = before.map(|key| Arc::clone(&key.share)).unwrap_or_default();
            keys.by_digest.insert(digest, Arc::new(ActiveKey::of(record, share)));
        }
        drop(keys);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn take_in(&self, followed: Followed<'_>) {
        match followed {
            Followed::CaughtUp => {
                self.loaded.store(true, Ordering::Relaxed);
                tracing::info!("keys are loaded");
            }
            Followed::Record(_, Some(value)) => match serde_json::from_slice(value) {
                Ok(record) => self.apply(&record),
                // Never the text of the error: it may quote the record.
                Err(_) => {
                    tracing::warn!("a record of the access topic can't be read; it is passed over");
                }
            },
            Followed::Record(id, None) => {
                if let Some(id) = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()) {
                    let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                    keys.forget(id);
                    keys.records.remove(&id);
                    drop(keys);
                    self.changes.send_modify(|changes| *changes += 1);
                }
            }
        }
    }
}

impl Keys {
    fn forget(&mut self, id: Uuid) -> Option<Arc<ActiveKey>> {
        self.digests.remove(&id).and_then(|digest| self.by_digest.remove(&digest))
    }

    fn last_use(&self, id: Uuid) -> Option<i64> {
        let key = self.by_digest.get(self.digests.get(&id)?)?;
        Some(key.last_use.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }
}

/// Follows the access topic on a thread of its own until `stop` is set.
///
/// # Errors
/// When the thread can't be started.
pub fn spawn_follower(
    directory: Arc<Directory>,
    config: KafkaConfig,
    topic: String,
    stop: Arc<AtomicBool>,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("access-follower".to_owned()).spawn(move || {
        let take_in = |followed: Followed<'_>| {
            directory.take_in(followed);
            true
        };
        while let Err(error) = follow(&config, &topic, &stop, take_in) {
            tracing::error!(%error, "the keys can't be followed; trying again");
            thread::sleep(Duration::from_secs(1));
        }
    })
}

#[cfg(test)]
mod tests {
    use leads_shared::Timestamp;

    use super::super::{KeyKind, Secret};
    use super::*;

    fn record(secret: &Secret) -> AccessRecord {
        let mut record = AccessRecord {
            id: Uuid::from_u128(7),
            workspace_id: Uuid::from_u128(8),
            name: None,
            kind: KeyKind::Dev,
            scopes: vec![Scope::LeadsRead],
            rate_limit: 1,
            sha256: String::new(),
            created_at: Timestamp::from_unix_millis(0).unwrap(),
            rotated_at: None,
            revoked_at: None,
        };
        record.set_digest(&secret.digest());
        record
    }

    #[test]
    fn rotation_and_revocation_end_the_old_text_at_once() {
        let directory = Directory::default();
        let (old, new) = (
            Secret::from_bytes(KeyKind::Dev, &[1; 32]),
            Secret::from_bytes(KeyKind::Dev, &[2; 32]),
        );
        directory.apply(&record(&old));
        let key = directory.find(&old.digest()).unwrap();
        assert!(key.allows(Scope::LeadsRead) && !key.allows(Scope::LeadsWrite));

        directory.apply(&record(&new));
        assert!(directory.find(&old.digest()).is_none());
        let rotated = directory.find(&new.digest()).unwrap();
        assert!(Arc::ptr_eq(&rotated.share, &key.share), "a new text makes no new share");

        directory.apply(&record(&new));
        let again = directory.find(&new.digest()).unwrap();
        assert!(Arc::ptr_eq(&rotated, &again), "the same record begins no new window");

        let mut revoked = record(&new);
        revoked.revoked_at = Some(revoked.created_at);
        directory.apply(&revoked);
        assert!(directory.find(&new.digest()).is_none());
    }
}
