//! `leads-api`: wires the parts together, nothing else.

use std::process::ExitCode;

use leads_api::access::commands::{self, CommandError};
use leads_api::cli::{Cli, Command};
use leads_api::config::{ServeArgs, ServeConfig};
use leads_api::startup::Application;
use leads_api::{routes, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// The work failed.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::read();
    match cli.command {
        Command::Serve(args) => serve(*args, &cli.log_level),
        Command::Keys(command) => match commands::run(command, std::env::vars()) {
            Ok(text) => print(&text),
            Err(error @ CommandError::Usage(_)) => fail(MISUSED, &error.to_string()),
            Err(error @ CommandError::Failed(_)) => fail(FAILED, &error.to_string()),
        },
        Command::Openapi => match routes::openapi().to_pretty_json() {
            Ok(text) => print(&text),
            Err(error) => fail(FAILED, &error.to_string()),
        },
    }
}

fn serve(args: ServeArgs, log_level: &str) -> ExitCode {
    let config = match ServeConfig::new(args, std::env::vars()) {
        Ok(config) => config,
        Err(error) => return fail(MISUSED, &error),
    };
    let _flush = match telemetry::init(log_level) {
        Ok(guard) => guard,
        Err(error) => return fail(MISUSED, &error),
    };
    let outcome = actix_web::rt::System::new().block_on(async {
        let application = Application::build(config)?;
        application.run_until_stopped(asked_to_stop()?).await.map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

/// Resolves on SIGTERM or Ctrl-C; a second one ends the process at once.
fn asked_to_stop() -> Result<impl Future<Output = ()>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals can't be handled: {error}"));
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        actix_web::rt::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            std::process::exit(i32::from(FAILED));
        });
    })
}

#[allow(clippy::print_stdout, reason = "a command's answer goes to standard output")]
fn print(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "a command's error goes to standard error")]
fn fail(code: u8, message: &str) -> ExitCode {
    for line in message.lines() {
        eprintln!("leads-api: {line}");
    }
    ExitCode::from(code)
}
