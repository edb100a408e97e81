//! The figures as SVG, drawn with plotters; decision 17 says why so.

mod axis;
mod draw;
mod figures;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::Results;

/// A plot of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plot {
    /// Throughput and CPU time a lead, by connections.
    Cost,
    /// Latencies of open loops by percentile.
    Latency,
    /// What is taken and refused of more load than is carried.
    Overload,
    /// Answers and memory while the broker is away.
    Outage,
}

impl Plot {
    const ALL: [Self; 4] = [Self::Cost, Self::Latency, Self::Overload, Self::Outage];

    /// Its name in the folder of plots.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Cost => "cost.svg",
            Self::Latency => "latency.svg",
            Self::Overload => "overload.svg",
            Self::Outage => "outage.svg",
        }
    }

    /// For those who can't see it.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Cost => "Leads a second and CPU time a lead over the number of connections",
            Self::Latency => "Latency by percentile at constant rates",
            Self::Overload => "Leads taken and requests refused over the rate that was offered",
            Self::Outage => "Answers a second and memory while the broker is away",
        }
    }
}

/// Writes the plots of all that was measured; those of what wasn't are removed.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for plot in Plot::ALL {
        let path = folder.join(plot.file());
        match figures::figure(plot, results) {
            Some(figure) => {
                let svg = draw::svg(&figure).with_context(|| plot.file().to_owned())?;
                fs::write(&path, svg).with_context(|| path.display().to_string())?;
            }
            None if path.exists() => {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
            None => {}
        }
    }
    Ok(())
}
