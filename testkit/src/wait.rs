//! Waiting for a condition, with a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long the kit itself waits for what should take seconds at most. Generous: the machine that
/// runs the tests may be busy, and a wait that ends well costs nothing.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Time between two probes.
const STEP: Duration = Duration::from_millis(10);

/// What a probe of [`eventually`] may answer.
pub trait Outcome {
    /// What the condition gives once it holds.
    type Value;

    /// The value, or in words why it isn't there yet.
    ///
    /// # Errors
    /// The words, when the condition doesn't hold yet.
    fn settle(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();
    fn settle(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    type Value = T;
    fn settle(self) -> Result<T, String> {
        self.map_err(|state| format!("{state:?}"))
    }
}

/// Probes until the condition holds, and gives its value. The probe answers a `bool`, an `Option`,
/// or a `Result` whose error is the state found, to be shown when the time is over.
///
/// # Panics
/// When `deadline` is over, with `what` and the last state.
pub async fn eventually<P, O>(deadline: Duration, what: &str, mut probe: P) -> O::Value
where
    P: AsyncFnMut() -> O,
    O: Outcome,
{
    let end = Instant::now() + deadline;
    let mut last = "no answer".to_owned();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(STEP), probe()).await.map(Outcome::settle) {
            Ok(Ok(value)) => return value,
            Ok(Err(state)) => last = state,
            Err(_) => {}
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}; last state: {last}");
        tokio::time::sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_until_the_condition_holds() {
        let mut tries = 0;
        let value = eventually(DEADLINE, "three", async || {
            tries += 1;
            (tries == 3).then_some(tries)
        });
        assert_eq!(value.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "the door is open; last state: \"shut\"")]
    async fn says_what_it_waited_for_and_what_it_saw() {
        let probe = async || Err::<(), _>("shut");
        eventually(Duration::from_millis(30), "the door is open", probe).await;
    }
}
