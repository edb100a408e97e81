//! Writes what a release has beside its binaries; `dev/dist` packs it.

use std::path::PathBuf;

use clap::Parser;
use leads_dist::{Release, write};

/// Write man pages, completions, the licences of others and the list of parts.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The folder to write into
    #[arg(long)]
    out: PathBuf,
    /// The commit of the binaries, as they tell it
    #[arg(long)]
    commit: String,
    /// Its day, as in 2026-11-22
    #[arg(long)]
    date: String,
    /// What the binaries are built for, as in x86_64-unknown-linux-gnu
    #[arg(long)]
    target: String,
    /// The compiler's version, as in 1.95.0
    #[arg(long)]
    rustc: String,
}

fn main() -> anyhow::Result<()> {
    let Cli { out, commit, date, target, rustc } = Cli::parse();
    write(&Release { commit, date, target, rustc }, &out)
}
