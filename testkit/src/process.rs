//! A running binary: its log, its signals, its end.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::children::{Guard, signal};
use crate::{DEADLINE, eventually};

/// Lines of a process's output that a failing test shows.
const TAIL: usize = 40;
/// Variables that a started binary takes over; everything else is set by the kit or the test.
const INHERITED: &[&str] =
    &["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LLVM_PROFILE_FILE"];

/// One line that a process wrote to stdout or stderr.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The line as written.
    pub text: String,
    /// The same as JSON, when it is a JSON object.
    pub json: Option<Value>,
}

impl LogLine {
    fn new(text: String) -> Self {
        let json = serde_json::from_str(&text).ok().filter(Value::is_object);
        Self { text, json }
    }

    /// A field of the event, whether the log nests them under `fields` or not.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let json = self.json.as_ref()?;
        json.get("fields").and_then(|fields| fields.get(name)).or_else(|| json.get(name))
    }

    /// A field of the event, when it is a string.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_str()
    }

    /// The event's message; empty for a line that is no JSON.
    pub fn message(&self) -> &str {
        self.str("message").unwrap_or_default()
    }

    /// `ERROR`, `WARN`, `INFO`, …; empty for a line that is no JSON.
    pub fn level(&self) -> &str {
        self.str("level").unwrap_or_default()
    }
}

/// A started binary. Dropped: killed and reaped; in a failing test its last lines are shown. It
/// does not outlive a killed test runner.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    lines: Arc<Mutex<Vec<LogLine>>>,
    _guard: Guard,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the binaries under test, found beside the test executable; `LEADS_BIN_DIR` overrides.
///
/// # Panics
/// When it isn't there.
pub(crate) fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("LEADS_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("the test knows its own path");
            // target/debug/deps/it-0123456789abcdef → target/debug
            test.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --workspace` first (`make test` does)",
        path.display()
    );
    path
}

/// A command for one of the binaries with no more of the environment than `env`.
pub(crate) fn command(name: &str, args: &[&str], env: &[(String, String)]) -> Command {
    command_of(&binary(name), args, env)
}

/// The same for any other program.
pub(crate) fn command_of(program: &Path, args: &[&str], env: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.args(args).env_clear().envs(inherited).env("RUST_BACKTRACE", "1");
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command
}

impl Process {
    pub(crate) fn spawn(name: &str, args: &[&str], env: &[(String, String)]) -> Self {
        Self::start(name, command(name, args, env))
    }

    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the runner; the guard sees to this one.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let pid = child.id();
        let guard = Guard::new("kill -s KILL \"$1\"", &[&pid.to_string()]);
        let lines = Arc::default();
        capture(child.stdout.take(), Arc::clone(&lines));
        capture(child.stderr.take(), Arc::clone(&lines));
        Self { name: name.to_owned(), pid, child: Mutex::new(child), lines, _guard: guard }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The most memory that it ever held, in bytes; `None` where the system doesn't tell.
    pub fn peak_memory(&self) -> Option<usize> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// What it wrote to stdout and stderr so far.
    pub fn logs(&self) -> Vec<LogLine> {
        locked(&self.lines).clone()
    }

    /// The first line, written already or still to come, that `wanted` holds for.
    ///
    /// # Panics
    /// After [`DEADLINE`], and when the process has ended without such a line.
    pub async fn wait_for_log(&self, wanted: impl Fn(&LogLine) -> bool) -> LogLine {
        let what = format!("the wanted log line of {}", self.name);
        eventually(DEADLINE, &what, async || {
            // Asked first: once it has ended, the lines read after that are all there will be.
            let ended = self.exit_status();
            let line = self.logs().into_iter().find(|line| wanted(line));
            assert!(
                line.is_some() || ended.is_none() || !self.output_closed(),
                "{} has ended ({}) without the wanted log line:\n{}",
                self.name,
                ended.map(|status| status.to_string()).unwrap_or_default(),
                self.tail()
            );
            line
        })
        .await
    }

    /// The exit status, once it has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        locked(&self.child).try_wait().expect("a child can be waited for")
    }

    /// Waits for its end and for the rest of its output.
    ///
    /// # Panics
    /// After `deadline`.
    pub async fn wait_exit(&self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(deadline, &what, async || {
            self.exit_status().filter(|_| self.output_closed()).ok_or_else(|| self.tail())
        })
        .await
    }

    /// SIGTERM, and the exit status.
    ///
    /// # Panics
    /// When it hasn't ended after [`DEADLINE`].
    pub async fn terminate(&self) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit(DEADLINE).await
    }

    /// SIGKILL, and its end.
    pub async fn kill(&self) {
        self.signal("KILL");
        let status = self.wait_exit(DEADLINE).await;
        assert!(status.signal() == Some(9), "{} had ended before: {status}", self.name);
    }

    /// SIGSTOP: the process stands still and holds on to all it has.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Any signal, by its name without SIG.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn signal(&self, name: &str) {
        // Under the lock nothing else can reap it, so the id can't have become another process's.
        let mut child = locked(&self.child);
        let ended = child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "{} has ended: {ended:?}\n{}", self.name, self.tail());
        signal(self.pid, name);
    }

    /// The reading threads hold a clone each; when they are gone, so is the output.
    fn output_closed(&self) -> bool {
        Arc::strong_count(&self.lines) == 1
    }

    fn tail(&self) -> String {
        let lines = locked(&self.lines);
        let from = lines.len().saturating_sub(TAIL);
        let texts: Vec<_> = lines[from..].iter().map(|line| line.text.as_str()).collect();
        texts.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = child.try_wait().ok().flatten();
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let state = ended.map_or("running".to_owned(), |status| status.to_string());
            eprintln!("--- {} ({state}), its last lines:\n{}\n---", self.name, self.tail());
        }
    }
}

fn capture(stream: Option<impl Read + Send + 'static>, lines: Arc<Mutex<Vec<LogLine>>>) {
    let mut reader = BufReader::new(stream.expect("the stream is piped"));
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            locked(&lines).push(LogLine::new(text));
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_nested_and_flat() {
        for text in [
            r#"{"level":"INFO","fields":{"message":"listening","api":"127.0.0.1:1"}}"#,
            r#"{"level":"INFO","message":"listening","api":"127.0.0.1:1"}"#,
        ] {
            let line = LogLine::new(text.to_owned());
            assert_eq!(
                (line.level(), line.message(), line.str("api")),
                ("INFO", "listening", Some("127.0.0.1:1"))
            );
        }
        assert_eq!(LogLine::new("thread 'main' panicked".to_owned()).message(), "");
    }
}
