//! Awaiting a transaction while the world goes on.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::source::Event;
use crate::source::consumer::Source;

/// A transaction that a rebalance or a shutdown waits for may take this long, then it is abandoned.
const FINISH_WAIT: Duration = Duration::from_secs(5);

/// Awaits a transaction. A rebalance or a shutdown does not wait for it for ever: then it gives
/// `None`. What happened meanwhile is handed back, to be dealt with after it.
pub(super) async fn finish<T>(
    applying: impl Future<Output = T>,
    source: &mut Source,
    stop: &mut watch::Receiver<bool>,
) -> (Option<T>, Vec<Event>) {
    let mut applying = std::pin::pin!(applying);
    let mut events = Vec::new();
    let mut deadline: Option<Instant> = None;
    loop {
        let late = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now));
        tokio::select! {
            biased;
            result = &mut applying => return (Some(result), events),
            event = source.events.recv() => {
                if matches!(event, Some(Event::Revoked { .. }) | None) {
                    deadline.get_or_insert_with(|| Instant::now() + FINISH_WAIT);
                }
                match event {
                    Some(event) => events.push(event),
                    // The thread has ended: nothing more will come, and recv would spin.
                    None => return (Some(applying.await), events),
                }
            }
            _ = stop.changed(), if deadline.is_none() => {
                deadline = Some(Instant::now() + FINISH_WAIT);
            }
            () = late, if deadline.is_some() => return (None, events),
        }
    }
}
