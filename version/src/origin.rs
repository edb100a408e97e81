//! Which commit a build is of. The build script's; the library has it for its tests alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is told when nothing is known.
pub(crate) const UNKNOWN: &str = "unknown";
/// The packages that the binaries are built from.
const PACKAGES: [&str; 7] =
    ["api", "consumer", "migrations", "postgres", "shared", "traces", "version"];
/// What else they are built from.
const FILES: [&str; 3] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

/// Where a build comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The commit.
    pub(crate) commit: String,
    /// Its day.
    pub(crate) date: String,
    /// Files and folders; a change of one may be a change of the above. All of them exist: cargo
    /// would run the script each time for one that doesn't.
    pub(crate) watch: Vec<PathBuf>,
}

impl Origin {
    /// Finds it out; asks git only where `ask_git` is set and `root` is a clone of its own.
    ///
    /// # Errors
    /// A variable that is no commit or day.
    pub(crate) fn find(
        root: &Path,
        ask_git: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let told = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(commit) = told("LEADS_COMMIT") {
            let date = told("LEADS_COMMIT_DATE").unwrap_or_else(|| UNKNOWN.to_owned());
            for (name, value) in [("LEADS_COMMIT", &commit), ("LEADS_COMMIT_DATE", &date)] {
                if !is_plain(value) {
                    return Err(format!("{name}: expected 1 to 64 letters, digits, . _ or -"));
                }
            }
            return Ok(Self { commit, date, watch: Vec::new() });
        }
        // A .git further up is that of something else that this was unpacked into.
        if root.join(".git").exists() {
            let unknown = || Self::unknown(Vec::new());
            return Ok(if ask_git {
                Self::of_git(root).unwrap_or_else(unknown)
            } else {
                unknown()
            });
        }
        Ok(Self::of_archive(root))
    }

    fn unknown(watch: Vec<PathBuf>) -> Self {
        Self { commit: UNKNOWN.to_owned(), date: UNKNOWN.to_owned(), watch }
    }

    /// By what `git archive` wrote into `version/COMMIT`.
    fn of_archive(root: &Path) -> Self {
        let file = root.join("version/COMMIT");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let watch = if file.exists() { vec![file] } else { Vec::new() };
        match text.trim().split_once(' ') {
            Some((commit, date)) if is_plain(commit) && is_plain(date) => {
                Self { commit: commit.to_owned(), date: date.to_owned(), watch }
            }
            _ => Self::unknown(watch),
        }
    }

    fn of_git(root: &Path) -> Option<Self> {
        let shown = git(root, &["show", "--no-patch", "--abbrev=12", "--format=%h %cs", "HEAD"])?;
        let (commit, date) = shown.split_once(' ')?;
        let mut changes = vec!["status", "--porcelain", "--"];
        changes.extend(FILES.iter().chain(&PACKAGES));
        changes.push(":(exclude,glob)*/tests/**");
        let is_dirty = !git(root, &changes)?.is_empty();
        let commit = if is_dirty { format!("{commit}-dirty") } else { commit.to_owned() };
        Some(Self { commit, date: date.to_owned(), watch: watch(root) })
    }
}

/// Git's own files that change with a commit, and the sources.
fn watch(root: &Path) -> Vec<PathBuf> {
    // The log of HEAD grows with each commit and checkout, wherever the branch is kept.
    let of_git = ["HEAD", "logs/HEAD"].into_iter().filter_map(|name| {
        let path = git(root, &["rev-parse", "--git-path", name])?;
        Some(root.join(path))
    });
    let files = FILES.iter().map(|name| root.join(name));
    let in_packages = PACKAGES.iter().flat_map(|package| {
        let entries = fs::read_dir(root.join(package)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.ends_with("tests"))
    });
    let mut all: Vec<_> = of_git.chain(files).chain(in_packages).collect();
    all.retain(|path| path.exists());
    all.sort();
    all
}

/// What git answers, without the line's end.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

/// Fit for a line, a label of a metric and a file's name.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&text.len()) && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, deleted at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let unique = format!("leads-version-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(unique);
            for part in ["api/src", "api/tests", "version", "docs"] {
                fs::create_dir_all(path.join(part)).unwrap();
            }
            for file in ["Cargo.toml", "api/src/main.rs", "api/tests/main.rs", "docs/page.md"] {
                fs::write(path.join(file), "first").unwrap();
            }
            fs::write(path.join("version/COMMIT"), "$Format:%h %cs$\n").unwrap();
            Self(path)
        }

        fn git(&self, arguments: &[&str]) -> String {
            git(&self.0, arguments).unwrap_or_else(|| panic!("git {arguments:?}"))
        }

        fn commit(&self) {
            self.git(&["add", "--all"]);
            let author = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
            self.git(&[&author[..], &["commit", "--quiet", "--message", "a"]].concat());
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }

        fn origin(&self) -> Origin {
            Origin::find(&self.0, true, |_| None).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_environment_comes_first() {
        let folder = Folder::new("environment");
        let of = |commit: &str, date: &str| {
            let (commit, date) = (commit.to_owned(), date.to_owned());
            Origin::find(&folder.0, true, move |name| {
                Some(if name == "LEADS_COMMIT" { commit.clone() } else { date.clone() })
            })
        };
        let origin = of("0123abc", "2026-11-22").unwrap();
        assert_eq!((origin.commit.as_str(), origin.date.as_str()), ("0123abc", "2026-11-22"));
        assert_eq!(of("0123abc", "").unwrap().date, UNKNOWN);
        assert_eq!(of("", "").unwrap().commit, UNKNOWN, "an empty variable is none");
        for bad in ["a b", "a\nb", "a\"b", &"a".repeat(65)] {
            let error = of(bad, "").unwrap_err();
            assert!(error.starts_with("LEADS_COMMIT: "), "{error}");
            assert!(of("0123abc", bad).is_err());
        }
    }

    #[test]
    fn a_release_has_the_commit_of_git_and_marks_changed_sources() {
        let folder = Folder::new("git");
        folder.git(&["init", "--quiet"]);
        assert_eq!(folder.origin().commit, UNKNOWN, "no commit yet");
        folder.commit();
        let commit = folder.git(&["rev-parse", "--short=12", "HEAD"]);
        assert_eq!(folder.origin().commit, commit);
        assert_eq!(folder.origin().date, folder.git(&["show", "-s", "--format=%cs"]));

        folder.write("docs/page.md", "second");
        folder.write("api/tests/main.rs", "second");
        assert_eq!(folder.origin().commit, commit, "no binary is made of these");
        folder.write("api/src/main.rs", "second");
        assert_eq!(folder.origin().commit, format!("{commit}-dirty"));
        folder.commit();
        assert!(!folder.origin().commit.contains("dirty"));
        folder.write("api/src/new.rs", "new");
        assert!(folder.origin().commit.ends_with("-dirty"), "a file that git doesn't know");

        let tests = Origin::find(&folder.0, false, |_| None).unwrap();
        assert_eq!(tests, Origin::unknown(Vec::new()), "a build for the tests");
    }

    #[test]
    fn what_is_watched_is_there_and_moves_with_a_commit() {
        let folder = Folder::new("watch");
        folder.git(&["init", "--quiet"]);
        folder.commit();
        let watch = folder.origin().watch;
        assert!(watch.iter().all(|path| path.exists()), "{watch:?}");
        assert!(watch.contains(&folder.0.join("api/src")), "{watch:?}");
        assert!(!watch.contains(&folder.0.join("api/tests")), "{watch:?}");
        let read = || watch.iter().filter_map(|path| fs::read(path).ok()).collect::<Vec<_>>();
        let before = read();
        folder.write("docs/page.md", "second");
        folder.commit();
        assert_ne!(read(), before, "a commit that changes no source");
    }

    #[test]
    fn an_archive_knows_its_commit() {
        let folder = Folder::new("archive");
        assert_eq!(folder.origin().commit, UNKNOWN, "sources without git");
        folder.write("version/COMMIT", "fab2f83 2026-11-22\n");
        let origin = folder.origin();
        assert_eq!((origin.commit.as_str(), origin.date.as_str()), ("fab2f83", "2026-11-22"));
        assert_eq!(origin.watch, [folder.0.join("version/COMMIT")]);
    }
}
