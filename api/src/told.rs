//! Trouble that every try meets again is told once, until it is over.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// More kinds than these are not told: a text that changes with each try is no kind.
const KINDS: usize = 8;

/// The kinds of trouble told since it was last over.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<BTreeSet<String>>);

impl Told {
    /// Whether this kind is to be told now.
    pub(crate) fn is_news(&self, kind: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < KINDS && !told.contains(kind) && told.insert(kind.to_owned())
    }

    /// The kinds told since it was last over.
    pub(crate) fn what(&self) -> Option<String> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds: Vec<_> = told.iter().map(String::as_str).collect();
        if kinds.is_empty() { None } else { Some(kinds.join("; ")) }
    }

    /// The trouble is over; whether any had been told.
    pub(crate) fn over(&self) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::take(&mut *told).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_news_once_until_it_is_over() {
        let told = Told::default();
        assert!(!told.over());
        assert!(told.is_news("refused") && told.is_news("certificate"));
        assert!(!told.is_news("refused") && !told.is_news("certificate"));
        assert!(told.over() && !told.over());
        assert!(told.is_news("refused"));
        assert_eq!((0..100).filter(|n| told.is_news(&n.to_string())).count(), KINDS - 1);
    }
}
