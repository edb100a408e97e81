//! What one connection may do. HTTP/1.1 has bounds of its own below the routes, but only the head of a
//! connection's first request has to come in time; of HTTP/2's bounds, actix-web lets one set the
//! windows. The rest is here.

use std::any::Any;
use std::cell::Cell;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::Version;
use actix_web::rt::net::TcpStream;
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{ApiError, ErrorCode};

/// Most requests under way on one connection of HTTP/2.
const MAX_STREAMS: usize = 250;
/// Most header fields of a request, and most bytes of them: as actix-web has it for HTTP/1.1.
const MAX_HEADERS: usize = 96;
const MAX_HEADER_BYTES: usize = 128 * 1024;

/// Requests under way on a connection, and since when there is none.
#[derive(Debug)]
struct Traffic {
    under_way: Cell<usize>,
    idle_since: Cell<Instant>,
}

impl Traffic {
    fn new() -> Rc<Self> {
        Rc::new(Self { under_way: Cell::new(0), idle_since: Cell::new(Instant::now()) })
    }

    fn enter(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(Rc::clone(self))
    }
}

/// A request under way; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Rc<Traffic>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Traffic { under_way, idle_since } = &*self.0;
        under_way.set(under_way.get() - 1);
        idle_since.set(Instant::now());
    }
}

/// An open connection. Dropped with it.
struct Connection {
    traffic: Rc<Traffic>,
    watch: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Watches a new connection: after `patience` without a request it is ended, whatever the client
/// still trickles or doesn't read. What actix-web ends by itself, it ends sooner.
pub(crate) fn watch(io: &dyn Any, patience: Duration, data: &mut Extensions) {
    let tls = io.downcast_ref::<TlsStream<TcpStream>>().map(|tls| tls.get_ref().0);
    let Some(stream) = tls.or_else(|| io.downcast_ref::<TcpStream>()) else { return };
    // A second handle on the socket: the first one belongs to the server.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    let traffic = Traffic::new();
    let watch = end_when_idle(socket.into(), Rc::clone(&traffic), patience);
    data.insert(Connection { traffic, watch: actix_web::rt::spawn(watch) });
}

/// A peer that is gone without a word, or takes nothing of what was written, is given up by the
/// kernel after `timeout`: the server's own writing has no limit.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub(crate) fn limit_writes(io: &dyn Any, timeout: Duration) {
    #[cfg(target_os = "linux")]
    {
        let tls = io.downcast_ref::<TlsStream<TcpStream>>().map(|tls| tls.get_ref().0);
        let Some(stream) = tls.or_else(|| io.downcast_ref::<TcpStream>()) else { return };
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
            tracing::debug!(%error, "a connection has no limit for writing");
        }
    }
}

async fn end_when_idle(socket: std::net::TcpStream, traffic: Rc<Traffic>, patience: Duration) {
    loop {
        let since = match traffic.under_way.get() {
            0 => traffic.idle_since.get(),
            _ => Instant::now(),
        };
        let end = since + patience;
        if end <= Instant::now() {
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

/// Lets a request in or says why not.
///
/// # Errors
/// Too many at a time, too long a head, or the service is `closed`. Nothing of the request was looked
/// at.
pub(crate) fn admit(request: &ServiceRequest, closed: bool) -> Result<Option<UnderWay>, ApiError> {
    let traffic = request.conn_data::<Connection>().map(|connection| &connection.traffic);
    if request.version() == Version::HTTP_2 {
        check_head(request)?;
        // HTTP/1.1 has `Connection: close` for this; actix-web sends no GOAWAY.
        if closed {
            return Err(ApiError::new(
                ErrorCode::ShuttingDown,
                "this instance is shutting down; nothing was taken, send it again on another connection",
            ));
        }
        // One that the client has reset counts until it is answered: resetting gains nothing.
        if traffic.is_some_and(|traffic| traffic.under_way.get() >= MAX_STREAMS) {
            return Err(ApiError::new(
                ErrorCode::Overloaded,
                format!(
                    "{MAX_STREAMS} requests are under way on this connection; nothing was taken, wait for one or open another connection"
                ),
            ));
        }
    }
    Ok(traffic.map(Traffic::enter))
}

fn check_head(request: &ServiceRequest) -> Result<(), ApiError> {
    let headers = request.headers();
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if headers.len() > MAX_HEADERS || sizes.sum::<usize>() + target > MAX_HEADER_BYTES {
        return Err(ApiError::new(
            ErrorCode::HeadersTooLarge,
            format!("a request may have {MAX_HEADERS} headers, of {MAX_HEADER_BYTES} bytes in all"),
        ));
    }
    Ok(())
}

/// A request whose answer is a stream is under way until the stream ends.
pub(crate) fn hold(
    response: ServiceResponse<BoxBody>,
    request: Option<UnderWay>,
) -> ServiceResponse<BoxBody> {
    match (response.response().body().size(), request) {
        (BodySize::Stream, Some(request)) => {
            response.map_body(|_, body| BoxBody::new(Held { body, _request: request }))
        }
        (_, _) => response,
    }
}

struct Held {
    body: BoxBody,
    _request: UnderWay,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;
    use actix_web::test::TestRequest;
    use futures_util::stream;

    use super::*;

    #[actix_web::test]
    async fn a_stream_is_under_way_until_it_ends() {
        let answer = |response: HttpResponse| TestRequest::default().to_srv_response(response);
        let traffic = Traffic::new();
        let whole = hold(answer(HttpResponse::Ok().body("x")), Some(traffic.enter()));
        assert_eq!(traffic.under_way.get(), 0);
        drop(whole);

        let endless = stream::pending::<Result<Bytes, actix_web::Error>>();
        let streamed = answer(HttpResponse::Ok().streaming(endless));
        let streamed = hold(streamed, Some(traffic.enter()));
        assert_eq!(traffic.under_way.get(), 1);
        drop(streamed);
        assert_eq!(traffic.under_way.get(), 0);
    }
}
