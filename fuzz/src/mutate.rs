//! Inputs made of others: what the tests do where libFuzzer isn't to be had. Seeded, so that a run can
//! be repeated.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Longest input that is made; longer ones are for libFuzzer.
const MAX_BYTES: usize = 16 * 1024;
/// The words that libFuzzer is given too.
const DICTIONARY: &str = include_str!("../dictionary.txt");

/// Makes inputs out of a corpus, without end.
pub struct Mutations<'c> {
    random: StdRng,
    corpus: &'c [Vec<u8>],
    words: Vec<Vec<u8>>,
}

impl<'c> Mutations<'c> {
    /// The same seed and corpus give the same inputs.
    pub fn new(seed: u64, corpus: &'c [Vec<u8>]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), corpus, words: words(DICTIONARY) }
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let range = self.range(input.len());
        match self.random.random_range(0..7) {
            0 => self.flip(input),
            1 => drop(input.drain(range)),
            2 => {
                let word = self.words.choose(&mut self.random).cloned().unwrap_or_default();
                drop(input.splice(range.start..range.start, word));
            }
            3 => {
                let word = self.words.choose(&mut self.random).cloned().unwrap_or_default();
                drop(input.splice(range, word));
            }
            // Around the bounds of depth, digits, characters and items.
            4 => {
                let times =
                    *[2, 3, 60, 64, 253, 255, 998, 1_000].choose(&mut self.random).unwrap_or(&2);
                let copies = input[range.clone()].repeat(times);
                drop(input.splice(range, copies));
            }
            5 => {
                let other = self.corpus.choose(&mut self.random).map_or(&[][..], Vec::as_slice);
                let part = other[self.range(other.len())].to_vec();
                drop(input.splice(range, part));
            }
            _ => {
                let other = self.corpus.choose(&mut self.random).map_or(&[][..], Vec::as_slice);
                let from = self.range(other.len()).start;
                input.truncate(range.start);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(MAX_BYTES);
    }

    fn flip(&mut self, input: &mut [u8]) {
        let bit = self.random.random_range(0..8);
        if let Some(byte) =
            input.len().checked_sub(1).map(|last| self.random.random_range(0..=last))
        {
            input[byte] ^= 1 << bit;
        }
    }

    /// A short piece most often, a long one at times.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.random.random_range(0..=length);
        let most = if self.random.random_ratio(1, 8) { length } else { 8 };
        start..self.random.random_range(start..=length.min(start + most))
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut input = self.corpus.choose(&mut self.random)?.clone();
        for _ in 0..self.random.random_range(1..=4) {
            self.mutate(&mut input);
        }
        Some(input)
    }
}

/// The words of a dictionary in libFuzzer's form: one a line in quotes, with `\\`, `\"` and `\xAB`.
fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let quoted = dictionary.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    quoted.map(unescaped).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut word = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            word.push(byte);
            continue;
        }
        if let [b'x', high, low, after @ ..] = rest {
            let digits = [*high, *low];
            let value = std::str::from_utf8(&digits).ok();
            word.extend(value.and_then(|value| u8::from_str_radix(value, 16).ok()));
            rest = after;
        } else if let Some((&byte, after)) = rest.split_first() {
            word.push(byte);
            rest = after;
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_inputs() {
        let corpus = vec![b"{\"code\":\"a\"}".to_vec(), b"[1,2]".to_vec()];
        let some = |seed| Mutations::new(seed, &corpus).take(200).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
    }

    #[test]
    fn words_are_read_as_libfuzzer_reads_them() {
        assert_eq!(words("# none\n\"a\\x00\\\"\\\\u\"\n"), [b"a\0\"\\u".to_vec()]);
        assert!(words(DICTIONARY).len() > 50);
    }
}
