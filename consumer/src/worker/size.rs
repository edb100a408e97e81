//! How many records the next batch may have.

/// Halved when a batch took too long: as large again, it would take as long again. Doubled, up to the
/// limit, with each that goes through.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchSize {
    now: usize,
    limit: usize,
}

impl BatchSize {
    pub(super) fn new(limit: usize) -> Self {
        Self { now: limit, limit }
    }

    pub(super) fn records(self) -> usize {
        self.now
    }

    pub(super) fn took_too_long(&mut self, records: usize) {
        if records > 0 {
            self.now = (self.now.min(records) / 2).max(1);
        }
    }

    pub(super) fn went_through(&mut self) {
        self.now = (self.now * 2).min(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_down_to_one_and_grows_back() {
        let mut size = BatchSize::new(1_000);
        size.took_too_long(0);
        assert_eq!(size.records(), 1_000, "it was not a batch that took long");
        size.took_too_long(300);
        assert_eq!(size.records(), 150);
        (0..10).for_each(|_| size.took_too_long(1_000));
        assert_eq!(size.records(), 1);
        (0..10).for_each(|_| size.went_through());
        assert_eq!(size.records(), 1_000);
    }
}
