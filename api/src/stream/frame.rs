//! What goes over the wire: Server-Sent Events.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.

use bytes::BytesMut;

use super::position::{Position, PositionWriter};

/// Appends what an event says beside its position: type and data, and the end of the event.
///
/// The data of our own records is one line. A line break in another producer's is split as the
/// protocol demands; the reader puts it together again, a carriage return as a line feed, which is
/// the same JSON.
pub(super) fn write_body(event_type: &str, value: &[u8], out: &mut BytesMut) {
    if !event_type.is_empty() && !event_type.chars().any(char::is_control) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event_type.as_bytes());
        out.extend_from_slice(b"\n");
    }
    let mut rest = value;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else {
            out.extend_from_slice(rest);
            out.extend_from_slice(b"\n\n");
            return;
        };
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"\n");
        let length = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[at + length..];
    }
}

/// Appends the line that names the position behind the event.
pub(super) fn write_id(writer: &mut PositionWriter, position: &Position, out: &mut BytesMut) {
    out.extend_from_slice(b"id: ");
    writer.write(position, out);
    out.extend_from_slice(b"\n");
}

/// The first thing on a stream: how long to wait before connecting again, and where it begins.
/// Without data it is no event to a reader, but its position is remembered.
pub(super) fn opening(writer: &mut PositionWriter, position: &Position, retry: u32) -> BytesMut {
    let mut out = BytesMut::from(format!("retry: {retry}\n").as_bytes());
    write_id(writer, position, &mut out);
    out.extend_from_slice(b"\n");
    out
}

/// A comment that keeps the connection, and the position now: a quiet workspace's moves on too.
pub(super) fn heartbeat(writer: &mut PositionWriter, position: &Position) -> BytesMut {
    let mut out = BytesMut::from(&b": heartbeat\n"[..]);
    write_id(writer, position, &mut out);
    out.extend_from_slice(b"\n");
    out
}

/// The last thing on a stream that the service ends.
pub(super) fn closing(writer: &mut PositionWriter, position: &Position, reason: &str) -> BytesMut {
    let mut out = BytesMut::new();
    write_id(writer, position, &mut out);
    let text = writer.text(position);
    let data = format!(r#"{{"reason":"{reason}","position":"{text}"}}"#);
    write_body("stream_end", data.as_bytes(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(event_type: &str, value: &str) -> String {
        let mut out = BytesMut::new();
        write_body(event_type, value.as_bytes(), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn no_value_can_end_a_line_or_begin_a_field() {
        assert_eq!(body("LeadCreated", "{}"), "event: LeadCreated\ndata: {}\n\n");
        assert_eq!(
            body("x", "{\n\r\n\rid: 7\r}"),
            "event: x\ndata: {\ndata: \ndata: \ndata: id: 7\ndata: }\n\n"
        );
        assert_eq!(body("x\nid: 7", "\n\n"), "data: \ndata: \ndata: \n\n");
        assert_eq!(body("", ""), "data: \n\n");
    }
}
