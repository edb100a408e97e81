//! A key as it stands in the access topic.

use std::fmt;
use std::str::FromStr;

use leads_shared::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The whole state of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRecord {
    /// The key's id; the record's key. Stays when the key is rotated.
    pub id: Uuid,
    /// The workspace whose leads it opens.
    pub workspace_id: Uuid,
    /// A name for people.
    pub name: Option<String>,
    /// Production or development.
    pub kind: KeyKind,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Requests a minute and instance; 0 is none.
    pub rate_limit: u32,
    /// SHA-256 of the key's text, in hexadecimal.
    pub sha256: String,
    /// When the key was first made.
    pub created_at: Timestamp,
    /// When its text was last replaced.
    #[serde(default)]
    pub rotated_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

impl AccessRecord {
    /// The digest that `sha256` writes; `None` when it is none.
    pub fn digest(&self) -> Option<super::Digest> {
        let text = self.sha256.as_bytes();
        let mut digest = [0; 32];
        // `from_str_radix` takes a sign too.
        if text.len() != 64 || !text.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(digest)
    }

    /// Puts a new digest in.
    pub fn set_digest(&mut self, digest: &super::Digest) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let halves = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        self.sha256 = halves.map(|half| char::from(DIGITS[usize::from(half)])).collect();
    }
}

/// Production or development: shows in the key's text and decides the default limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `lk_prod_…`, 1,000 requests a minute by default.
    Prod,
    /// `lk_dev_…`, 100 requests a minute by default.
    Dev,
}

impl KeyKind {
    /// The name in the key's text and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prod => "prod",
            Self::Dev => "dev",
        }
    }

    /// Requests a minute when none are given.
    pub fn default_rate_limit(self) -> u32 {
        match self {
            Self::Prod => 1_000,
            Self::Dev => 100,
        }
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Create and update leads.
    #[serde(rename = "leads:write")]
    LeadsWrite,
    /// Read leads.
    #[serde(rename = "leads:read")]
    LeadsRead,
    /// See how the whole system stands, its keys and dead letters included: of all workspaces, and
    /// never a lead.
    #[serde(rename = "system:read")]
    SystemRead,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 3] = [Self::LeadsWrite, Self::LeadsRead, Self::SystemRead];

    /// The name in records, options and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeadsWrite => "leads:write",
            Self::LeadsRead => "leads:read",
            Self::SystemRead => "system:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| format!("unknown scope {text:?}; known are {known}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits_and_nothing_else() {
        let record = |sha256: &str| AccessRecord {
            id: Uuid::nil(),
            workspace_id: Uuid::nil(),
            name: None,
            kind: KeyKind::Dev,
            scopes: Vec::new(),
            rate_limit: 0,
            sha256: sha256.to_owned(),
            created_at: Timestamp::from_unix_millis(0).unwrap(),
            rotated_at: None,
            revoked_at: None,
        };
        assert_eq!(record(&"aB".repeat(32)).digest(), Some([0xAB; 32]));
        for bad in ["", "ab", &"+b".repeat(32), &"a ".repeat(32), &"é".repeat(32)] {
            assert_eq!(record(bad).digest(), None, "{bad}");
        }
    }
}
