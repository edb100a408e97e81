//! Each test starts real servers, and looks for their processes afterwards.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use leads_testkit::{DEADLINE, eventually};
use uuid::Uuid;

const SERVERS: [&str; 2] = ["kafka.pid", "postgres.pid"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// An instance that no other test has; wiped at the end, also of a test that fails.
struct Instance(String);

impl Instance {
    fn new() -> Self {
        Self(format!("it-{}", Uuid::now_v7().simple()))
    }

    fn folder(&self) -> PathBuf {
        repository().join(".stack").join(&self.0)
    }

    fn command(&self, verb: &[&str], rest: &[&str]) -> Command {
        let mut command = Command::new(repository().join("dev/stack"));
        command.args(verb).args(["--name", &self.0]).args(rest);
        // With servers given, the script would start none.
        command.env_remove("KAFKA_BROKERS").env_remove("DATABASE_URL");
        command.current_dir(repository()).stderr(Stdio::null());
        command
    }

    fn run(&self, verb: &[&str], rest: &[&str]) -> Output {
        self.command(verb, rest).output().unwrap()
    }

    fn pids(&self) -> [u32; 2] {
        SERVERS.map(|file| {
            let text = std::fs::read_to_string(self.folder().join(file)).unwrap();
            text.split_whitespace().next().unwrap().parse().unwrap()
        })
    }

    /// Starts `exec` with a command that says when it runs and then waits for ever.
    fn exec_that_waits(&self) -> Child {
        let mut child = self
            .command(&["exec"], &["--", "sh", "-c", "echo running; exec sleep 1000"])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "running");
        child
    }

    async fn is_gone(&self, pids: [u32; 2]) {
        eventually(DEADLINE, "both servers and their folder are gone", async || {
            let left: Vec<u32> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
            let folder = self.folder().exists();
            if left.is_empty() && !folder { Ok(()) } else { Err((left, folder)) }
        })
        .await;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--wipe"], &[]).stdout(Stdio::null()).status();
    }
}

/// A zombie that nobody has collected yet has ended all the same.
fn is_alive(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn exec_gives_the_environment_hands_the_exit_code_through_and_ends_all() {
    let instance = Instance::new();
    let show = "cat \"$0\"/*.pid; echo $KAFKA_BROKERS $DATABASE_URL; exit 7";
    let folder = instance.folder();
    let output = instance.run(&["exec"], &["--", "sh", "-c", show, folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words.len(), 4, "{text}");
    assert!(words[2].starts_with("127.0.0.1:") && words[3].starts_with("postgres://"), "{text}");
    instance.is_gone([words[0].parse().unwrap(), words[1].parse().unwrap()]).await;
}

#[tokio::test]
async fn exec_that_is_killed_leaves_nothing_behind() {
    let instance = Instance::new();
    let mut child = instance.exec_that_waits();
    let pids = instance.pids();
    assert!(pids.into_iter().all(is_alive));
    signal("-KILL", child.id());
    child.wait().unwrap();
    instance.is_gone(pids).await;
}

#[tokio::test]
async fn exec_that_is_asked_to_end_leaves_nothing_behind() {
    let instance = Instance::new();
    let mut child = instance.exec_that_waits();
    let pids = instance.pids();
    signal("-TERM", child.id());
    assert!(!child.wait().unwrap().success());
    instance.is_gone(pids).await;
}

#[tokio::test]
async fn up_twice_is_once_a_dead_server_is_mended_and_down_keeps_the_data() {
    let instance = Instance::new();
    let up = || {
        let output = instance.run(&["up"], &[]);
        assert!(output.status.success());
        let path = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        std::fs::read_to_string(path).unwrap()
    };
    let (first, pids) = (up(), instance.pids());
    assert_eq!((up(), instance.pids()), (first.clone(), pids), "the second up starts nothing");

    signal("-KILL", pids[0]);
    eventually(DEADLINE, "the broker is dead", async || !is_alive(pids[0])).await;
    assert_eq!(up(), first, "mended at the same addresses");
    let mended = instance.pids();
    assert!(mended[0] != pids[0] && mended[1] == pids[1] && is_alive(mended[0]));

    assert!(instance.run(&["down"], &[]).status.success());
    assert!(!mended.into_iter().any(is_alive));
    assert!(instance.folder().exists(), "the data stay");
    assert!(instance.run(&["down", "--wipe"], &[]).status.success());
    assert!(!instance.folder().exists());
}

#[tokio::test]
async fn of_three_brokers_a_dead_one_is_mended_and_all_end_together() {
    const BROKERS: [&str; 3] = ["kafka.pid", "kafka-2.pid", "kafka-3.pid"];
    let instance = Instance::new();
    let pids = || {
        BROKERS.map(|file| {
            let text = std::fs::read_to_string(instance.folder().join(file)).unwrap();
            text.trim().parse::<u32>().unwrap()
        })
    };
    let up = |rest: &[&str]| {
        let output = instance.run(&["up"], rest);
        assert!(output.status.success());
        std::fs::read_to_string(String::from_utf8(output.stdout).unwrap().trim()).unwrap()
    };
    let text = |output: Output| String::from_utf8(output.stdout).unwrap();
    let env = up(&["--brokers", "3"]);
    let addresses = env.lines().next().unwrap();
    assert_eq!(addresses.matches("127.0.0.1:").count(), 3, "{addresses}");
    let status = text(instance.run(&["status"], &[]));
    assert_eq!(status.matches(" ready, process ").count(), 4, "{status}");
    assert_eq!(status.matches(", controller").count(), 1, "{status}");
    assert_eq!(instance.run(&["up"], &["--brokers", "1"]).status.code(), Some(1));

    let first = pids();
    signal("-KILL", first[1]);
    eventually(DEADLINE, "the broker is dead", async || !is_alive(first[1])).await;
    let output = instance.run(&["status"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output).contains("kafka-2  127.0.0.1:"), "and it says which");
    assert_eq!(up(&[]), env, "mended at the same addresses, without being told how many");
    let mended = pids();
    assert!(mended[1] != first[1] && is_alive(mended[1]));
    assert_eq!((mended[0], mended[2]), (first[0], first[2]));

    assert!(instance.run(&["down"], &["--wipe"]).status.success());
    assert!(!mended.into_iter().any(is_alive) && !instance.folder().exists());
}
