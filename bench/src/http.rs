//! A keep-alive HTTP/1.1 connection that costs little: it shares the cores with what it measures.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAX_HEADERS: usize = 48;

/// `http://host:port/path` in its parts.
#[derive(Debug, Clone)]
pub(crate) struct Url {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("http://") else { bail!("{text}: must be http://") };
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let with_port =
            if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let address = with_port.to_socket_addrs().with_context(|| text.to_owned())?.next();
        Ok(Self {
            address: address.with_context(|| format!("{text}: no address"))?,
            authority: authority.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The bytes of a request; a body needs its `content-type` among the headers.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.authority);
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        if let Some(body) = body {
            let length = format!("content-length: {}\r\n", body.len());
            request.push_str(&length);
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body.unwrap_or_default());
        request
    }
}

/// An answer; its body is in the connection's buffer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// Seconds of `Retry-After`, when given.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: &'a [u8],
}

struct Head {
    status: u16,
    retry_after: Option<u64>,
    start: usize,
    length: usize,
    close: bool,
}

/// A connection that opens when it is needed, and again after it was closed.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: Vec::with_capacity(4096) }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            stream
        };
        self.buffer.clear();
        let (head, written) = talk(&mut stream, request, &mut self.buffer).await?;
        let Head { status, retry_after, start, length, close } = head;
        if written && !close {
            self.stream = Some(stream);
        }
        Ok(Answer { status, retry_after, body: &self.buffer[start..start + length] })
    }
}

/// The head of the answer, and whether all of the request was written.
async fn talk(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<(Head, bool)> {
    let (mut reader, mut writer) = stream.split();
    let mut reading = std::pin::pin!(read_answer(&mut reader, buffer));
    // A server may answer before it has read a body that is too large, and then close: the answer
    // counts, not the write that failed.
    tokio::select! {
        biased;
        written = writer.write_all(request) => match (reading.await, written) {
            (Ok(head), written) => Ok((head, written.is_ok())),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        },
        head = &mut reading => Ok((head?, false)),
    }
}

async fn read_answer(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Head> {
    loop {
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head) = parse(buffer)? else { continue };
        while buffer.len() < head.start + head.length {
            if reader.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok(head);
    }
}

/// The head of an answer, once all of it is there.
fn parse(buffer: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head { status, retry_after: None, start, length: 0, close: false };
    let mut has_length = matches!(status, 204 | 304);
    for header in response.headers {
        let text = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            head.length = text().parse().map_err(io::Error::other)?;
            has_length = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close = text().eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = text().parse().ok();
        }
    }
    if !has_length {
        return Err(io::Error::other(format!("{status} without Content-Length")));
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let url = Url::parse("http://127.0.0.1:8080/api/v1/leads/").unwrap();
        assert_eq!((url.address.port(), url.path.as_str()), (8080, "/api/v1/leads"));
        assert_eq!(Url::parse("http://127.0.0.1").unwrap().address.port(), 80);
        assert!(Url::parse("https://127.0.0.1").is_err());
    }

    #[tokio::test]
    async fn reads_answers_in_pieces_and_reconnects_after_a_close() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 64];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                for piece in
                    ["HTTP/1.1 503 X\r\nretry-af", "ter: 2\r\nContent-Length: 2\r\n\r\n", "hi"]
                {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(last).await.unwrap();
            }
        });
        let mut connection = Connection::new(address);
        for _ in 0..2 {
            let answer = connection.exchange(b"x").await.unwrap();
            assert_eq!((answer.status, answer.retry_after), (503, Some(2)));
            assert_eq!(answer.body, b"hi");
            let answer = connection.exchange(b"x").await.unwrap();
            assert_eq!((answer.status, answer.body), (200, b"".as_slice()));
        }
    }
}
