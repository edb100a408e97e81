//! A disk that is full before long.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::System;
use crate::children::Guard;
use crate::tls::Folder;

/// A small file system of its own as a tablespace. Take it with a [`crate::Stack`] of its own: a
/// server that outlives its tablespace's disk does not come to rest.
#[derive(Debug)]
pub struct Disk {
    folder: Folder,
    _guard: Guard,
}

impl Disk {
    /// Mounts one of so many MiB and makes the tablespace `small` on it.
    ///
    /// # Errors
    /// Why there can be none here: only root may mount, where the system lets it.
    ///
    /// # Panics
    /// When PostgreSQL refuses the tablespace.
    pub async fn small(system: &System, mebibytes: u32) -> Result<Self, String> {
        let data: String = system.rows("SHOW data_directory", &[]).await[0].get(0);
        let owner = std::fs::metadata(&data).map_err(|error| format!("{data}: {error}"))?;
        let folder = Folder::new();
        let path = folder.path().to_str().expect("a temporary folder has a plain name").to_owned();
        let options =
            format!("size={mebibytes}m,mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        mount(&["-t", "tmpfs", "-o", &options, "leads-testkit", &path])?;
        let guard = Guard::new("umount -l \"$1\"; rmdir \"$1\"", &[&path]);
        let disk = Self { folder, _guard: guard };
        let sql = format!("CREATE TABLESPACE small LOCATION '{path}'");
        system.db().await.batch_execute(&sql).await.expect("a tablespace");
        Ok(disk)
    }

    /// Gives it so many MiB in all.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn grow(&self, mebibytes: u32) {
        let options = format!("remount,size={mebibytes}m");
        let path = self.folder.path().to_string_lossy();
        mount(&["-o", &options, &path]).expect("what is mounted can be remounted");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whatever a server still holds there goes with it.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).output();
    }
}

fn mount(args: &[&str]) -> Result<(), String> {
    match Command::new("mount").args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("mount: {error}")),
    }
}
