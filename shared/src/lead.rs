//! The lead and what an update changes of it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Timestamp;

/// Longest `code` and `source`, in Unicode characters. Four bytes each keep an index key of
/// PostgreSQL (about 2.7 kB) out of reach.
pub const TEXT_MAX_CHARS: usize = 255;

/// A lead, in the order in which its fields are written wherever it appears: in the log, in
/// answers, in the read model. Absent optionals are `null`, never omitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lead<'a> {
    /// Unique within its workspace: a `UUIDv7`, or a `UUIDv5` of workspace and idempotency key.
    pub id: Uuid,
    /// The visitor the lead came from.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub visitor_id: Option<Uuid>,
    /// The workspace that owns the lead.
    pub workspace_id: Uuid,
    /// Campaign or referral code, 1 to 255 characters.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 1, max_length = 255, required))]
    pub code: Option<Text<'a>>,
    /// Where the lead came from, 1 to 255 characters.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 1, max_length = 255, required))]
    pub source: Option<Text<'a>>,
    /// When the API took the lead in.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When the last effective change was taken in; never goes back.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
    /// A JSON object of the client's.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>, required))]
    pub properties: Option<Json<'a>>,
    /// A JSON object of the client's.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>, required))]
    pub location: Option<Json<'a>>,
    /// The identity the visitor was resolved to.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub identity_id: Option<Uuid>,
    /// The session the lead came from.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub session_id: Option<Uuid>,
    /// A JSON object set by later enrichment.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>, required))]
    pub summary: Option<Json<'a>>,
    /// The company the lead belongs to.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub company_id: Option<Uuid>,
}

impl<'a> Lead<'a> {
    /// Applies an update that was taken in at `at`: a given field is replaced whole.
    pub fn apply(&mut self, changes: Changes<'a>, at: Timestamp) {
        let Changes {
            visitor_id,
            code,
            source,
            properties,
            location,
            identity_id,
            session_id,
            summary,
            company_id,
        } = changes;
        visitor_id.apply_to(&mut self.visitor_id);
        code.apply_to(&mut self.code);
        source.apply_to(&mut self.source);
        properties.apply_to(&mut self.properties);
        location.apply_to(&mut self.location);
        identity_id.apply_to(&mut self.identity_id);
        session_id.apply_to(&mut self.session_id);
        summary.apply_to(&mut self.summary);
        company_id.apply_to(&mut self.company_id);
        self.updated_at = self.updated_at.max(at);
    }
}

/// What an update does to one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// The field was absent: it stays.
    #[default]
    Keep,
    /// The field was `null`: it is cleared.
    Clear,
    /// The field was given: it is replaced whole.
    Set(T),
}

impl<T> Change<T> {
    /// Whether the field stays as it is.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value that was given, where none and `null` are the same.
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Keep | Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    fn apply_to(self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Change<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keep | Self::Clear => serializer.serialize_none(),
            Self::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

/// The changes of an update: absent fields stay, `null` clears, a value replaces.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changes<'a> {
    /// See [`Lead::visitor_id`].
    #[serde(skip_serializing_if = "Change::is_keep")]
    pub visitor_id: Change<Uuid>,
    /// See [`Lead::code`].
    #[serde(borrow, skip_serializing_if = "Change::is_keep")]
    pub code: Change<Text<'a>>,
    /// See [`Lead::source`].
    #[serde(borrow, skip_serializing_if = "Change::is_keep")]
    pub source: Change<Text<'a>>,
    /// See [`Lead::properties`].
    #[serde(borrow, skip_serializing_if = "Change::is_keep")]
    pub properties: Change<Json<'a>>,
    /// See [`Lead::location`].
    #[serde(borrow, skip_serializing_if = "Change::is_keep")]
    pub location: Change<Json<'a>>,
    /// See [`Lead::identity_id`].
    #[serde(skip_serializing_if = "Change::is_keep")]
    pub identity_id: Change<Uuid>,
    /// See [`Lead::session_id`].
    #[serde(skip_serializing_if = "Change::is_keep")]
    pub session_id: Change<Uuid>,
    /// See [`Lead::summary`].
    #[serde(borrow, skip_serializing_if = "Change::is_keep")]
    pub summary: Change<Json<'a>>,
    /// See [`Lead::company_id`].
    #[serde(skip_serializing_if = "Change::is_keep")]
    pub company_id: Change<Uuid>,
}

/// JSON text that is passed on as it came, digit for digit, borrowed from its record if it can be.
///
/// Its `Debug` shows the length only: lead contents never reach a log.
#[derive(Clone)]
pub struct Json<'a>(Cow<'a, RawValue>);

impl Json<'_> {
    /// The JSON text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Takes JSON text that a database or a client gave, and checks its syntax.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn from_string(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(Cow::Owned(raw)))
    }

    /// The same text, owned.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(Cow::Borrowed(raw))
    }
}

impl PartialEq for Json<'_> {
    /// Equal to the letter; `1.0` and `1` differ.
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.text().len())
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(Self::from)
    }
}

/// A short text of the client's, borrowed from its record when it holds no escapes.
///
/// Its `Debug` shows the length only: lead contents never reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, owned.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Text<'a> {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Visitor).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_tells_absent_from_null() {
        let changes: Changes<'_> = serde_json::from_str(r#"{"code":null,"source":"web"}"#).unwrap();
        assert_eq!(changes.code, Change::Clear);
        assert_eq!(changes.source, Change::Set("web".into()));
        assert_eq!(changes.summary, Change::Keep);
        assert_eq!(serde_json::to_string(&changes).unwrap(), r#"{"code":null,"source":"web"}"#);
    }

    #[test]
    fn debug_shows_no_contents() {
        let changes: Changes<'_> =
            serde_json::from_str(r#"{"code":"secret","properties":{"a":"secret"}}"#).unwrap();
        assert!(!format!("{changes:?}").contains("secret"));
    }
}
