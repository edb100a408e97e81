//! What the binaries are made of, by cargo: packages that are linked in, not those that only build.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::native::{self, Native};
use crate::{BINARIES, Release};

/// Everything that a release is made of.
#[derive(Debug)]
pub struct Parts {
    /// Packages of this workspace and of crates.io, by name and version.
    pub crates: Vec<Part>,
    /// What those bring along in other languages, and Rust's own library.
    pub native: Vec<Native>,
}

/// A package that is linked into a binary.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for, in its own words.
    pub description: Option<String>,
    /// The SPDX expression of its licence.
    pub license: Option<String>,
    /// Who made it.
    pub authors: Vec<String>,
    /// Where its source is.
    pub repository: Option<String>,
    /// SHA-256 of its archive on crates.io; none for packages of this workspace.
    pub checksum: Option<String>,
    /// Its unpacked source.
    pub folder: PathBuf,
    /// What it uses, as [`Part::reference`].
    pub uses: Vec<String>,
}

impl Part {
    /// Names it within a list of parts.
    pub fn reference(&self) -> String {
        reference(&self.name, &self.version)
    }

    /// Whether it is of this workspace.
    pub fn is_ours(&self) -> bool {
        self.checksum.is_none()
    }
}

/// As in `serde@1.0.228`.
pub(crate) fn reference(name: &str, version: &str) -> String {
    format!("{name}@{version}")
}

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

impl Parts {
    /// Asks cargo what the binaries link when they are built together for the release's target.
    ///
    /// # Errors
    /// What cargo refused, or a part that can't be found out about.
    pub fn of(release: &Release) -> Result<Self> {
        let linked = linked(&release.target)?;
        let metadata = MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .other_options(["--locked", "--filter-platform", &release.target].map(str::to_owned))
            .exec()
            .context("cargo metadata")?;
        let checksums = checksums()?;
        let uses = uses(&metadata, &linked);
        let mut crates = Vec::new();
        for package in &metadata.packages {
            let key = key(package);
            if !linked.contains(&key) {
                continue;
            }
            let folder = package.manifest_path.parent().context("a manifest without a folder")?;
            let checksum = checksums.get(&key).cloned();
            if package.source.is_some() && checksum.is_none() {
                bail!("{} {}: Cargo.lock has no checksum of it", key.0, key.1);
            }
            crates.push(Part {
                name: key.0,
                version: key.1,
                description: package.description.clone(),
                license: package.license.clone(),
                authors: package.authors.clone(),
                repository: package.repository.clone(),
                checksum,
                folder: folder.as_std_path().to_owned(),
                uses: uses.get(&package.id).cloned().unwrap_or_default(),
            });
        }
        if crates.len() != linked.len() {
            bail!("cargo tree names {} packages, cargo metadata {}", linked.len(), crates.len());
        }
        crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        let native = native::of(release, &metadata.packages, &crates)?;
        Ok(Self { crates, native })
    }
}

fn key(package: &Package) -> (String, String) {
    (package.name.to_string(), package.version.to_string())
}

/// Name and version of what is linked. `cargo metadata` would add what only tests switch on.
fn linked(target: &str) -> Result<BTreeSet<(String, String)>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}"])
        .args(["--edges", "normal,no-proc-macro", "--target", target])
        .args(BINARIES.iter().flat_map(|binary| ["--package", binary]))
        .current_dir(root())
        .output()
        .context("cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        Some((name.to_owned(), version.to_owned()))
    });
    Ok(lines.collect())
}

/// What each linked package uses of the others.
fn uses(
    metadata: &Metadata,
    linked: &BTreeSet<(String, String)>,
) -> HashMap<PackageId, Vec<String>> {
    let names: HashMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, key(package))).collect();
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let all = nodes.map(|node| {
        let normal = node.deps.iter().filter(|dependency| {
            dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
        });
        let linked = normal.filter_map(|dependency| {
            names.get(&dependency.pkg).filter(|name| linked.contains(*name))
        });
        let used: BTreeSet<_> = linked.map(|(name, version)| reference(name, version)).collect();
        (node.id.clone(), used.into_iter().collect())
    });
    all.collect()
}

/// Name and version → SHA-256, by `Cargo.lock`.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let path = root().join("Cargo.lock");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let field = |block: &str, name: &str| {
        let mut lines = block.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    let packages = text.split("[[package]]").skip(1).filter_map(|block| {
        let key = (field(block, "name")?, field(block, "version")?);
        Some((key, field(block, "checksum")?))
    });
    Ok(packages.collect())
}
