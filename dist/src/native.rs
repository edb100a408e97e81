//! What is linked in and is no package of cargo: C libraries that packages bring along, pages that
//! they embed, Rust's own library. Scanners look for these by other names than those of the packages.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cargo_metadata::Package;

use crate::Release;
use crate::parts::{Part, reference};

/// One of them.
#[derive(Debug, Clone)]
pub struct Native {
    /// Its usual name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// The SPDX expression of its licence.
    pub license: &'static str,
    /// What package brings it, as [`Part::reference`]; none for Rust's own library.
    pub brought_by: Option<String>,
    /// Its package URL.
    pub purl: String,
    /// What vulnerability databases call it.
    pub cpe: Option<String>,
    /// Files with its licence and notices.
    pub notices: Vec<PathBuf>,
}

impl Native {
    /// Names it within a list of parts.
    pub fn reference(&self) -> String {
        reference(self.name, &self.version)
    }
}

/// Where a thing is found.
struct Entry {
    name: &'static str,
    /// The package that links it.
    links: &'static str,
    /// The package that has its source and tells its version.
    source: &'static str,
    version: fn(&Package) -> Option<String>,
    license: &'static str,
    /// Up to the version.
    purl: &'static str,
    /// Vendor and product.
    cpe: Option<&'static str>,
    /// Below the package with its source.
    notices: &'static [&'static str],
}

const ENTRIES: [Entry; 5] = [
    Entry {
        name: "librdkafka",
        links: "rdkafka-sys",
        source: "rdkafka-sys",
        version: built_of,
        license: "BSD-2-Clause",
        purl: "pkg:github/confluentinc/librdkafka@v",
        cpe: None,
        notices: &["librdkafka/LICENSES.txt"],
    },
    Entry {
        name: "openssl",
        links: "openssl-sys",
        source: "openssl-src",
        version: built_of,
        license: "Apache-2.0",
        purl: "pkg:generic/openssl@",
        cpe: Some("openssl:openssl"),
        notices: &["openssl/LICENSE.txt"],
    },
    Entry {
        name: "zlib",
        links: "libz-sys",
        source: "libz-sys",
        version: |package| of_a_file(package, "src/zlib/zlib.h", "#define ZLIB_VERSION \"", '"'),
        license: "Zlib",
        purl: "pkg:generic/zlib@",
        cpe: Some("zlib:zlib"),
        notices: &["src/zlib/LICENSE"],
    },
    Entry {
        name: "zstd",
        links: "zstd-sys",
        source: "zstd-sys",
        version: |package| built_of(package)?.strip_prefix("zstd.").map(str::to_owned),
        license: "BSD-3-Clause",
        purl: "pkg:github/facebook/zstd@v",
        cpe: Some("facebook:zstandard"),
        notices: &["zstd/LICENSE"],
    },
    Entry {
        name: "swagger-ui",
        links: "utoipa-swagger-ui",
        source: "utoipa-swagger-ui-vendored",
        version: |package| of_a_file(package, "README.md", "Swagger UI version: `", '`'),
        license: "Apache-2.0",
        purl: "pkg:npm/swagger-ui-dist@",
        cpe: None,
        notices: &[],
    },
];

/// Those that `linked` brings along.
///
/// # Errors
/// One whose version or licence is not where it used to be.
pub fn of(release: &Release, packages: &[Package], linked: &[Part]) -> Result<Vec<Native>> {
    let mut all = Vec::new();
    for entry in &ENTRIES {
        let Some(part) = linked.iter().find(|part| part.name == entry.links) else { continue };
        let mut found = packages.iter().filter(|package| package.name.as_str() == entry.source);
        let (Some(package), None) = (found.next(), found.next()) else {
            bail!("{}: expected one package {}", entry.name, entry.source);
        };
        let version = (entry.version)(package);
        let version = version.with_context(|| format!("{}: its version", entry.name))?;
        let folder = package.manifest_path.parent().context("a manifest without a folder")?;
        let notices = entry.notices.iter().map(|file| folder.join(file).into_std_path_buf());
        all.push(Native {
            name: entry.name,
            license: entry.license,
            brought_by: Some(part.reference()),
            purl: format!("{}{version}", entry.purl),
            cpe: entry.cpe.map(|product| format!("cpe:2.3:a:{product}:{version}:*:*:*:*:*:*:*")),
            notices: notices.collect(),
            version,
        });
    }
    all.push(Native {
        name: "rust-std",
        version: release.rustc.clone(),
        license: "MIT OR Apache-2.0",
        brought_by: None,
        purl: format!("pkg:github/rust-lang/rust@{}", release.rustc),
        cpe: Some(format!("cpe:2.3:a:rust-lang:rust:{}:*:*:*:*:*:*:*", release.rustc)),
        notices: Vec::new(),
    });
    Ok(all)
}

/// What stands behind the `+` of a package's version.
fn built_of(package: &Package) -> Option<String> {
    let version = package.version.to_string();
    version.split_once('+').map(|(_, built_of)| built_of.to_owned())
}

fn of_a_file(package: &Package, file: &str, before: &str, end: char) -> Option<String> {
    let text = fs::read_to_string(package.manifest_path.parent()?.join(file)).ok()?;
    let version = text.split_once(before)?.1.split(end).next()?;
    Some(version.to_owned())
}
