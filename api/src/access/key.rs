//! The text of an API key: `lk_prod_` or `lk_dev_`, 32 random bytes and a checksum in base62.
//!
//! The checksum is there for scanners that look for leaked secrets: they can tell a key from a
//! random text without asking anybody.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::KeyKind;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Base62 digits of 32 bytes: 62^43 > 2^256.
const SECRET_DIGITS: usize = 43;
/// Base62 digits of a CRC-32: 62^6 > 2^32.
const CHECKSUM_DIGITS: usize = 6;

/// SHA-256 of a key's text: what is stored and compared.
pub type Digest = [u8; 32];

/// A key's text. Shown once, when it is made; never stored, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Makes a key from 32 bytes of a cryptographic random source.
    pub fn from_bytes(kind: KeyKind, bytes: &[u8; 32]) -> Self {
        let body = format!("lk_{}_{}", kind.name(), base62(bytes, SECRET_DIGITS));
        let checksum = crc32fast::hash(body.as_bytes()).to_be_bytes();
        Self(format!("{body}{}", base62(&checksum, CHECKSUM_DIGITS)))
    }

    /// The text, to be shown to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn digest(&self) -> Digest {
        digest(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The digest of a key as it stands in a request.
pub fn digest(text: &[u8]) -> Digest {
    Sha256::digest(text).into()
}

/// `bytes` as one big-endian number in base 62, padded to `digits`.
fn base62(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = vec![b'0'; digits];
    for digit in out.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            // The quotient of a number below 62·256 by 62 is a byte, the remainder below 62.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    out.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `text` has the form of a key, checksum included.
    fn is_well_formed(text: &str) -> bool {
        let Some(rest) = text.strip_prefix("lk_prod_").or_else(|| text.strip_prefix("lk_dev_"))
        else {
            return false;
        };
        if rest.len() != SECRET_DIGITS + CHECKSUM_DIGITS || !rest.is_ascii() {
            return false;
        }
        let (body, checksum) = text.split_at(text.len() - CHECKSUM_DIGITS);
        base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS) == checksum
    }

    #[test]
    fn a_key_has_its_kind_its_length_and_a_checksum() {
        let key = Secret::from_bytes(KeyKind::Prod, &[0xFF; 32]);
        assert!(key.reveal().starts_with("lk_prod_"));
        assert_eq!(key.reveal().len(), "lk_prod_".len() + 49);
        assert!(is_well_formed(key.reveal()));
        let mut typo = key.reveal().to_owned();
        typo.replace_range(20..21, if &typo[20..21] == "a" { "b" } else { "a" });
        assert!(!is_well_formed(&typo));
        assert!(!is_well_formed("lk_prod_"));
    }

    #[test]
    fn base62_is_a_number() {
        assert_eq!(base62(&[0, 61], 3), "00z");
        assert_eq!(base62(&[0, 62], 3), "010");
        assert_eq!(base62(&[1, 0], 3), "048");
    }

    #[test]
    fn debug_keeps_the_secret() {
        assert_eq!(format!("{:?}", Secret::from_bytes(KeyKind::Dev, &[1; 32])), "Secret(…)");
    }
}
