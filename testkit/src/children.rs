//! Signals to child processes, and their end when the test runner is killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Sends a signal. Through the shell's own `kill`: there is one everywhere, and it needs no unsafe.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()])
        .status()
        .expect("sh starts");
    assert!(status.success(), "kill -s {name} {pid}: {status}");
}

/// Runs a shell command when this process dies without having disarmed it, by SIGKILL included.
///
/// A shell waits on a pipe whose other end only this process holds. It is in a process group of its
/// own, so Ctrl-C ends the runner and not the guard.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// `command` is shell text; `args` are its `$1`, `$2`, …
    pub(crate) fn new(command: &str, args: &[&str]) -> Self {
        let script = format!("read -r disarmed || {{ {command} ; }}");
        let child = Command::new("sh")
            .args(["-c", &script, "leads-testkit-guard"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self(child)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"disarmed\n");
        }
        let _ = self.0.wait();
    }
}
