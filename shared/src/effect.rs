//! What an update does to a lead that is there. The projection and the history of a lead follow the
//! same rule; so does whoever subscribes.

use uuid::Uuid;

/// What an update does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateEffect {
    /// It changes the lead.
    Takes,
    /// Nothing: the lead's last effective event is this one.
    AlreadyTaken,
    /// Nothing: it expected another version.
    TooLate,
}

impl UpdateEffect {
    /// Of the update `event_id` that expects `expected_version`, or any, on a lead whose effective
    /// events are `version` in number and `last_event_id` at last.
    pub fn of(
        event_id: Uuid,
        expected_version: Option<u64>,
        version: u64,
        last_event_id: Uuid,
    ) -> Self {
        if event_id == last_event_id {
            Self::AlreadyTaken
        } else if expected_version.is_some_and(|expected| expected != version) {
            Self::TooLate
        } else {
            Self::Takes
        }
    }
}
