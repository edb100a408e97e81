//! Where and with what was measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use leads_shared::Timestamp;
use serde::{Deserialize, Serialize};

/// The machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
}

/// What ran on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Versions {
    /// `git describe`.
    pub(crate) leads: String,
    pub(crate) rustc: String,
    pub(crate) librdkafka: String,
    /// As `dev/pom.xml` has it.
    pub(crate) kafka: String,
    pub(crate) postgresql: String,
}

/// The repository's folder.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn value_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

fn first_line_of(command: &mut Command) -> String {
    let output = command.current_dir(repository()).output().ok();
    let text = output.filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&text.unwrap_or_default())
        .lines()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

/// This machine.
pub(crate) fn machine() -> Machine {
    let memory = value_of("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
    Machine {
        cpu: value_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: kib.unwrap_or(0) / 1024,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

/// The versions of all that takes part; `postgresql` as the server says.
pub(crate) fn versions(postgresql: String) -> Versions {
    let pom = fs::read_to_string(repository().join("dev/pom.xml")).unwrap_or_default();
    let kafka = pom.split("<kafka.version>").nth(1).and_then(|rest| rest.split('<').next());
    Versions {
        leads: first_line_of(Command::new("git").args(["describe", "--always", "--dirty"])),
        rustc: first_line_of(Command::new("rustc").arg("--version")),
        librdkafka: crate::kafka::librdkafka_version(),
        kafka: kafka.unwrap_or("unknown").to_owned(),
        postgresql,
    }
}

/// Now, as the contract writes times.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).unwrap_or(0);
    Timestamp::from_unix_millis(millis).map(|time| time.to_string()).unwrap_or_default()
}
