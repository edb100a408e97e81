//! A log line as JSON. Written by hand: one comes with every request, and tracing-subscriber's own
//! formatter took a fifth of what a request costs.

use std::fmt::{self, Debug, Write};

use chrono::Utc;
use leads_shared::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Time, level, the fields in their order, target: one object, one line.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = Timestamp::from(Utc::now());
        let metadata = event.metadata();
        write!(writer, r#"{{"timestamp":"{now}","level":"{}""#, metadata.level())?;
        let mut fields = Fields { writer: writer.by_ref(), target: None, result: Ok(()) };
        event.record(&mut fields);
        let Fields { target, result, .. } = fields;
        result?;
        writer.write_str(r#","target":"#)?;
        text(&mut writer, target.as_deref().unwrap_or_else(|| metadata.target()))?;
        writer.write_str("}\n")
    }
}

struct Fields<'a> {
    writer: Writer<'a>,
    /// Of an event that came from the crate `log`, which hands its own in as a field.
    target: Option<String>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if field.name().starts_with("log.") || self.result.is_err() {
            return;
        }
        let writer = &mut self.writer;
        // Names of fields are Rust's: nothing in them needs escaping.
        self.result = write!(writer, r#","{}":"#, field.name()).and_then(|()| value(writer));
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        }
        self.field(field, |writer| text(writer, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinities nor what is no number.
        self.field(field, |writer| {
            if value.is_finite() { write!(writer, "{value}") } else { writer.write_str("null") }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |writer| {
            writer.write_char('"')?;
            write!(Escaped(writer), "{value:?}")?;
            writer.write_char('"')
        });
    }
}

fn text(writer: &mut Writer<'_>, value: &str) -> fmt::Result {
    writer.write_char('"')?;
    Escaped(writer).write_str(value)?;
    writer.write_char('"')
}

/// Writes text as the inside of a JSON string. Source: RFC 8259, 7.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
            let (plain, special) = rest.split_at(at);
            self.0.write_str(plain)?;
            // All of them are one byte long.
            let (special, behind) = special.split_at(1);
            match special {
                "\"" => self.0.write_str("\\\"")?,
                "\\" => self.0.write_str("\\\\")?,
                "\n" => self.0.write_str("\\n")?,
                other => {
                    other.bytes().try_for_each(|byte| write!(self.0, "\\u{byte:04x}"))?;
                }
            }
            rest = behind;
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(JsonLines)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_an_object_whatever_is_in_it() {
        let odd = "quote \" backslash \\ line\nbell \u{7} é 😀 \u{7f}";
        let text = line(|| {
            tracing::warn!(
                target: "http",
                odd,
                shown = ?Some(odd),
                count = 3_u64,
                below = -3_i64,
                share = 0.5,
                endless = f64::INFINITY,
                yes = true,
                none = None::<u64>,
                "a message"
            );
        });
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        let (time, rest) = text.split_once(r#"","level":"WARN","message":"a message","#).unwrap();
        Timestamp::parse(time.strip_prefix(r#"{"timestamp":""#).unwrap()).unwrap();
        assert!(rest.starts_with(r#""odd":"quote "#), "in their order: {rest}");
        assert_eq!(json["odd"], odd);
        assert_eq!(json["shown"], format!("{:?}", Some(odd)));
        assert_eq!((&json["count"], &json["below"]), (&3.into(), &(-3).into()));
        assert_eq!((&json["share"], &json["endless"]), (&0.5.into(), &Value::Null));
        assert_eq!((&json["yes"], json.get("none")), (&true.into(), None));
        assert_eq!(json["target"], "http");
    }
}
