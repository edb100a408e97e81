//! What a check found.

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// All is well.
    Ok,
    /// It works, and something should be done.
    Warning,
    /// It is broken.
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// What a check found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How it ended.
    pub(super) verdict: Verdict,
    /// What was found, or why nothing could be.
    pub(super) found: String,
    /// The command to run, or what to do; `null` when there is nothing.
    pub(super) fix: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    /// It works, and something should be done.
    pub(super) fn warning(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    /// It is broken.
    pub(super) fn failed(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, found: found.into(), fix: Some(fix.into()) }
    }

    /// It could not be looked at.
    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, found: why.into(), fix: None }
    }
}

/// What was looked at, or why it could not be.
pub(super) type Seen<T> = Result<T, Unseen>;

/// Why something could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unseen {
    /// Something else has to be mended first, and has a check of its own.
    Skipped(String),
    /// The look itself failed.
    Failed {
        /// What happened.
        found: String,
        /// What to do.
        fix: String,
    },
}

impl Unseen {
    /// Something else has to be mended first.
    pub(super) fn after(what: &str) -> Self {
        Self::Skipped(what.to_owned())
    }

    /// The look itself failed.
    pub(super) fn failed(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Failed { found: found.into(), fix: fix.into() }
    }

    /// The finding of a check that needed it.
    pub(super) fn finding(&self) -> Finding {
        match self {
            Self::Skipped(why) => Finding::skipped(why.clone()),
            Self::Failed { found, fix } => Finding::failed(found.clone(), fix.clone()),
        }
    }
}

/// Judges what was seen; what was not speaks for itself.
pub(super) fn judge<T>(seen: &Seen<T>, judge: impl FnOnce(&T) -> Finding) -> Finding {
    match seen {
        Ok(seen) => judge(seen),
        Err(unseen) => unseen.finding(),
    }
}

/// Judges two things together.
pub(super) fn judge_both<A, B>(
    a: &Seen<A>,
    b: &Seen<B>,
    both: impl FnOnce(&A, &B) -> Finding,
) -> Finding {
    judge(a, |a| judge(b, |b| both(a, b)))
}
