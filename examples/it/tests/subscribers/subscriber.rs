//! One of the subscribers, as a user would start it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use leads_testkit::{Process, System, eventually};
use rusqlite::{Connection, OpenFlags};

/// For a run over the whole log. Generous: four of them share the machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
/// Kills in the middle of the backlog, each of which has to be survived.
const KILLS: usize = 3;
/// A fast reader on a slow machine may be done before it is killed; then it starts over.
const TRIES: usize = 30;

pub(crate) struct Subscriber<'a> {
    pub(crate) name: &'static str,
    system: &'a System,
    program: PathBuf,
    args: Vec<String>,
    folder: PathBuf,
}

impl<'a> Subscriber<'a> {
    /// One a language.
    pub(crate) fn all(system: &'a System) -> Vec<Self> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let at = |file: &str| examples.join(file).to_str().unwrap().to_owned();
        let tool = |name: &str| {
            let path = std::env::var_os(name);
            PathBuf::from(
                path.unwrap_or_else(|| panic!("{name} is not set: run make test-examples")),
            )
        };
        let classpath = format!("{}:{}", at("java/target/classes"), at("java/target/lib/*"));
        let languages = [
            ("rust", tool("EXAMPLES_RUST"), vec![]),
            ("python", tool("EXAMPLES_PYTHON"), vec![at("python/subscriber.py")]),
            ("typescript", tool("EXAMPLES_NODE"), vec![at("typescript/subscriber.ts")]),
            ("java", tool("EXAMPLES_JAVA"), vec!["-cp".into(), classpath, "Subscriber".into()]),
        ];
        let subscribers = languages.map(|(name, program, args)| {
            let folder =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(system.events_topic()).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Self { name, system, program, args, folder }
        });
        subscribers.into()
    }

    fn file(&self, state: &str) -> PathBuf {
        self.folder.join(format!("{state}.db"))
    }

    fn command<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        self.args.iter().map(String::as_str).chain(args.iter().copied()).collect()
    }

    /// Runs it to its end, whatever that is.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        self.system.run_program(&self.program, &self.command(args), PATIENCE).await
    }

    /// Starts it without an end.
    pub(crate) fn follow(&self, state: &str) -> Process {
        let file = self.file(state);
        self.system.spawn_program(&self.program, &self.command(&[file.to_str().unwrap()]))
    }

    /// Reads to the log's end; what it prints has to be this.
    pub(crate) async fn expect_report(&self, state: &str, expected: &str) {
        let output = self.run(&["--until-end", self.file(state).to_str().unwrap()]).await;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {state}: {}\n{words}", self.name, output.status);
        let found = String::from_utf8(output.stdout).expect("UTF-8");
        if let Some((found, wanted)) = first_difference(&found, expected) {
            panic!("{} {state}:\nfound  {found:?}\nwanted {wanted:?}\n{words}", self.name);
        }
    }

    /// Reads and has to fail; gives what it said.
    pub(crate) async fn expect_failure(&self, state: &str) -> String {
        let output = self.run(&["--until-end", self.file(state).to_str().unwrap()]).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{}: {words}", self.name);
        words
    }

    /// Kills it while it reads, and starts it again where it was, some times over.
    pub(crate) async fn kill_in_the_middle(&self, state: &str, records: i64) {
        let mut kills = 0;
        for _ in 0..TRIES {
            let before = self.position(state);
            let reading = self.follow(state);
            let what = format!("{} goes on", self.name);
            eventually(PATIENCE, &what, async || self.position(state) > before).await;
            reading.kill().await;
            if self.position(state) < records {
                kills += 1;
            } else {
                for end in ["db", "db-wal", "db-shm"] {
                    let _ = std::fs::remove_file(self.file(state).with_extension(end));
                }
            }
            if kills == KILLS {
                return;
            }
        }
        panic!("{} was done {} times before it was killed", self.name, TRIES - kills);
    }

    fn open(&self, state: &str) -> rusqlite::Result<Connection> {
        let connection =
            Connection::open_with_flags(self.file(state), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(connection)
    }

    /// How many records its state stands for; 0 while there is none.
    pub(crate) fn position(&self, state: &str) -> i64 {
        let sum = "SELECT coalesce(sum(next_offset), 0) FROM positions";
        let found = self.open(state).and_then(|state| state.query_row(sum, [], |row| row.get(0)));
        found.unwrap_or(0)
    }

    /// The report, read from its file while it runs.
    pub(crate) fn report_in(&self, state: &str) -> String {
        let state = self.open(state).unwrap();
        let mut lines = state.prepare("SELECT line || char(10) FROM report ORDER BY line").unwrap();
        let lines = lines.query_map([], |row| row.get::<_, String>(0)).unwrap();
        lines.map(Result::unwrap).collect()
    }

    pub(crate) fn edit(&self, state: &str, sql: &str) {
        assert_eq!(self.open(state).unwrap().execute(sql, []).unwrap(), 1);
    }
}

impl Drop for Subscriber<'_> {
    fn drop(&mut self) {
        // Kept for the one who looks for the failure.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The first lines that differ; of long texts nobody wants to see all.
fn first_difference<'t>(found: &'t str, expected: &'t str) -> Option<(&'t str, &'t str)> {
    if found == expected {
        return None;
    }
    let pairs = found.split('\n').zip(expected.split('\n'));
    let differing = pairs.into_iter().find(|(found, expected)| found != expected);
    Some(differing.unwrap_or(("one is the beginning of the other", "")))
}
