//! Ids that a retry finds again.

use uuid::Uuid;

/// An idempotency key: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The header's value is no idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to 255 visible ASCII characters (0x21 to 0x7E)")]
pub struct InvalidKey;

impl IdempotencyKey {
    /// Reads the header's value.
    ///
    /// # Errors
    /// When it is empty, longer than 255 bytes, or holds anything but visible ASCII.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidKey> {
        let text = std::str::from_utf8(value).map_err(|_| InvalidKey)?;
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=255).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidKey)
        }
    }

    /// The key of the item at `index` of a batch that was sent under this one.
    #[must_use]
    pub fn of_item(&self, index: usize) -> Self {
        Self(format!("{}:{index}", self.0))
    }

    /// The id of the lead that this key creates in a workspace: UUIDv5, the workspace as namespace.
    pub fn lead_id(&self, workspace_id: Uuid) -> Uuid {
        Uuid::new_v5(&workspace_id, self.0.as_bytes())
    }

    /// The id of the update that this key makes of a lead that is expected to have this version:
    /// UUIDv5, the lead as namespace. With another expectation it is another update: one that came too
    /// late says nothing of the next. No key has a space, so no update has the id of the creation.
    pub fn update_event_id(&self, lead_id: Uuid, expected_version: Option<u64>) -> Uuid {
        let expected =
            expected_version.map_or_else(|| "*".to_owned(), |version| version.to_string());
        Uuid::new_v5(&lead_id, format!("LeadUpdated {expected} {}", self.0).as_bytes())
    }
}

/// The id of the creation event of a lead whose id came from an idempotency key: a retry publishes
/// the same event again, and subscribers drop it by its id.
pub fn creation_event_id(lead_id: Uuid) -> Uuid {
    Uuid::new_v5(&lead_id, b"LeadCreated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_ascii_of_bounded_length() {
        for bad in [&b""[..], b"a b", b"\t", "é".as_bytes(), &[b'a'; 256]] {
            assert_eq!(IdempotencyKey::parse(bad), Err(InvalidKey));
        }
        assert!(IdempotencyKey::parse(&[b'~'; 255]).is_ok());
    }

    #[test]
    fn the_same_key_gives_the_same_id_in_one_workspace_only() {
        let key = IdempotencyKey::parse(b"order-1").unwrap();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(key.lead_id(a), key.lead_id(a));
        assert_ne!(key.lead_id(a), key.lead_id(b));
        let created = IdempotencyKey::parse(b"LeadCreated").unwrap();
        assert_ne!(created.update_event_id(a, None), creation_event_id(a));
        assert_eq!(key.update_event_id(a, Some(3)), key.update_event_id(a, Some(3)));
        assert_ne!(key.update_event_id(a, Some(3)), key.update_event_id(a, Some(4)));
    }
}
