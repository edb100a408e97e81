//! What to do about a failure: by SQLSTATE and kind, in one place.
//!
//! It is the world (retry for ever), the record (set it aside), or us (halt).

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::connection::Unreachable;

/// The projection can't go on, and going on by itself would lose or double something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {cure}")]
pub struct Halt {
    /// What happened.
    pub cause: String,
    /// What to do about it.
    pub cure: String,
}

impl Halt {
    /// Cause and cure, a clause each.
    pub fn new(cause: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { cause: cause.into(), cure: cure.into() }
    }
}

/// What to do about a topic that is not the one that was projected. A fresh database begins at offset
/// 0, so the topic has to.
pub const RESTORE: &str = "restore the topic; or let a fresh database be filled from it as it is now \
                           (leads-consumer rebuild --into-new-database), if it begins at offset 0";
/// What to do when records are gone that were not projected.
pub const GONE: &str = "restore the topic; or give up what is gone: copy what is left to a new topic, \
                        and rebuild from that one (docs/scaling.md, To more partitions)";
/// What to do about a topic whose number of partitions has changed.
pub const REPARTITION: &str = "restore the topic with its old number of partitions, or copy it to a \
                               new one: docs/scaling.md, To more partitions";
/// What to do about offsets that are missing between others.
pub const GAP: &str = "restore the topic; or go on without them, with LOG_GAPS=pass, which is also \
                       right where a transactional producer writes to the topic";

/// What to do about a failed statement or connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Someone else moved the offsets on: forget what was read and look again.
    Fenced,
    /// A lead to be inserted is there already, and nobody had looked. The next try looks.
    Again,
    /// The world's fault: try again until it works.
    Retry {
        /// The class, for a metric's label.
        cause: &'static str,
        /// In words.
        error: String,
    },
    /// One of the records can't be stored, whoever tries.
    Data {
        /// In words that quote nothing of it.
        error: String,
    },
    /// Anything else.
    Halt(Halt),
}

impl Failure {
    /// The kind, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Again => "again",
            Self::Retry { cause, .. } => cause,
            Self::Data { .. } => "data",
            Self::Halt(_) => "halt",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fenced => f.write_str("someone else moved the offsets"),
            Self::Again => f.write_str("a lead to be inserted is there already"),
            Self::Retry { error, .. } | Self::Data { error } => write!(f, "PostgreSQL: {error}"),
            Self::Halt(halt) => halt.fmt(f),
        }
    }
}

impl From<Unreachable> for Failure {
    fn from(error: Unreachable) -> Self {
        match error {
            Unreachable::Postgres(error) => classify(&error),
            silent @ Unreachable::Silent(_) => {
                Self::Retry { cause: "connection", error: silent.to_string() }
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        classify(&error)
    }
}

/// The cause of a retry: a batch took too long, or too long for another session's patience.
pub const TIMEOUT: &str = "timeout";
/// The cause of a retry: a lead to be inserted is there already.
pub const LEAD_IS_THERE: &str = "lead_is_there";

/// Every cause of a retry.
pub const CAUSES: [&str; 8] =
    ["connection", "conflict", "resources", TIMEOUT, "shutdown", "system", "lock", LEAD_IS_THERE];

/// Decides about an error of tokio-postgres.
pub fn classify(error: &Error) -> Failure {
    let Some(db) = error.as_db_error() else {
        return without_code(error);
    };
    let code = db.code();
    let retry = |cause| Failure::Retry { cause, error: describe(error) };
    match (code.code().get(..2).unwrap_or_default(), code) {
        (_, &SqlState::UNIQUE_VIOLATION) if is_lead_key(db.constraint()) => retry(LEAD_IS_THERE),
        // Nested too deep, too long for an index: the record's, and 54 has nothing else for us.
        (_, &SqlState::STATEMENT_TOO_COMPLEX | &SqlState::PROGRAM_LIMIT_EXCEEDED)
        | ("22" | "23", _) => Failure::Data { error: describe(error) },
        ("08", _) => retry("connection"),
        ("40", _) => retry("conflict"),
        ("53", _) => retry("resources"),
        (_, &SqlState::QUERY_CANCELED) => retry(TIMEOUT),
        ("57", _) => retry("shutdown"),
        ("58", _) => retry("system"),
        (_, &SqlState::LOCK_NOT_AVAILABLE) => retry("lock"),
        // 25P03 and 25P04: the session idled in its transaction, or took too long; 25006: a
        // failover is under way and this server does not write.
        (
            _,
            &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT | &SqlState::READ_ONLY_SQL_TRANSACTION,
        ) => retry(TIMEOUT),
        _ if code.code() == "25P04" => retry(TIMEOUT),
        ("28", _) => halt(error, "check user and password in DATABASE_URL"),
        ("3D", _) => halt(error, "create the database, or check its name in DATABASE_URL"),
        (_, &SqlState::INSUFFICIENT_PRIVILEGE) => {
            halt(error, "grant the user of DATABASE_URL the tables of the read model")
        }
        ("42", _) => halt(error, "run `leads-consumer migrate` of this version"),
        _ => halt(error, "see PostgreSQL's log; the projection goes on where it stood"),
    }
}

/// The primary key of a generation's leads. Any other unique index is the operator's, and what it
/// refuses stays refused.
fn is_lead_key(constraint: Option<&str>) -> bool {
    let generation = constraint.and_then(|it| it.strip_prefix("leads_g")?.strip_suffix("_pkey"));
    generation.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_digit()))
}

fn halt(error: &Error, cure: &str) -> Failure {
    Failure::Halt(Halt::new(format!("PostgreSQL refused: {}", describe(error)), cure))
}

/// Errors without a SQLSTATE come from the connection, but for those of our own encoding.
fn without_code(error: &Error) -> Failure {
    const OURS: &[&str] = &[
        "error serializing",
        "error deserializing",
        "error encoding",
        "query returned",
        "invalid column",
        "expected ",
    ];
    let text = error.to_string();
    if OURS.iter().any(|start| text.starts_with(start)) {
        return Failure::Halt(Halt::new(
            format!("a statement could not be written or read: {}", describe(error)),
            "this is a defect of leads-consumer; please report it",
        ));
    }
    Failure::Retry { cause: "connection", error: describe(error) }
}

/// An error in words that quote nothing of a record: what PostgreSQL says of values does.
pub fn describe(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        return match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
    };
    let code = db.code().code();
    if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) {
        let place = [db.table(), db.column(), db.constraint()];
        let place: Vec<_> = place.into_iter().flatten().collect();
        let place =
            if place.is_empty() { String::new() } else { format!(" at {}", place.join(", ")) };
        format!("PostgreSQL refuses the value: {}{place} (SQLSTATE {code})", words(db.code()))
    } else {
        format!("{} (SQLSTATE {code})", db.message())
    }
}

fn words(code: &SqlState) -> &'static str {
    match *code {
        SqlState::UNTRANSLATABLE_CHARACTER => "a character that text can't hold, such as \\u0000",
        SqlState::CHARACTER_NOT_IN_REPERTOIRE => "bytes that are not UTF-8",
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE => "a number out of range",
        SqlState::INVALID_TEXT_REPRESENTATION => "JSON that jsonb does not take",
        SqlState::STRING_DATA_RIGHT_TRUNCATION => "a text that is too long",
        SqlState::STATEMENT_TOO_COMPLEX => "JSON that is nested too deep",
        SqlState::PROGRAM_LIMIT_EXCEEDED => "a value beyond a limit of PostgreSQL's",
        SqlState::CHECK_VIOLATION => "a check constraint",
        SqlState::NOT_NULL_VIOLATION => "a null where there must be a value",
        _ => "see the SQLSTATE",
    }
}
