//! What the day came to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::check::Receipt;
use super::invalid::Refusal;
use crate::load::rate;
use crate::report::{count, table, whole};

/// Differences that are shown; all are counted.
const SHOWN: usize = 20;

/// Of one workspace.
pub(super) struct Workspace {
    id: Uuid,
    /// Leads that were there before.
    pub(super) before: u64,
    accepted: u64,
    refused: u64,
    /// Leads that came, by the list's total; `None`: not counted yet.
    rows: Option<u64>,
}

/// All that is counted.
pub(super) struct Summary {
    pub(super) workspaces: Vec<Workspace>,
    pub(super) phases: Vec<(&'static str, Duration)>,
    pub(super) retries: u64,
    /// Whether all was sent, read back and counted.
    pub(super) is_complete: bool,
    kinds: BTreeMap<&'static str, (u64, &'static Refusal)>,
    sizes: Vec<usize>,
    differences: u64,
    shown: Vec<String>,
}

impl Summary {
    pub(super) fn new(workspaces: impl Iterator<Item = Uuid>) -> Self {
        let workspaces = workspaces
            .map(|id| Workspace { id, before: 0, accepted: 0, refused: 0, rows: None })
            .collect();
        Self {
            workspaces,
            phases: Vec::new(),
            retries: 0,
            is_complete: false,
            kinds: BTreeMap::new(),
            sizes: Vec::new(),
            differences: 0,
            shown: Vec::new(),
        }
    }

    /// A valid lead was sent.
    pub(super) fn accepted(&mut self, workspace: usize, bytes: usize) {
        self.workspaces[workspace].accepted += 1;
        self.sizes.push(bytes);
    }

    /// An invalid one was sent.
    pub(super) fn refused(&mut self, workspace: usize, refusal: &'static Refusal) {
        self.workspaces[workspace].refused += 1;
        self.kinds.entry(refusal.name).or_insert((0, refusal)).0 += 1;
    }

    /// Something is not as it has to be.
    pub(super) fn differs(&mut self, index: u64, error: &anyhow::Error) {
        self.note(format!("lead {index}: {error:#}"));
    }

    fn note(&mut self, text: String) {
        self.differences += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(text);
        }
    }

    /// A workspace holds `total` leads, its pages list `listed` different ones; of the `mine`
    /// that were acknowledged here, `missing` are not among them.
    pub(super) fn counted(&mut self, i: usize, total: u64, listed: u64, mine: u64, missing: u64) {
        let Workspace { id, before, accepted, .. } = self.workspaces[i];
        let rows = total.saturating_sub(before);
        self.workspaces[i].rows = Some(rows);
        for (holds, text) in [
            (rows == accepted, format!("{accepted} valid leads were sent, {rows} rows came")),
            (listed == total, format!("the total is {total}, the pages list {listed}")),
            (mine == accepted, format!("{accepted} valid leads were sent, {mine} acknowledged")),
            (missing == 0, format!("{missing} acknowledged leads are on no page")),
        ] {
            if !holds {
                self.note(format!("workspace {id}: {text}"));
            }
        }
    }

    /// Whether everything is as it has to be.
    pub(super) fn is_clean(&self) -> bool {
        self.is_complete && self.differences == 0
    }

    pub(super) fn text(&self, receipts: &[Option<Receipt>]) -> String {
        let rows: Vec<_> = self
            .workspaces
            .iter()
            .map(|workspace| {
                let Workspace { id, accepted, refused, rows, .. } = workspace;
                let sent = count(accepted + refused);
                let rows = rows.map_or("–".to_owned(), count);
                vec![id.to_string(), sent, count(*accepted), rows, count(*refused)]
            })
            .collect();
        let mut text = table(&["workspace", "sent", "valid", "rows", "invalid"], &rows);
        let kinds: Vec<_> = self
            .kinds
            .iter()
            .map(|(name, (count, refusal))| {
                let code = refusal.field.map_or(refusal.code, |(_, code)| code);
                vec![
                    (*name).to_owned(),
                    count.to_string(),
                    refusal.status.to_string(),
                    code.to_owned(),
                ]
            })
            .collect();
        text += "\n";
        text += &table(&["invalid because", "sent", "status", "code"], &kinds);

        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        let size = |part: usize| {
            sizes.get((sizes.len() * part / 1000).min(sizes.len().max(1) - 1)).copied().unwrap_or(0)
        };
        let places: u64 = self.workspaces.iter().map(|w| w.accepted + w.refused).sum();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\nBodies of {} to {} bytes, half of them below {}, one in a hundred above {}.",
            size(0),
            size(1000),
            size(500),
            size(990),
        );
        for (what, took) in &self.phases {
            let seconds = took.as_secs_f64();
            let _ = writeln!(text, "{what} in {seconds:.1} s, {}/s.", whole(rate(places, seconds)));
        }
        let _ = writeln!(text, "{} retries.", count(self.retries));
        let _ =
            writeln!(text, "SHA-256 of all sent: {}", all(receipts, |receipt| Some(receipt.sent)));
        let _ = writeln!(text, "SHA-256 of all got:  {}", all(receipts, |receipt| receipt.got));
        for difference in &self.shown {
            let _ = writeln!(text, "DIFFERENT {difference}");
        }
        let verdict = if self.is_clean() {
            "Everything valid came back equal, everything else was refused as what it is."
                .to_owned()
        } else {
            let end = if self.is_complete { "" } else { " Not all was compared." };
            format!("{} differences.{end}", count(self.differences))
        };
        let _ = writeln!(text, "{verdict}");
        text
    }
}

/// The checksum over the leads' own, in the order of the day.
fn all(receipts: &[Option<Receipt>], of: impl Fn(&Receipt) -> Option<[u8; 32]>) -> String {
    let mut hash = Sha256::new();
    for receipt in receipts.iter().flatten() {
        hash.update(of(receipt).unwrap_or_default());
    }
    hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
