//! The room that PostgreSQL's data has, where it can be seen from here.

use std::path::Path;

use tokio_postgres::Client;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// In all, in bytes.
    pub size: u64,
    /// What is free for PostgreSQL, in bytes.
    pub free: u64,
}

/// Looks at the file system of the server's data.
///
/// # Errors
/// Why it can't be seen, in words.
pub async fn look(client: &Client) -> Result<Disk, String> {
    let query = "SELECT current_setting('data_directory'),
        COALESCE(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)";
    let row = client.query_one(query, &[]).await;
    let row = row.and_then(|row| Ok((row.try_get::<_, String>(0)?, row.try_get::<_, bool>(1)?)));
    match row {
        Ok((_, false)) => Err("PostgreSQL runs on another machine".to_owned()),
        Ok((directory, true)) => of(Path::new(&directory)),
        Err(_) => Err("the user may not see data_directory (GRANT pg_read_all_settings would let \
             it)"
        .to_owned()),
    }
}

fn of(directory: &Path) -> Result<Disk, String> {
    match rustix::fs::statvfs(directory) {
        Ok(found) => Ok(Disk {
            size: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        }),
        Err(error) => Err(format!("the data can't be seen from here: {error}")),
    }
}
