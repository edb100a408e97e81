//! A look at other servers that all who ask within a moment share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a look is good for. A console that asks each second finds a new one each time.
const FRESH: Duration = Duration::from_millis(900);
/// A look is good for as many times the time that it took, so that it keeps a server busy for a
/// twentieth of the time at most.
const SPARING: u32 = 20;
/// But for no longer than this.
const OLDEST: Duration = Duration::from_secs(5);

/// The last look, and whoever waits for the next.
#[derive(Debug)]
pub(super) struct Shared<T>(Arc<Mutex<Option<Last<T>>>>);

#[derive(Debug)]
struct Last<T> {
    seen: Arc<T>,
    fresh_until: Instant,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// What was seen a moment ago, or what `look` sees now. One looks at a time, and to its end, also
    /// when who asked goes away. `None` when the look was cut off: the process is ending.
    pub(super) async fn get<F>(&self, look: impl FnOnce() -> F) -> Option<Arc<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(Last { seen, fresh_until }) = &*last
            && Instant::now() < *fresh_until
        {
            return Some(Arc::clone(seen));
        }
        let look = look();
        let looking = tokio::spawn(async move {
            let started = Instant::now();
            let seen = Arc::new(look.await);
            let fresh_until = started + good_for(started.elapsed());
            *last = Some(Last { seen: Arc::clone(&seen), fresh_until });
            seen
        });
        looking.await.ok()
    }
}

/// How long a look that took so long is good for.
fn good_for(took: Duration) -> Duration {
    (took * SPARING).clamp(FRESH, OLDEST)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn many_at_once_share_one_look() {
        let count = Arc::new(AtomicU32::new(0));
        let shared = Shared::default();
        let ask = || {
            let count = Arc::clone(&count);
            shared.get(|| async move { count.fetch_add(1, Ordering::Relaxed) })
        };
        let seen = join_all((0..50).map(|_| ask())).await;
        assert!(seen.iter().all(|seen| seen.as_deref() == Some(&0)), "{seen:?}");
    }

    #[tokio::test]
    async fn what_is_no_longer_fresh_is_looked_at_again() {
        let shared = Shared::default();
        assert_eq!(shared.get(|| async { 1 }).await.as_deref(), Some(&1));
        if let Some(last) = &mut *shared.0.lock().await {
            last.fresh_until = Instant::now();
        }
        assert_eq!(shared.get(|| async { 2 }).await.as_deref(), Some(&2));
    }

    #[test]
    fn a_look_that_takes_long_is_good_for_longer() {
        assert_eq!(good_for(Duration::from_millis(3)), FRESH);
        assert_eq!(good_for(Duration::from_millis(100)), Duration::from_secs(2));
        assert_eq!(good_for(Duration::from_secs(4)), OLDEST);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_look_to_the_others() {
        let shared = Shared::default();
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let look = {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            || async move {
                begun.notify_one();
                go_on.notified().await;
                1
            }
        };
        tokio::select! {
            _ = shared.get(look) => panic!("nothing was seen yet"),
            () = begun.notified() => {}
        }
        let waiting = shared.get(|| async { 2 });
        go_on.notify_one();
        yield_now().await;
        assert_eq!(waiting.await.as_deref(), Some(&1));
    }
}
