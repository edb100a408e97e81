//! CPU time and memory of processes, out of `/proc`.
//!
//! Source: `proc_pid_stat(5)`, `proc_pid_status(5)`, `proc_pid_smaps(5)`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Clock ticks a second in `/proc/PID/stat`: `USER_HZ` is 100 on every architecture of Linux that
/// Rust runs on.
const MICROS_A_TICK: u64 = 10_000;

/// A process to look at, with all its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl FromStr for Watched {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|error| format!("{pid}: {error}"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// What a process used while something was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Used {
    /// What the process is.
    pub(crate) name: String,
    /// CPU time, user and system, its children's included.
    pub(crate) cpu_micros: u64,
    /// Peak memory: of one process since it started (`VmHWM`), of a tree the largest of the
    /// samples, shared pages counted once (`Pss`).
    pub(crate) peak_kib: u64,
}

struct Stat {
    parent: u32,
    own_ticks: u64,
    reaped_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the fields that count stand behind the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: ticks(11)? + ticks(12)?,
        reaped_ticks: ticks(13)? + ticks(14)?,
    })
}

/// A process and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut seen = HashSet::from([root]);
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        let more = children.remove(&pid).unwrap_or_default();
        found.extend(more.into_iter().filter(|child| seen.insert(*child)));
    }
    found
}

/// A line such as `VmHWM:  123 kB` of a file below `/proc/PID`.
fn kib(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time that this process alone has used so far, without its children, in µs.
pub(crate) fn own_micros() -> u64 {
    stat(std::process::id()).map_or(0, |stat| stat.own_ticks * MICROS_A_TICK)
}

/// CPU time of a process and its children so far, in µs: those that live, and those that ended
/// and were waited for.
fn tree_micros(pids: &[u32]) -> u64 {
    let ticks = pids.iter().filter_map(|pid| stat(*pid));
    ticks.map(|stat| stat.own_ticks + stat.reaped_ticks).sum::<u64>() * MICROS_A_TICK
}

/// Measures processes from [`Meter::start`] to [`Meter::finish`].
pub(crate) struct Meter {
    watched: Vec<Watched>,
    before: Vec<u64>,
    peak: Vec<u64>,
}

impl Meter {
    pub(crate) fn start(watched: &[Watched]) -> Self {
        let before = watched.iter().map(|process| tree_micros(&tree(process.pid))).collect();
        let mut meter = Self { watched: watched.to_vec(), before, peak: vec![0; watched.len()] };
        meter.sample();
        meter
    }

    /// Looks at the memory of trees; to be called now and then, for it is not cheap.
    pub(crate) fn sample(&mut self) {
        for (process, peak) in self.watched.iter().zip(&mut self.peak) {
            let pids = tree(process.pid);
            let now = match pids.as_slice() {
                [pid] => kib(*pid, "status", "VmHWM").unwrap_or(0),
                pids => pids.iter().filter_map(|pid| kib(*pid, "smaps_rollup", "Pss")).sum(),
            };
            *peak = (*peak).max(now);
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Used> {
        let cpu: Vec<u64> =
            self.watched.iter().map(|process| tree_micros(&tree(process.pid))).collect();
        self.sample();
        let Self { watched, before, peak } = self;
        watched
            .into_iter()
            .zip(cpu)
            .zip(before)
            .zip(peak)
            .map(|(((process, after), before), peak_kib)| Used {
                name: process.name,
                cpu_micros: after.saturating_sub(before),
                peak_kib,
            })
            .collect()
    }
}

/// Measures processes between two moments, sampling twice a second. Blocks.
pub(crate) fn watch(watched: &[Watched], from: Instant, to: Instant) -> Vec<Used> {
    const SAMPLE: Duration = Duration::from_millis(500);
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    thread::sleep(left(from));
    let mut meter = Meter::start(watched);
    while left(to) > SAMPLE {
        thread::sleep(SAMPLE);
        meter.sample();
    }
    thread::sleep(left(to));
    meter.finish()
}

/// Memory that a process alone has now (`VmRSS`), in KiB.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    kib(pid, "status", "VmRSS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process_and_its_children() {
        let me = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pids = tree(me);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pids.starts_with(&[me]) && pids.contains(&child.id()), "{pids:?}");
        assert!(kib(me, "status", "VmHWM").unwrap() > 1_000);
        assert!(kib(me, "smaps_rollup", "Pss").unwrap() > 100);
    }

    #[test]
    fn reads_name_and_pid() {
        let expected = Watched { name: "api".to_owned(), pid: 7 };
        assert_eq!("api=7".parse(), Ok(expected));
        assert!("7".parse::<Watched>().is_err());
        assert!("api=x".parse::<Watched>().is_err());
    }
}
