//! Which records a stream is about.

use std::borrow::Cow;

use leads_shared::event::EventType;
use serde::Deserialize;
use uuid::Uuid;

use crate::broker::Attributes;

/// The types of event that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// All, also those that this version does not know.
    All,
    /// Some of those that it knows.
    Some {
        /// `LeadCreated`
        created: bool,
        /// `LeadUpdated`
        updated: bool,
    },
}

impl Types {
    /// Reads names with commas between them; `Err` is the first that is no type's.
    ///
    /// # Errors
    /// A name that is no type's.
    pub fn parse(text: &str) -> Result<Self, &str> {
        let (mut created, mut updated) = (false, false);
        for name in text.split(',') {
            match EventType::ALL.into_iter().find(|known| known.name() == name) {
                Some(EventType::LeadCreated) => created = true,
                Some(EventType::LeadUpdated) => updated = true,
                None => return Err(name),
            }
        }
        Ok(Self::Some { created, updated })
    }

    /// Whether a type was asked for.
    pub fn take(self, event_type: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some { created, updated } => {
                (created && event_type == EventType::LeadCreated.name())
                    || (updated && event_type == EventType::LeadUpdated.name())
            }
        }
    }
}

/// Whose a record is and of which type, by its headers. A record without them is asked itself, as
/// the projection does; `None`: it is no event.
pub(super) fn owner<'a>(
    attributes: &Attributes<'a>,
    value: Option<&'a [u8]>,
) -> Option<(Uuid, Cow<'a, str>)> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        workspace_id: Uuid,
        #[serde(rename = "type", borrow)]
        event_type: Cow<'a, str>,
    }
    let value = value?;
    if let Attributes { workspace_id: Some(workspace), event_type: Some(event_type), .. } =
        attributes
    {
        return Some((*workspace, Cow::Borrowed(event_type)));
    }
    let envelope: Envelope<'a> = serde_json::from_slice(value).ok()?;
    Some((envelope.workspace_id, envelope.event_type))
}
