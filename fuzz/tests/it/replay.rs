//! What libFuzzer found once holds for ever, and some thousand mutations of it hold too.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leads_fuzz::mutate::Mutations;
use leads_fuzz::targets::{ALL, Target};

/// Mutations of each target.
const INPUTS: usize = 4_000;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("its bytes")).collect()
}

/// `FUZZ_SEED`, or another one every time.
fn seed() -> u64 {
    if let Ok(seed) = std::env::var("FUZZ_SEED") {
        return seed.parse().expect("FUZZ_SEED is a number");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}

#[track_caller]
fn holds(target: Target, input: &[u8], origin: &str) {
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("{origin}: {}", input.escape_ascii());
        std::panic::resume_unwind(cause);
    }
}

#[track_caller]
fn replay(name: &str) {
    let (_, target) = ALL.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus(name);
    assert!(corpus.len() >= 5, "{} inputs in the corpus of {name}", corpus.len());
    for input in &corpus {
        holds(*target, input, "in the corpus");
    }
    let seed = seed();
    for input in Mutations::new(seed, &corpus).take(INPUTS) {
        holds(*target, &input, &format!("FUZZ_SEED={seed} gives {name}"));
    }
}

#[test]
fn create() {
    replay("create");
}

#[test]
fn changes() {
    replay("changes");
}

#[test]
fn item() {
    replay("item");
}

#[test]
fn batch() {
    replay("batch");
}

#[test]
fn envelope() {
    replay("envelope");
}

#[test]
fn query() {
    replay("query");
}

#[test]
fn headers() {
    replay("headers");
}

#[test]
fn access() {
    replay("access");
}
