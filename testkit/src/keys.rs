//! API keys, made by the real command.

use serde_json::Value;
use uuid::Uuid;

use crate::System;

/// What a key is to be like; what isn't given is left to the command's defaults.
#[derive(Debug, Clone, Default)]
pub struct KeySpec {
    /// The workspace; `None` is a new one.
    pub workspace: Option<Uuid>,
    /// A name for the list.
    pub name: Option<String>,
    /// `prod` or `dev`.
    pub kind: Option<String>,
    /// `leads:write`, `leads:read`, or both with a comma.
    pub scopes: Option<String>,
    /// Requests a minute; `Some(0)` is no limit.
    pub rate_limit: Option<u32>,
}

/// A key that was made.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id, for `rotate` and `revoke`.
    pub id: String,
    /// The secret, as it goes into a request.
    pub secret: String,
    /// The workspace it belongs to.
    pub workspace: Uuid,
    /// All that the command printed.
    pub json: Value,
}

impl Key {
    /// A key out of what `keys create --json` or `keys rotate --json` printed.
    pub fn from_json(json: Value) -> Self {
        let text = |name: &str| {
            json[name].as_str().unwrap_or_else(|| panic!("no {name} in {json}")).to_owned()
        };
        let workspace = Uuid::parse_str(&text("workspace_id")).expect("workspace_id is a UUID");
        Self { id: text("id"), secret: text("key"), workspace, json }
    }
}

impl System {
    /// Runs `leads-api keys create`. An API that is running already learns of the key shortly
    /// after, not at once.
    pub async fn create_key(&self, spec: KeySpec) -> Key {
        let KeySpec { workspace, name, kind, scopes, rate_limit } = spec;
        let workspace = workspace.unwrap_or_else(Uuid::new_v4).to_string();
        let rate_limit = rate_limit.map(|limit| limit.to_string());
        let mut args = vec!["create", "--json", "--workspace", &workspace];
        for (flag, value) in [
            ("--name", &name),
            ("--kind", &kind),
            ("--scopes", &scopes),
            ("--rate-limit", &rate_limit),
        ] {
            args.extend(value.iter().flat_map(|value| [flag, value.as_str()]));
        }
        let output = self.keys(&args).await;
        assert!(output.status.success(), "keys create: {output:?}");
        Key::from_json(serde_json::from_slice(&output.stdout).expect("--json prints JSON"))
    }
}
