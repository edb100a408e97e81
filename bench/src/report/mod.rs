//! The figures as tables, and into the page.

mod open;
mod parts;
mod table;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::drain::{CopyRun, Drain, Rebuild};
use crate::freshness::Freshness;
use crate::kafka::ProduceRun;
use crate::lists::Listed;
use crate::load::HttpRun;
use crate::machine::{Machine, Versions};
use crate::open::OpenRun;
use crate::outage::Outage;
use crate::overload::Overload;
use crate::plot::{self, Plot};

pub(crate) use open::{name as open_name, open_tables, outage_part, overload_part};
pub(crate) use parts::{http_table, produce_table};
pub(crate) use table::{count, millis, table, whole};

use parts::drain_table;

const BEGIN: &str = "<!-- figures: written by `leads-bench render`, not by hand -->";
const END: &str = "<!-- end of figures -->";

/// All figures of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    pub(crate) bare: Vec<HttpRun>,
    pub(crate) produce: ProduceRun,
    pub(crate) post: Vec<HttpRun>,
    /// POST with the consumer beside.
    pub(crate) whole: HttpRun,
    pub(crate) freshness: Freshness,
    pub(crate) drain: Drain,
    pub(crate) lists: Vec<Listed>,
    pub(crate) copy: CopyRun,
    pub(crate) rebuild: Rebuild,
    // Runs of before they were measured lack these.
    #[serde(default)]
    pub(crate) open: Vec<OpenRun>,
    #[serde(default)]
    pub(crate) overload: Option<Overload>,
    #[serde(default)]
    pub(crate) outage: Option<Outage>,
}

/// The part of the page that the figures make; with `folder`, where the plots are, seen from the page.
pub(crate) fn page_part(results: &Results, folder: Option<&str>) -> String {
    let Results {
        date,
        machine,
        versions,
        bare,
        produce,
        post,
        whole,
        freshness,
        drain,
        lists,
        copy,
        rebuild,
        open,
        overload,
        outage,
    } = results;
    let image = |plot: Plot| {
        let link = |folder| format!("\n![{}]({folder}/{})\n", plot.about(), plot.file());
        folder.map(link).unwrap_or_default()
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Measured {date} on {} ({} cores, {} MiB, Linux {}): leads {}, {}, librdkafka {}, \
         Kafka {}, PostgreSQL {}.\n",
        machine.cpu,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        versions.leads,
        versions.rustc,
        versions.librdkafka,
        versions.kafka,
        versions.postgresql,
    );
    let runs: Vec<_> = bare.iter().chain(post).chain([whole]).cloned().collect();
    text += "### Taking leads in\n\n";
    text += &http_table(&runs);
    text += &image(Plot::Cost);
    text += "\n";
    text += &produce_table(std::slice::from_ref(produce));
    if !open.is_empty() {
        text += "\n### At a constant rate\n\n";
        text += &open_tables(open);
        text += &image(Plot::Latency);
    }
    if let Some(overload) = overload {
        text += "\n### More than it carries\n\n";
        text += &overload_part(overload);
        text += &image(Plot::Overload);
    }
    if let Some(outage) = outage {
        text += "\n### Without the broker\n\n";
        text += &outage_part(outage);
        text += &image(Plot::Outage);
    }
    let _ = writeln!(
        text,
        "\n### Freshness\n\nAt {} leads a second ({} in all), from the 201 to the 200 of a GET: \
         p50 {} ms, p99 {} ms, at most {} ms. The POSTs themselves: p50 {} ms, p99 {} ms.\n",
        count(freshness.per_second),
        count(freshness.leads),
        millis(freshness.visible_p50_micros),
        millis(freshness.visible_p99_micros),
        millis(freshness.visible_max_micros),
        millis(freshness.post_p50_micros),
        millis(freshness.post_p99_micros),
    );
    text += "### Projecting a backlog\n\n";
    text += &drain_table(drain, rebuild, copy);
    let _ = writeln!(
        text,
        "\nRecords of {} bytes on average. The consumer's time runs from the start of the process; \
         its first commit came after {:.1} s. The rebuild's time goes up to the swap, its indexes \
         included.",
        drain.bytes_a_record, drain.first_commit_seconds,
    );
    let _ = writeln!(text, "\n### Lists of {} leads\n", count(drain.events));
    let rows: Vec<_> = lists
        .iter()
        .map(|list| vec![list.filter.clone(), millis(list.p50_micros), millis(list.p99_micros)])
        .collect();
    text += &table(&["filter", "p50 ms", "p99 ms"], &rows);
    text
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

pub(crate) fn read(path: &Path) -> Result<Results> {
    serde_json::from_str(&read_text(path)?)
        .with_context(|| format!("{} is not what `leads-bench run` writes", path.display()))
}

/// Writes the figures as JSON.
pub(crate) fn write(path: &Path, results: &Results) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(results)? + "\n";
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// Changes a part of a file of figures.
pub(crate) fn update(path: &Path, change: impl FnOnce(&mut Results)) -> Result<()> {
    let mut results = read(path)?;
    change(&mut results);
    write(path, &results)
}

/// Puts the figures of a results file between the page's two markers, and the plots beside the page,
/// into the folder of its name.
pub(crate) fn render(results: &Path, page: &Path) -> Result<()> {
    let figures = read(results)?;
    let folder = page.with_extension("");
    let name = folder.file_name().and_then(|name| name.to_str()).context("a page has a name")?;
    let new = replaced(&read_text(page)?, &page_part(&figures, Some(name)))
        .with_context(|| format!("{} lacks the lines {BEGIN:?} and {END:?}", page.display()))?;
    plot::write(&figures, &folder)?;
    fs::write(page, new).with_context(|| page.display().to_string())
}

/// Prints a figure as JSON or as a table.
pub(crate) fn print_as<T: Serialize>(
    json: bool,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        print!("{}", table(value));
    }
    Ok(())
}

fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_is_between_the_markers_only() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replaced("a", "new"), None);
    }

    #[test]
    fn figures_of_before_the_open_loop_are_read_and_what_they_lack_is_left_out() {
        let path = crate::machine::repository().join("bench/results/latest.json");
        let mut json: serde_json::Value = serde_json::from_str(&read_text(&path).unwrap()).unwrap();
        for later in ["open", "overload", "outage"] {
            json.as_object_mut().unwrap().remove(later);
        }
        let results: Results = serde_json::from_value(json).unwrap();
        let part = page_part(&results, Some("plots"));
        assert!(part.contains("### Taking leads in\n"), "{part}");
        assert!(part.contains("](plots/cost.svg)\n"), "{part}");
        for absent in ["### At a constant rate", "### More than", "### Without the broker"] {
            assert!(!part.contains(absent), "{absent}");
        }
        assert!(!page_part(&results, None).contains(".svg"));
    }
}
