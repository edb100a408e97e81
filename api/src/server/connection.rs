//! What one HTTP/2 connection may ask for at a time. HTTP/1.1 has its own bounds below the routes;
//! of HTTP/2's, actix-web lets one set the windows only.

use std::cell::Cell;
use std::rc::Rc;

use actix_web::dev::ServiceRequest;
use actix_web::http::Version;

use crate::error::{ApiError, ErrorCode};

/// Most requests under way on one connection.
const MAX_STREAMS: usize = 250;
/// Most header fields of a request, and most bytes of them: as actix-web has it for HTTP/1.1.
const MAX_HEADERS: usize = 96;
const MAX_HEADER_BYTES: usize = 128 * 1024;

/// Requests under way on a connection. Lives as long as the connection.
#[derive(Debug, Default)]
pub struct Streams(Rc<Cell<usize>>);

/// A request under way; ends when it is dropped.
#[derive(Debug)]
pub struct Stream(Rc<Cell<usize>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Streams {
    /// Counts a request, unless there are too many. One that the client has reset counts until it is
    /// answered: opening and resetting gains nothing.
    fn enter(&self) -> Option<Stream> {
        let count = self.0.get();
        (count < MAX_STREAMS).then(|| {
            self.0.set(count + 1);
            Stream(Rc::clone(&self.0))
        })
    }
}

/// Lets a request of HTTP/2 in or says why not; `None` for one of HTTP/1.
///
/// # Errors
/// Too many at a time, or too long a head. Nothing of the request was looked at.
pub(crate) fn admit(request: &ServiceRequest) -> Result<Option<Stream>, ApiError> {
    if request.version() != Version::HTTP_2 {
        return Ok(None);
    }
    let headers = request.headers();
    let bytes =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let bytes = bytes + request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(ApiError::new(
            ErrorCode::HeadersTooLarge,
            format!("a request may have {MAX_HEADERS} headers, of {MAX_HEADER_BYTES} bytes in all"),
        ));
    }
    let stream = request.conn_data::<Streams>().map(Streams::enter);
    match stream {
        Some(None) => Err(ApiError::new(
            ErrorCode::Overloaded,
            format!(
                "{MAX_STREAMS} requests are under way on this connection; nothing was taken, wait for one or open another connection"
            ),
        )),
        Some(stream) => Ok(stream),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_free_when_a_request_ends() {
        let streams = Streams::default();
        let mut under_way: Vec<_> = (0..MAX_STREAMS).filter_map(|_| streams.enter()).collect();
        assert_eq!(under_way.len(), MAX_STREAMS);
        assert!(streams.enter().is_none());
        under_way.pop();
        assert!(streams.enter().is_some());
    }
}
