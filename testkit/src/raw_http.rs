//! HTTP by hand: malformed, slow and cut requests.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Response;

/// A bare connection. Dropped: closed.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawConnection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await;
        Self { stream: stream.expect("the API takes connections"), unread: Vec::new() }
    }

    /// Writes bytes, and has them sent at once.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn shutdown(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads one answer (its length declared, chunked, or up to the close); `None` when the
    /// connection is closed without one.
    ///
    /// # Panics
    /// After `deadline`.
    pub async fn read_response(&mut self, deadline: Duration) -> Option<Response> {
        let reading = async {
            loop {
                if let Some((response, used)) = parse(&self.unread, false) {
                    self.unread.drain(..used);
                    return Some(response);
                }
                if !self.read_some().await {
                    let (response, used) = parse(&self.unread, true)?;
                    self.unread.drain(..used);
                    return Some(response);
                }
            }
        };
        let answer = tokio::time::timeout(deadline, reading).await;
        answer.unwrap_or_else(|_| panic!("no answer on the raw connection within {deadline:?}"))
    }

    /// Waits until the other side closes; gives what came before that.
    ///
    /// # Panics
    /// After `deadline`.
    pub async fn read_to_close(&mut self, deadline: Duration) -> Vec<u8> {
        let reading = async { while self.read_some().await {} };
        let closed = tokio::time::timeout(deadline, reading).await;
        assert!(closed.is_ok(), "the raw connection is still open after {deadline:?}");
        std::mem::take(&mut self.unread)
    }

    /// False at the end; a reset counts as one.
    async fn read_some(&mut self) -> bool {
        self.stream.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0)
    }
}

/// One response at the start of `bytes`, and how many bytes it takes.
fn parse(bytes: &[u8], closed: bool) -> Option<(Response, usize)> {
    let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(name, value)| {
            let value = HeaderValue::from_str(value.trim()).ok()?;
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        })
        .collect();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let rest = &bytes[head_end..];
    let (body, used) = if text("transfer-encoding") == Some("chunked") {
        unchunk(rest)?
    } else if let Some(length) = text("content-length").and_then(|text| text.parse().ok()) {
        (rest.get(..length)?.to_vec(), length)
    } else if closed || status < 200 || status == 204 || status == 304 {
        let length = if closed { rest.len() } else { 0 };
        (rest[..length].to_vec(), length)
    } else {
        return None;
    };
    Some((Response { status, headers, body }, head_end + used))
}

fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if bytes.len() < at {
            return None;
        }
        if size == 0 {
            return Some((body, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_answers_whole_or_not_at_all() {
        let two = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 400 Bad";
        let (response, used) = parse(two, false).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (201, b"hi".as_slice()));
        assert!(parse(&two[used..], false).is_none());
        assert!(parse(&two[..used - 1], false).is_none());

        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n";
        let (response, used) = parse(chunked, false).unwrap();
        assert_eq!((response.body.as_slice(), used), (b"abcd".as_slice(), chunked.len()));
        assert!(parse(&chunked[..chunked.len() - 1], false).is_none());

        let until_close = b"HTTP/1.1 408 Request Timeout\r\n\r\nslow";
        assert!(parse(until_close, false).is_none());
        assert_eq!(parse(until_close, true).unwrap().0.body, b"slow");
    }
}
