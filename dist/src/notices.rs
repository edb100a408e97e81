//! The licences of what is linked in, as their texts ask for: each text once, with all that is under it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bom::expression;
use crate::parts::Parts;

/// Beginnings of the names that packages give such files, in lower case.
const NAMES: [&str; 7] =
    ["license", "licence", "copying", "notice", "unlicense", "copyright", "authors"];

/// One whose texts are to be told.
struct Owed {
    title: String,
    files: Vec<PathBuf>,
}

/// The whole text.
///
/// # Errors
/// A file that can't be read.
pub fn text(parts: &Parts) -> Result<String> {
    let mut text = "leads is under the Apache License 2.0, whose text is LICENSE. Its binaries contain the following.\n\n"
        .to_owned();
    let mut owed = Vec::new();
    for part in parts.crates.iter().filter(|part| !part.is_ours()) {
        let license = part.license.as_deref().map_or_else(|| "see its text".to_owned(), expression);
        let title = format!("{} {} ({license})", part.name, part.version);
        let files = notices_in(&part.folder)?;
        if files.is_empty() {
            let authors = part.authors.join(", ");
            let repository = part.repository.as_deref().unwrap_or_default();
            let _ = writeln!(text, "{title}\n    no text in its package; {authors} {repository}");
        } else {
            let _ = writeln!(text, "{title}");
        }
        owed.push(Owed { title, files });
    }
    for native in &parts.native {
        let title = format!("{} {} ({})", native.name, native.version, native.license);
        let _ = writeln!(text, "{title}");
        owed.push(Owed { title, files: native.notices.clone() });
    }
    for (notice, titles) in &by_text(&owed)? {
        let rule = "=".repeat(100);
        let _ = writeln!(text, "\n{rule}\n{}\n\n{notice}", titles.join("\n"));
    }
    Ok(text)
}

/// Text → whose it is.
fn by_text(owed: &[Owed]) -> Result<BTreeMap<String, Vec<&str>>> {
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for Owed { title, files } in owed {
        for file in files {
            let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            let titles = texts.entry(text.trim_matches('\n').to_owned()).or_default();
            if !titles.contains(&title.as_str()) {
                titles.push(title);
            }
        }
    }
    Ok(texts)
}

/// Files of that kind at the top of a package, by name.
fn notices_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_file() && NAMES.iter().any(|known| name.starts_with(known)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
