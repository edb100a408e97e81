//! Whether the database can be reached, has the tables, and lets us at them.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::Looked;
use super::finding::{Finding, Seen, Unseen, judge};
use crate::connection::Unreachable;
use crate::failure::classify;
use crate::migrate;
use crate::status::read_model::Generation;
use crate::status::session::explain;
use crate::store::{counts_table, leads_table};

/// What is in the way of a session, in the order in which it is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// No connection: a name, a refusal, silence, or a server that is not ready.
    Connection,
    /// TLS fails.
    Tls,
    /// User or password are refused.
    Credentials,
    /// There is no such database.
    Database,
}

/// The database can't be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Away {
    /// What is in the way.
    pub(super) obstacle: Obstacle,
    /// In words that hold no secret.
    pub(super) cause: String,
}

impl Away {
    /// What stands between us and a session.
    pub(super) fn of(error: &Unreachable) -> Self {
        let cause = error.to_string();
        let obstacle = match error {
            Unreachable::Silent(_) => Obstacle::Connection,
            Unreachable::Postgres(error) => obstacle(error.code().map(SqlState::code), &cause),
        };
        Self { obstacle, cause }
    }
}

/// By SQLSTATE; without one the server said nothing, and tokio-postgres' own words have to tell.
fn obstacle(code: Option<&str>, words: &str) -> Obstacle {
    match code {
        Some("3D000") => Obstacle::Database,
        Some(code) if code.starts_with("28") || code == "42501" => Obstacle::Credentials,
        None if words.contains("TLS") => Obstacle::Tls,
        None if words.starts_with("authentication error")
            || words.starts_with("invalid configuration") =>
        {
            Obstacle::Credentials
        }
        Some(_) | None => Obstacle::Connection,
    }
}

/// The server takes connections.
pub(super) fn connection(looked: &Looked) -> Finding {
    let fix = "start PostgreSQL, or correct host and port in DATABASE_URL: pg_isready -d \
               \"$DATABASE_URL\"";
    met(looked, Obstacle::Connection, "PostgreSQL takes connections", fix)
}

/// TLS to the server.
pub(super) fn tls(looked: &Looked) -> Finding {
    let fix = "set PGSSLROOTCERT to the authority that signed the server's certificate, and use a \
               host name of the certificate in DATABASE_URL";
    met(looked, Obstacle::Tls, "as DATABASE_URL asks for", fix)
}

/// User and password.
pub(super) fn credentials(looked: &Looked) -> Finding {
    let fix = "check user and password in DATABASE_URL: psql \"$DATABASE_URL\" -c 'SELECT 1'";
    met(looked, Obstacle::Credentials, "they are accepted", fix)
}

/// The database is there.
pub(super) fn exists(looked: &Looked) -> Finding {
    let name = &looked.database_name;
    let fix = format!("createdb {name}, then leads-consumer migrate; or correct DATABASE_URL");
    met(looked, Obstacle::Database, &format!("{name} is there"), &fix)
}

fn met(looked: &Looked, this: Obstacle, fine: &str, fix: &str) -> Finding {
    match &looked.session {
        Err(away) if away.obstacle == this => Finding::failed(away.cause.clone(), fix),
        Err(away) if away.obstacle < this => Finding::skipped("PostgreSQL can't be asked"),
        Ok(()) | Err(_) => Finding::ok(fine),
    }
}

/// The schema's version.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_schema(client: &Client) -> Seen<i32> {
    migrate::version(client).await.map_err(|error| unseen(&error))
}

/// The schema is that of this version.
pub(super) fn schema(looked: &Looked) -> Finding {
    judge(&looked.schema, |found| judge_schema(*found, migrate::known()))
}

fn judge_schema(found: i32, known: i32) -> Finding {
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Finding::ok(format!("version {found}")),
        std::cmp::Ordering::Less => Finding::failed(
            format!("the schema has version {found}, this leads-consumer needs {known}"),
            "leads-consumer migrate",
        ),
        std::cmp::Ordering::Greater => Finding::failed(
            format!("the schema has version {found}, newer than the {known} known here"),
            "run the leads-consumer that ran `leads-consumer migrate`",
        ),
    }
}

/// A right that is missing: table and what may not be done.
pub(super) type Missing = (String, String);

/// The rights that the consumer lacks on the tables of these generations, and the user's name.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_permissions(
    client: &Client,
    generations: &[Generation],
) -> Seen<(String, Vec<Missing>)> {
    try_permissions(client, generations).await.map_err(|error| unseen(&error))
}

async fn try_permissions(
    client: &Client,
    generations: &[Generation],
) -> Result<(String, Vec<Missing>), Error> {
    let (tables, rights): (Vec<String>, Vec<String>) = needed(generations).into_iter().unzip();
    let query =
        "SELECT n.name, n.privilege FROM UNNEST($1::text[], $2::text[]) AS n (name, privilege)
         WHERE to_regclass(n.name) IS NULL
             OR NOT has_table_privilege(to_regclass(n.name)::oid, n.privilege)";
    let rows = client.query(query, &[&tables, &rights]).await?;
    let missing: Result<_, Error> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let user = client.query_one("SELECT quote_ident(current_user)", &[]).await?.try_get(0)?;
    Ok((user, missing?))
}

fn needed(generations: &[Generation]) -> Vec<Missing> {
    let mut all = Vec::new();
    let mut need = |table: &str, rights: &[&str]| {
        all.extend(rights.iter().map(|right| (table.to_owned(), (*right).to_owned())));
    };
    for generation in generations.iter().filter(|it| it.state != "previous") {
        need(&leads_table(generation.number), &["SELECT", "INSERT", "UPDATE"]);
        need(&counts_table(generation.number), &["SELECT", "INSERT", "UPDATE"]);
    }
    need("projection_generation", &["SELECT"]);
    need("projection_offset", &["SELECT", "INSERT", "UPDATE"]);
    need("dead_letters", &["SELECT", "INSERT", "UPDATE"]);
    need("precondition_failures", &["SELECT", "INSERT", "DELETE"]);
    all
}

/// The user may do what the projection does.
pub(super) fn permissions(looked: &Looked) -> Finding {
    judge(&looked.permissions, |(user, missing)| judge_permissions(user, missing))
}

fn judge_permissions(user: &str, missing: &[Missing]) -> Finding {
    let Some((first, _)) = missing.first() else {
        return Finding::ok("the tables can be read and written");
    };
    let mut tables: Vec<(&str, Vec<&str>)> = vec![(first, Vec::new())];
    for (table, right) in missing {
        match tables.last_mut() {
            Some((last, rights)) if *last == table => rights.push(right),
            Some(_) | None => tables.push((table, vec![right])),
        }
    }
    let texts = |join: &str, start: &str| {
        let each = tables
            .iter()
            .map(|(table, rights)| format!("{start}{}{join}{table}", rights.join(", ")));
        each.collect::<Vec<_>>()
    };
    let grants: Vec<_> =
        texts(" ON ", "GRANT ").iter().map(|grant| format!("{grant} TO {user};")).collect();
    Finding::failed(
        format!("user {user} lacks {}", texts(" on ", "").join("; ")),
        format!("psql \"$DATABASE_URL\", as the owner of the tables: {}", grants.join(" ")),
    )
}

/// Why something was not seen, when PostgreSQL refused the question.
pub(super) fn unseen(error: &Error) -> Unseen {
    let halt = explain(classify(error));
    Unseen::Failed { found: halt.cause, fix: halt.cure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_are_told_apart() {
        for (code, words, expected) in [
            (None, "error connecting to server: Connection refused", Obstacle::Connection),
            (None, "error performing TLS handshake: certificate verify failed", Obstacle::Tls),
            (None, "invalid configuration: password missing", Obstacle::Credentials),
            (Some("28P01"), "password authentication failed", Obstacle::Credentials),
            (Some("3D000"), "database does not exist", Obstacle::Database),
            (Some("57P03"), "the database system is starting up", Obstacle::Connection),
        ] {
            assert_eq!(obstacle(code, words), expected, "{words}");
        }
    }

    #[test]
    fn an_older_and_a_newer_schema_have_different_cures() {
        assert_eq!(judge_schema(2, 2), Finding::ok("version 2"));
        assert_eq!(judge_schema(1, 2).fix.as_deref(), Some("leads-consumer migrate"));
        assert!(judge_schema(3, 2).found.contains("newer"));
    }

    #[test]
    fn missing_rights_become_grants() {
        let missing = [("a", "SELECT"), ("a", "INSERT"), ("b", "UPDATE")]
            .map(|(table, right)| (table.to_owned(), right.to_owned()));
        let finding = judge_permissions("u", &missing);
        assert_eq!(finding.found, "user u lacks SELECT, INSERT on a; UPDATE on b");
        let fix = finding.fix.unwrap_or_default();
        assert!(fix.ends_with("GRANT SELECT, INSERT ON a TO u; GRANT UPDATE ON b TO u;"), "{fix}");
    }
}
