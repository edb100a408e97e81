//! Wires the commands to the process: arguments, signals, exit codes.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use leads_consumer::cli::{
    Cli, Command, DatabaseArgs, DlqCommand, DoctorArgs, RebuildAction, RebuildArgs, StatusArgs,
    TopicsArgs,
};
use leads_consumer::config::{self, ConfigError, RebuildConfig, RunConfig};
use leads_consumer::dlq::{self, DlqError};
use leads_consumer::doctor::Trouble;
use leads_consumer::rebuild::{Purpose, Rebuild, RebuildError};
use leads_consumer::run::{self, RunError};
use leads_consumer::source::admin::{Admin, AdminError, Replicas};
use leads_consumer::{doctor, migrate, status, telemetry, topics};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Why the process ends with another code than 0.
enum Exit {
    Config(String),
    Failed(String),
    /// It has been logged.
    Halted,
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

#[actix_web::main]
async fn main() -> ExitCode {
    let Cli { log_level, command } = Cli::parse();
    let filter = match EnvFilter::builder()
        .parse(format!("refinery_core=warn,actix_server=warn,{log_level}"))
    {
        Ok(filter) => filter,
        Err(error) => return end(Exit::Config(format!("LOG_LEVEL: {error}"))),
    };
    let result = match command {
        Command::Run(args) => {
            telemetry::start_logs(filter);
            match RunConfig::new(args, std::env::vars()) {
                Ok(config) => Box::pin(project(config)).await,
                Err(error) => Err(error.into()),
            }
        }
        Command::Migrate(args) => migrate(&args).await,
        Command::Topics(args) => topics(&args).await,
        Command::Status(args) => Box::pin(status(&args)).await,
        Command::Doctor(args) => Box::pin(doctor(&args)).await,
        Command::Rebuild(args) => {
            telemetry::start_command_logs(&log_level);
            Box::pin(rebuild(&args)).await
        }
        Command::Dlq(command) => dlq(&command).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => end(exit),
    }
}

fn end(exit: Exit) -> ExitCode {
    match exit {
        Exit::Config(why) => {
            eprintln!("leads-consumer: {why}");
            ExitCode::from(2)
        }
        Exit::Failed(why) => {
            eprintln!("leads-consumer: {why}");
            ExitCode::from(1)
        }
        Exit::Halted => ExitCode::from(1),
    }
}

/// Turns true with the first SIGTERM or SIGINT; the second ends the process.
fn signals() -> Result<watch::Receiver<bool>, Exit> {
    let (sender, stop) = watch::channel(false);
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return Err(Exit::Failed("signals can't be received".to_owned()));
    };
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping; a second signal ends at once");
        let _ = sender.send(true);
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(stop)
}

async fn project(config: RunConfig) -> Result<(), Exit> {
    let stop = signals()?;
    match Box::pin(run::run(config, stop)).await {
        Ok(()) => {
            tracing::info!("stopped");
            Ok(())
        }
        Err(RunError::Config(why)) => Err(Exit::Config(why)),
        Err(RunError::Halt(halt)) => {
            tracing::error!(cause = halt.cause, cure = halt.cure, "the projection halts");
            Err(Exit::Halted)
        }
    }
}

async fn migrate(args: &DatabaseArgs) -> Result<(), Exit> {
    let database = config::database(args)?;
    match migrate::migrate(&database).await {
        Ok(applied) if applied.is_empty() => println!("the schema is up to date"),
        Ok(applied) => applied.iter().for_each(|migration| println!("applied {migration}")),
        Err(error) => return Err(Exit::Failed(error.to_string())),
    }
    Ok(())
}

async fn topics(args: &TopicsArgs) -> Result<(), Exit> {
    let TopicsArgs {
        kafka,
        leads_access_topic,
        partitions,
        replication_factor,
        min_insync_replicas,
    } = args;
    let replicas = Replicas::new(*replication_factor, *min_insync_replicas)
        .map_err(|why| Exit::Config(format!("--min-insync-replicas: {why}")))?;
    if let Err(why) = config::topic_name(leads_access_topic) {
        return Err(Exit::Config(format!("LEADS_ACCESS_TOPIC: {why}")));
    }
    let admin =
        Admin::new(&config::kafka(kafka, std::env::vars())?).map_err(|error| explain(&error))?;
    let mut wrong = 0;
    for spec in topics::specs(&kafka.leads_topic, leads_access_topic, *partitions) {
        let outcome =
            topics::ensure(&admin, &spec, replicas).await.map_err(|error| explain(&error))?;
        println!("{}", outcome.line);
        for violation in &outcome.violations {
            eprintln!("leads-consumer: {violation}");
        }
        wrong += outcome.violations.len();
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Exit::Failed(format!("{wrong} settings would break a promise"))),
    }
}

async fn status(args: &StatusArgs) -> Result<(), Exit> {
    let StatusArgs { kafka, database, consumer_group, max_lag, json, watch } = args;
    let settings = config::inspected(kafka, database, consumer_group, std::env::vars())?;
    // A file that isn't there is found when a client is made. Closing it could take long.
    let _client = Admin::new(&settings.kafka).map_err(|error| explain(&error))?;
    let show = status::Show { json: *json, watch: watch.map(Duration::from_secs) };
    shown(status::show(&settings, *max_lag, show).await)
}

async fn doctor(args: &DoctorArgs) -> Result<(), Exit> {
    let DoctorArgs { kafka, database, consumer_group, leads_access_topic, json } = args;
    if let Err(why) = config::topic_name(leads_access_topic) {
        return Err(Exit::Config(format!("LEADS_ACCESS_TOPIC: {why}")));
    }
    let settings = config::inspected(kafka, database, consumer_group, std::env::vars())?;
    let result = doctor::show(&settings, leads_access_topic, *json).await;
    shown(match result {
        Ok(ok) => Ok(ok),
        Err(Trouble::Output(error)) => Err(error),
        Err(Trouble::Settings(error)) => return Err(explain(&error)),
    })
}

/// What was found is on stdout already. Nobody being there to read it is not our failure.
fn shown(result: io::Result<bool>) -> Result<(), Exit> {
    match result {
        // At once: the runtime would wait for a name server that hangs.
        Ok(well) => std::process::exit(i32::from(!well)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Exit::Failed(format!("stdout: {error}"))),
    }
}

async fn rebuild(args: &RebuildArgs) -> Result<(), Exit> {
    let config = RebuildConfig::new(args, std::env::vars())?;
    let stop = signals()?;
    let purpose = match args.action {
        None => Purpose::Build,
        Some(RebuildAction::Rollback) => Purpose::RollBack,
        Some(RebuildAction::Discard { .. }) => Purpose::Discard,
    };
    let rebuild = Rebuild::prepare(config, purpose, stop).await?;
    match args.action {
        None => {
            for line in rebuild.plan().await?.lines {
                eprintln!("{line}");
            }
            confirm(args.yes, "Go on?")?;
            Ok(rebuild.run().await?)
        }
        Some(RebuildAction::Rollback) => {
            eprintln!("{}", rebuild.rollback_plan().await?);
            confirm(args.yes, "Go on?")?;
            Ok(rebuild.roll_back().await?)
        }
        Some(RebuildAction::Discard { previous }) => {
            confirm(args.yes, "Drop a generation?")?;
            let generation = rebuild.discard(previous).await?;
            println!("generation {generation} is dropped");
            Ok(())
        }
    }
}

/// Asks on a terminal; elsewhere `--yes` has to say so.
fn confirm(yes: bool, question: &str) -> Result<(), Exit> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Exit::Config("this is not a terminal: say --yes to go on".to_owned()));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Exit::Failed("nothing was done".to_owned()))
    }
}

impl From<RebuildError> for Exit {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Config(why) => Self::Config(why),
            error => Self::Failed(error.to_string()),
        }
    }
}

async fn dlq(command: &DlqCommand) -> Result<(), Exit> {
    match Box::pin(dlq::run(command, &mut std::io::stdout())).await {
        Ok(()) => Ok(()),
        Err(DlqError::Config(error)) => Err(error.into()),
        // Whoever reads the output has seen enough.
        Err(DlqError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Exit::Failed(error.to_string())),
    }
}

fn explain(error: &AdminError) -> Exit {
    match error {
        AdminError::Settings(_) => Exit::Config(error.to_string()),
        AdminError::Unavailable(_) | AdminError::Refused(_) => {
            Exit::Failed(format!("{error}; is KAFKA_BROKERS right?"))
        }
    }
}
