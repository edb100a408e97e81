//! Whether an answer is what it has to be.

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::canonical::canonical;
use super::generator::Sent;
use super::invalid::Refusal;

/// What a 201 promised.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) given: Given,
    /// Which of the day's workspaces.
    pub(super) workspace: usize,
    /// Whether an earlier try may have been taken in without an answer. Then that one stands, and
    /// the times of this answer are not its.
    retried: bool,
    /// Checksum of the lead as it was sent and acknowledged, in its canonical form.
    pub(super) sent: [u8; 32],
    /// The same of what GET answered.
    pub(super) got: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What only the service knows.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Given {
    pub(super) id: Uuid,
    created_at: String,
    updated_at: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    message: String,
    details: Details,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    fields: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    field: String,
    code: String,
    message: String,
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect()
}

fn checksum(canonical: &str) -> [u8; 32] {
    Sha256::digest(canonical.as_bytes()).into()
}

/// The lead that was sent, as an answer has to show it, in canonical form.
fn expected(sent: &Sent, given: &Given, workspace_id: Uuid) -> Result<String> {
    let Sent {
        visitor_id,
        identity_id,
        session_id,
        company_id,
        code,
        source,
        properties,
        location,
    } = sent;
    let text = |value: &Option<String>| serde_json::to_string(value);
    let raw = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let lead = [
        ("id", format!("\"{}\"", given.id)),
        ("visitor_id", text(visitor_id)?),
        ("workspace_id", format!("\"{workspace_id}\"")),
        ("code", text(code)?),
        ("source", text(source)?),
        ("created_at", serde_json::to_string(&given.created_at)?),
        ("updated_at", serde_json::to_string(&given.updated_at)?),
        ("properties", raw(properties)),
        ("location", raw(location)),
        ("identity_id", text(identity_id)?),
        ("session_id", text(session_id)?),
        ("summary", "null".to_owned()),
        ("company_id", text(company_id)?),
    ];
    let fields: Vec<_> = lead.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    canonical(&format!("{{{}}}", fields.join(",")))
}

/// The answer to a valid lead, which was sent more than once if `retried`.
pub(super) fn accepted(
    status: u16,
    answer: &[u8],
    sent: &Sent,
    (workspace, workspace_id): (usize, Uuid),
    retried: bool,
) -> Result<Receipt> {
    ensure!(status == 201, "valid, and answered {status}: {}", shown(answer));
    let data = serde_json::from_slice::<Answer<'_>>(answer)?.data.get();
    let given: Given = serde_json::from_str(data)?;
    let expected = expected(sent, &given, workspace_id)?;
    let got = canonical(data)?;
    ensure!(got == expected, "the 201 shows another lead: {}", difference(&expected, &got));
    Ok(Receipt { given, workspace, retried, sent: checksum(&expected), got: None })
}

/// The answer to an invalid one.
pub(super) fn refused(status: u16, answer: &[u8], refusal: &Refusal) -> Result<()> {
    let Refusal { name, status: wanted, code, field, .. } = refusal;
    ensure!(status == *wanted, "{name}: {status} instead of {wanted}: {}", shown(answer));
    let error: ErrorAnswer = serde_json::from_slice(answer)?;
    ensure!(error.error == *code, "{name}: {} instead of {code}", error.error);
    ensure!(!error.message.is_empty(), "{name}: no message");
    if let Some((field, code)) = field {
        let mut found = error.details.fields.iter();
        let named = found.any(|e| e.field == *field && e.code == *code && !e.message.is_empty());
        ensure!(named, "{name}: details.fields lacks {field} {code}: {}", shown(answer));
    }
    Ok(())
}

/// The answer to the GET of an accepted lead.
pub(super) fn read_back(
    status: u16,
    answer: &[u8],
    sent: &Sent,
    workspace_id: Uuid,
    receipt: &mut Receipt,
) -> Result<()> {
    ensure!(status == 200, "accepted, and GET answers {status}: {}", shown(answer));
    let data = serde_json::from_slice::<Answer<'_>>(answer)?.data.get();
    if receipt.retried {
        let Given { id: _, created_at, updated_at } = serde_json::from_str(data)?;
        receipt.given = Given { id: receipt.given.id, created_at, updated_at };
    }
    let expected = expected(sent, &receipt.given, workspace_id)?;
    let got = canonical(data)?;
    receipt.sent = checksum(&expected);
    receipt.got = Some(checksum(&got));
    ensure!(got == expected, "GET shows another lead: {}", difference(&expected, &got));
    Ok(())
}

/// The place where two texts part.
fn difference(expected: &str, got: &str) -> String {
    let same = expected.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(30);
    let part = |text: &str| text.chars().skip(from).take(100).collect::<String>();
    format!("expected …{} got …{}", part(expected), part(got))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::invalid::KINDS;

    fn answer(properties: &str, visitor: &str) -> String {
        format!(
            r#"{{"data":{{"id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55","visitor_id":{visitor},
            "workspace_id":"{}","code":null,"source":"é","created_at":"t","updated_at":"t",
            "properties":{properties},"location":null,"identity_id":null,"session_id":null,
            "summary":null,"company_id":null}}}}"#,
            Uuid::nil()
        )
    }

    fn sent() -> Sent {
        Sent {
            source: Some("é".to_owned()),
            properties: Some(r#"{"n":1e2,"a":1,"n":12345678901234567890}"#.to_owned()),
            ..Sent::default()
        }
    }

    fn post(status: u16, answer: &str, retried: bool) -> Result<Receipt> {
        accepted(status, answer.as_bytes(), &sent(), (0, Uuid::nil()), retried)
    }

    fn get(status: u16, answer: &str, receipt: &mut Receipt) -> Result<()> {
        read_back(status, answer.as_bytes(), &sent(), Uuid::nil(), receipt)
    }

    #[test]
    fn equal_in_value_is_equal() {
        let got = answer(r#"{"a": 1.0, "n": 12345678901234567890}"#, "null");
        let mut receipt = post(201, &got, false).unwrap();
        get(200, &got, &mut receipt).unwrap();
        assert_eq!(receipt.got, Some(receipt.sent));
    }

    #[test]
    fn a_digit_a_field_or_a_status_is_a_difference() {
        let good = answer(r#"{"a": 1.0, "n": 12345678901234567890}"#, "null");
        let digit = answer(r#"{"a": 1.0, "n": 12345678901234567891}"#, "null");
        let field = answer(r#"{"a": 1.0, "n": 12345678901234567890}"#, "\"x\"");
        assert!(post(200, &good, false).is_err());
        assert!(post(201, &digit, false).unwrap_err().to_string().contains("567891"));
        assert!(post(201, &field, false).is_err());
        let mut receipt = post(201, &good, false).unwrap();
        assert!(get(200, &digit, &mut receipt).is_err());
        assert_ne!(receipt.got, Some(receipt.sent));
        assert!(get(404, &good, &mut receipt).is_err());
    }

    #[test]
    fn times_may_differ_after_a_retry_only() {
        let good = answer(r#"{"a":1,"n":12345678901234567890}"#, "null");
        let earlier = good.replace("\"t\"", "\"s\"");
        assert!(get(200, &earlier, &mut post(201, &good, false).unwrap()).is_err());
        get(200, &earlier, &mut post(201, &good, true).unwrap()).unwrap();
    }

    #[test]
    fn a_refusal_has_to_name_the_field() {
        let refusal = &KINDS[0];
        let text = |field: &str| {
            format!(
                r#"{{"error":"validation_failed","message":"m","details":{{"fields":[{{"field":"{field}","code":"invalid_uuid","message":"m"}}]}}}}"#
            )
        };
        refused(400, text("visitor_id").as_bytes(), refusal).unwrap();
        assert!(refused(400, text("company_id").as_bytes(), refusal).is_err());
        assert!(refused(422, text("visitor_id").as_bytes(), refusal).is_err());
        assert!(refused(400, b"{}", refusal).is_err());
    }
}
