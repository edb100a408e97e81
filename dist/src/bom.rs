//! The list of parts as `CycloneDX` 1.6 in JSON, the same for the same sources.
//! Source: <https://cyclonedx.org/docs/1.6/json/>

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::native::Native;
use crate::parts::{Part, Parts};
use crate::{BINARIES, Release, VERSION};

/// The document.
///
/// # Errors
/// None that can be met: it is written into memory.
pub fn document(release: &Release, parts: &Parts) -> Result<String> {
    let Release { commit, date, target, .. } = release;
    let number = format!("leads {VERSION} {commit} {target}");
    let product = format!("leads@{VERSION}");
    let crates = parts.crates.iter().map(of_a_crate);
    let native = parts.native.iter().map(of_a_native);
    let binaries = parts.crates.iter().filter(|part| BINARIES.contains(&part.name.as_str()));
    let binaries: Vec<_> = binaries.map(Part::reference).collect();
    let dependencies = [json!({"ref": product, "dependsOn": binaries})].into_iter();
    let mut metadata = json!({
        "tools": {"components": [{"type": "application", "name": "leads-dist", "version": VERSION}]},
        "component": {
            "type": "application",
            "bom-ref": product,
            "name": "leads",
            "version": VERSION,
            "licenses": [{"license": {"id": "Apache-2.0"}}],
            "properties": [
                {"name": "leads:commit", "value": commit},
                {"name": "leads:target", "value": target},
            ],
        },
    });
    if release.has_a_day() {
        metadata["timestamp"] = json!(format!("{date}T00:00:00Z"));
    }
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": Uuid::new_v5(&Uuid::NAMESPACE_OID, number.as_bytes()).urn().to_string(),
        "version": 1,
        "metadata": metadata,
        "components": crates.chain(native).collect::<Vec<_>>(),
        "dependencies": dependencies.chain(uses(parts)).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn of_a_crate(part: &Part) -> Value {
    let kind = if BINARIES.contains(&part.name.as_str()) { "application" } else { "library" };
    let mut component = json!({
        "type": kind,
        "bom-ref": part.reference(),
        "name": part.name,
        "version": part.version,
        "scope": "required",
    });
    if let Some(description) = &part.description {
        component["description"] =
            json!(description.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    if let Some(license) = &part.license {
        component["licenses"] = json!([{"expression": expression(license)}]);
    }
    // What is of this workspace is on no registry.
    if let Some(checksum) = &part.checksum {
        let version = part.version.replace('+', "%2B");
        component["purl"] = json!(format!("pkg:cargo/{}@{version}", part.name));
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = &part.repository {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

fn of_a_native(native: &Native) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": native.reference(),
        "name": native.name,
        "version": native.version,
        "scope": "required",
        "licenses": [{"expression": native.license}],
        "purl": native.purl,
    });
    if let Some(cpe) = &native.cpe {
        component["cpe"] = json!(cpe);
    }
    component
}

fn uses(parts: &Parts) -> impl Iterator<Item = Value> {
    let crates = parts.crates.iter().map(|part| {
        let reference = part.reference();
        let brought = parts.native.iter().filter(|native| match &native.brought_by {
            Some(by) => *by == reference,
            None => BINARIES.contains(&part.name.as_str()),
        });
        let all: Vec<_> = part.uses.iter().cloned().chain(brought.map(Native::reference)).collect();
        json!({"ref": reference, "dependsOn": all})
    });
    let native = parts.native.iter().map(|native| json!({"ref": native.reference()}));
    crates.chain(native)
}

/// Old packages write `MIT/Apache-2.0`, which SPDX has no longer.
pub(crate) fn expression(license: &str) -> String {
    license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}
