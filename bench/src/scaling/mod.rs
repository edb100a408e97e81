//! The tables of docs/scaling.md: what was measured, and what follows from it by multiplication.

mod costs;
mod tables;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::report;
use crate::scale;

use costs::Costs;

/// Options of `leads-bench scaling`.
#[derive(Args)]
pub(crate) struct Options {
    /// What `run` wrote.
    #[arg(long, default_value = "bench/results/latest.json")]
    results: PathBuf,
    /// What `scale` wrote.
    #[arg(long, default_value = "bench/results/scaling.json")]
    scale: PathBuf,
    /// The page, with two lines around each table.
    #[arg(long, default_value = "docs/scaling.md")]
    page: PathBuf,
    /// Write nothing; fail if the page says anything else.
    #[arg(long)]
    check: bool,
}

/// Prints the tables, and puts them into the page.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { results, scale, page, check } = options;
    let tables = all(results, scale)?;
    let old = report::read_text(page)?;
    let new = replaced(&old, &tables).with_context(|| page.display().to_string())?;
    if *check {
        ensure!(
            old == new,
            "{} is not what follows from {} and {}: leads-bench scaling",
            page.display(),
            results.display(),
            scale.display()
        );
        return Ok(());
    }
    for (name, text) in &tables {
        println!("{name}\n\n{text}");
    }
    fs::write(page, new).with_context(|| page.display().to_string())
}

/// Each table and its name.
fn all(results: &Path, scale: &Path) -> Result<Vec<(&'static str, String)>> {
    let (run, scale) = (report::read(results)?, scale::read(scale)?);
    let costs = Costs::of(&run, &scale)?;
    Ok(vec![
        ("costs", costs.table()),
        ("cores", tables::cores(&costs)),
        ("machines", tables::machines(&costs)),
        ("network", tables::network(&costs)),
        ("disk", tables::disk(&costs)),
        ("rebuild", tables::rebuild(&costs)),
        ("partitions", tables::partitions(&scale)),
        ("apis", tables::apis(&scale)),
        ("consumers", tables::consumers(&scale)),
        ("brokers", tables::brokers(&scale)),
        ("codecs", tables::codecs(&scale)),
    ])
}

fn begin(name: &str) -> String {
    format!("<!-- {name}: written by `leads-bench scaling`, not by hand -->\n")
}

fn end(name: &str) -> String {
    format!("<!-- end of {name} -->\n")
}

/// The page with each table between its two lines.
fn replaced(page: &str, tables: &[(&str, String)]) -> Result<String> {
    let mut page = page.to_owned();
    for (name, table) in tables {
        let (begin, end) = (begin(name), end(name));
        let lacks = || format!("no lines {begin:?} and {end:?}");
        let from = page.find(&begin).with_context(lacks)? + begin.len();
        let to = from + page[from..].find(&end).with_context(lacks)?;
        page.replace_range(from..to, table);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::repository;

    #[test]
    fn the_page_is_what_follows_from_the_figures() {
        let file = |name: &str| repository().join(name);
        run(&Options {
            results: file("bench/results/latest.json"),
            scale: file("bench/results/scaling.json"),
            page: file("docs/scaling.md"),
            check: true,
        })
        .unwrap();
    }

    #[test]
    fn a_table_stands_between_its_lines() {
        let page = format!("a\n{}old\n{}b\n", begin("t"), end("t"));
        let tables = [("t", "new\n".to_owned())];
        let expected = format!("a\n{}new\n{}b\n", begin("t"), end("t"));
        assert_eq!(replaced(&page, &tables).unwrap(), expected);
        assert!(replaced("a\n", &tables).is_err());
    }
}
