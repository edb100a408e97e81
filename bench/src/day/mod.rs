//! A realistic day through a running system: everything valid has to come back equal in value,
//! everything else has to be refused as what it is.

mod canonical;
mod check;
mod generator;
mod invalid;
mod send;
mod summary;
mod text;

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use uuid::Uuid;

use crate::http::Url;
use crate::service::{binary, key_of};
use check::Receipt;
use send::Client;
use summary::Summary;

/// Options of `leads-bench day`.
#[derive(Args)]
pub(crate) struct Options {
    /// The API.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    api: String,
    /// Leads of the day; one in fifty is not valid.
    #[arg(long, default_value_t = 100_000)]
    leads: u64,
    /// The same seed makes the same day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many workspaces; keys for them are made by `leads-api keys create`.
    #[arg(long, default_value_t = 5)]
    workspaces: usize,
    /// Use this key instead of making some; may be repeated.
    #[arg(long, value_name = "WORKSPACE=KEY")]
    key: Vec<WorkspaceKey>,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Print the request at this place of the day, and nothing else.
    #[arg(long, value_name = "INDEX")]
    show: Option<u64>,
}

/// A workspace and a key of it.
#[derive(Debug, Clone)]
pub(crate) struct WorkspaceKey {
    workspace: Uuid,
    key: String,
}

impl FromStr for WorkspaceKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (workspace, key) = text.split_once('=').ok_or("expected WORKSPACE=KEY")?;
        let workspace = Uuid::try_parse(workspace).map_err(|error| error.to_string())?;
        Ok(Self { workspace, key: key.to_owned() })
    }
}

/// All that the phases share.
struct Day {
    options: Options,
    url: Url,
    keys: Vec<WorkspaceKey>,
    /// Makes the idempotency keys of this run differ from those of an earlier one.
    run: Uuid,
    summary: RefCell<Summary>,
    /// Of each accepted lead, by its place.
    receipts: RefCell<Vec<Option<Receipt>>>,
}

impl Day {
    fn request(&self, index: u64) -> generator::Request {
        generator::request(self.options.seed, index, self.keys.len())
    }
}

/// Runs the day; has to be called within a `LocalSet`. Fails (1) on any difference.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    if let Some(index) = options.show {
        let workspaces =
            if options.key.is_empty() { options.workspaces } else { options.key.len() };
        let request = generator::request(options.seed, index, workspaces);
        std::io::stdout().write_all(&request.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(options.workspaces > 0 && options.connections > 0, "at least one of each");
    let url = Url::parse(&format!("{}/api/v1/leads", options.api.trim_end_matches('/')))?;
    let keys = if options.key.is_empty() {
        create_keys(options.workspaces).await?
    } else {
        options.key.clone()
    };
    let receipts = vec![None; usize::try_from(options.leads)?];
    let summary = Summary::new(keys.iter().map(|key| key.workspace));
    let day = Rc::new(Day {
        options,
        url,
        keys,
        run: Uuid::now_v7(),
        summary: RefCell::new(summary),
        receipts: RefCell::new(receipts),
    });

    let outcome = send_and_compare(&day).await;
    let summary = day.summary.borrow();
    print!("{}", summary.text(&day.receipts.borrow()));
    // What was found so far counts, also when it could not go on.
    outcome?;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send_and_compare(day: &Rc<Day>) -> Result<()> {
    let mut client = Client::new(Rc::clone(day));
    for (i, key) in day.keys.iter().enumerate() {
        client.wait_for_key(key).await?;
        let before = client.total(key).await?;
        day.summary.borrow_mut().workspaces[i].before = before;
    }
    phase(day, "sent", async |client, index| client.post(index).await).await?;
    phase(day, "read back", async |client, index| client.read_back(index).await).await?;
    for i in 0..day.keys.len() {
        client.count(i).await?;
    }
    day.summary.borrow_mut().is_complete = true;
    Ok(())
}

async fn create_keys(workspaces: usize) -> Result<Vec<WorkspaceKey>> {
    let mut keys = Vec::new();
    for number in 1..=workspaces {
        let workspace = Uuid::new_v4();
        let (text, name) = (workspace.to_string(), format!("day {number}"));
        let mut command = tokio::process::Command::new(binary("leads-api")?);
        command.args(["keys", "create", "--workspace", &text, "--name", &name]);
        command.args(["--rate-limit", "0", "--json"]);
        let output = command.output().await.context("leads-api keys create")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "leads-api keys create: {errors}");
        keys.push(WorkspaceKey { workspace, key: key_of(&output.stdout)? });
    }
    Ok(keys)
}

/// Does something for every place of the day, over all connections at once.
async fn phase(
    day: &Rc<Day>,
    what: &'static str,
    work: impl AsyncFn(&mut Client, u64) -> Result<()> + Copy + 'static,
) -> Result<()> {
    let (start, next) = (Instant::now(), Rc::new(Cell::new(0)));
    let workers: Vec<_> = (0..day.options.connections)
        .map(|_| {
            let (day, next) = (Rc::clone(day), Rc::clone(&next));
            tokio::task::spawn_local(async move {
                let mut client = Client::new(Rc::clone(&day));
                while next.get() < day.options.leads {
                    let index = next.replace(next.get() + 1);
                    if index > 0 && index % 10_000 == 0 {
                        eprintln!("leads-bench: {what}: {index} of {}", day.options.leads);
                    }
                    work(&mut client, index).await.with_context(|| format!("lead {index}"))?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker.await.context("a connection's task")??;
    }
    let took: Duration = start.elapsed();
    day.summary.borrow_mut().phases.push((what, took));
    Ok(())
}
