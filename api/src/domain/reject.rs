//! Why a body was refused, in a form that a client can act on.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

/// A body that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not one JSON object.
    #[error("{message} (line {line}, column {column})")]
    Malformed {
        /// What is wrong there.
        message: String,
        /// From 1.
        line: usize,
        /// From 1; 0 at the very start.
        column: usize,
    },
    /// One JSON object, with fields that are not valid: all of them, but for names above
    /// [`MAX_NAME_ERRORS`].
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
    /// An update that names no field.
    #[error("the update names no field")]
    EmptyUpdate,
}

/// Most errors about names that an answer lists. How many there are is up to the client: a few kB,
/// compressed, hold a million.
pub const MAX_NAME_ERRORS: usize = 10;

/// Notes that a name is unknown, repeated or empty, unless there are enough of them.
pub(crate) fn note(errors: &mut Vec<FieldError>, error: impl FnOnce() -> FieldError) {
    if errors.len() < MAX_NAME_ERRORS {
        errors.push(error());
    }
}

/// One field that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name, of the body or the query.
    #[schema(value_type = String)]
    pub field: Cow<'static, str>,
    /// What is wrong with it; stable.
    pub code: FieldCode,
    /// The same in words, with the way to mend it.
    pub message: String,
}

impl FieldError {
    /// Puts an error together.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        code: FieldCode,
        message: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

/// What can be wrong with a field. The names are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldCode {
    /// The field or parameter is not part of the contract.
    UnknownField,
    /// The field or parameter stands there more than once.
    DuplicateField,
    /// A value of another JSON type.
    InvalidType,
    /// Not a hyphenated UUID.
    InvalidUuid,
    /// Not 1 to 255 visible ASCII characters.
    InvalidIdempotencyKey,
    /// Empty where at least one character is needed.
    TooShort,
    /// More characters than allowed.
    TooLong,
    /// A control character in a short text.
    ControlCharacter,
    /// `\u0000`, which PostgreSQL can't hold.
    NulCharacter,
    /// Half of a UTF-16 surrogate pair.
    LoneSurrogate,
    /// A number with more digits than are kept.
    NumberOutOfRange,
    /// Objects and arrays nested too deep.
    NestingTooDeep,
    /// Not a number in the allowed range.
    OutOfRange,
    /// Not an RFC 3339 date and time with an offset.
    InvalidTime,
    /// Not a cursor that this service gave.
    InvalidCursor,
    /// Not a position that this service gave to this workspace.
    InvalidPosition,
    /// Not a type of event.
    UnknownType,
    /// Two parameters that exclude each other.
    MutuallyExclusive,
}
