//! Compressed answers: which coding the client takes, whether it pays, and the work itself.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY,
};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

/// Below this an answer is sent as it is: with its head it is one packet either way.
const WORTH_IT: u64 = 1024;
/// Up to this it is done where the request is served: 50 to 120 µs, a list of 100 leads. Above, it
/// goes to a thread for long work, and other requests go on.
const IN_PLACE: usize = 64 * 1024;
/// Most answers that are kept. There are about forty files, in three codings.
const MAX_KEPT: usize = 128;

/// A coding that answers are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

/// Those that are compiled in and the same for everybody, compressed once: by path and coding.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<HashMap<(String, Coding), Bytes>>);

impl Kept {
    fn get(&self, key: &(String, Coding)) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: (String, Coding), body: Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.insert(key, body);
        }
    }
}

/// Compresses the answer when its client takes that and it pays. `kept` is for an answer that is the
/// same for everybody.
///
/// Left as they are: what has an entity tag (it names these very bytes: RFC 9110, 8.8.3), what is
/// encoded already, and every body that is not whole in memory, so that no stream is ever held up.
pub(crate) async fn compressed(
    response: ServiceResponse<BoxBody>,
    kept: Option<&Kept>,
) -> ServiceResponse<BoxBody> {
    let BodySize::Sized(size @ 1..) = response.response().body().size() else { return response };
    let accepted = Accepted::read(response.request().headers());
    let pays = size >= WORTH_IT;
    if !(pays || accepted.identity == Some(0.0)) || !may_be_encoded(response.headers()) {
        return response;
    }
    let (request, response) = response.into_parts();
    let (mut response, body) = response.into_parts();
    let body = match body.try_into_bytes() {
        Ok(body) => body,
        Err(body) => return ServiceResponse::new(request, response.set_body(body)),
    };
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
    let kept = kept.filter(|_| response.status() == StatusCode::OK);
    let encoded = match accepted.best() {
        Some(coding) => encoded(coding, &body, request.path(), kept).await.map(|it| (coding, it)),
        None => None,
    };
    let response = match encoded {
        Some((coding, encoded)) => with_coding(response, coding, encoded),
        None => response.set_body(BoxBody::new(body)),
    };
    ServiceResponse::new(request, response)
}

/// A file that is compiled in, in the coding that the client likes best; `None` where that is none, or
/// where it does not pay.
pub(crate) fn fixed(
    request: &HttpRequest,
    file: &'static [u8],
    kept: &Kept,
) -> Option<(&'static str, Bytes)> {
    if u64::try_from(file.len()).unwrap_or(u64::MAX) < WORTH_IT {
        return None;
    }
    let coding = Accepted::read(request.headers()).best()?;
    let key = (request.path().to_owned(), coding);
    if let Some(found) = kept.get(&key) {
        return Some((coding.name(), found));
    }
    let encoded = Bytes::from(coding.encode(file).ok()?);
    kept.put(key, encoded.clone());
    Some((coding.name(), encoded))
}

fn may_be_encoded(headers: &HeaderMap) -> bool {
    let is_event_stream =
        headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    !headers.contains_key(ETAG) && !headers.contains_key(CONTENT_ENCODING) && !is_event_stream
}

fn with_coding(mut response: HttpResponse<()>, coding: Coding, body: Bytes) -> HttpResponse {
    let name = HeaderValue::from_static(coding.name());
    response.headers_mut().insert(CONTENT_ENCODING, name);
    response.set_body(BoxBody::new(body))
}

async fn encoded(coding: Coding, body: &Bytes, path: &str, kept: Option<&Kept>) -> Option<Bytes> {
    let key = kept.map(|_| (path.to_owned(), coding));
    if let Some(found) = kept.zip(key.as_ref()).and_then(|(kept, key)| kept.get(key)) {
        return Some(found);
    }
    let encoded = if body.len() <= IN_PLACE {
        coding.encode(body)
    } else {
        let body = body.clone();
        tokio::task::spawn_blocking(move || coding.encode(&body)).await.ok()?
    };
    // Memory only: there is nothing that could fail. Were it so, the answer goes out as it is.
    let encoded = Bytes::from(encoded.ok()?);
    if let (Some(kept), Some(key)) = (kept, key) {
        kept.put(key, encoded.clone());
    }
    Some(encoded)
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// At the lowest levels: more effort costs several times as much and saves a tenth. Measured in
    /// docs/decisions/0014.
    fn encode(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(body, 1),
            Self::Brotli => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 18);
                encoder.write_all(body)?;
                Ok(encoder.into_inner())
            }
            Self::Gzip => {
                let level = flate2::Compression::new(1);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// What `Accept-Encoding` says: a quality each, 0 for a refusal, none for what is not named.
#[derive(Debug, Default, Clone, Copy)]
struct Accepted {
    zstd: Option<f32>,
    brotli: Option<f32>,
    gzip: Option<f32>,
    identity: Option<f32>,
}

impl Accepted {
    /// Source: RFC 9110, 12.5.3. A quality that is none is a refusal.
    fn read(headers: &HeaderMap) -> Self {
        let (mut accepted, mut any) = (Self::default(), None);
        let values = headers.get_all(ACCEPT_ENCODING).filter_map(|v| v.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| {
                let (name, value) = part.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then(|| quality(value.trim()))
            });
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let slot = match () {
                () if is("zstd") => &mut accepted.zstd,
                () if is("br") => &mut accepted.brotli,
                () if is("gzip") || is("x-gzip") => &mut accepted.gzip,
                () if is("identity") => &mut accepted.identity,
                () if is("*") => &mut any,
                () => continue,
            };
            *slot = Some(quality.unwrap_or(1.0));
        }
        let or_any = |named: Option<f32>| named.or(any);
        Self {
            zstd: or_any(accepted.zstd),
            brotli: or_any(accepted.brotli),
            gzip: or_any(accepted.gzip),
            identity: or_any(accepted.identity),
        }
    }

    /// The coding that the client likes best, of equal ones the cheapest; `None` where it would
    /// rather have none, or takes nothing at all: an answer that nobody can read is no better.
    fn best(self) -> Option<Coding> {
        let codings =
            [(self.gzip, Coding::Gzip), (self.brotli, Coding::Brotli), (self.zstd, Coding::Zstd)];
        let offered = codings.into_iter().filter_map(|(quality, coding)| Some((quality?, coding)));
        let least = self.identity.unwrap_or(0.0);
        offered
            .filter(|(quality, _)| *quality > 0.0 && *quality >= least)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, coding)| coding)
    }
}

fn quality(text: &str) -> f32 {
    text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn best(header: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(header).unwrap());
        Accepted::read(&headers).best().map(Coding::name)
    }

    #[test]
    fn the_client_decides_and_of_equal_ones_the_cheapest_is_taken() {
        for (header, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, deflate, br", Some("br")),
            ("GZip", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("zstd;q=0.5, gzip;q=0.9", Some("gzip")),
            ("br; q=0.001", Some("br")),
            ("*", Some("zstd")),
            ("*;q=0.1, zstd;q=0", Some("br")),
            ("gzip;q=0", None),
            ("gzip;q=2, br;q=nan", None),
            ("gzip;q=0.4, identity;q=0.5", None),
            ("gzip;q=0.5, identity;q=0.5", Some("gzip")),
            ("identity;q=0", None),
            ("identity;q=0, gzip", Some("gzip")),
            ("identity", None),
            ("deflate, compress", None),
            ("*;q=0", None),
            ("*;q=0, br", Some("br")),
            ("", None),
        ] {
            assert_eq!(best(header), coding, "{header}");
        }
        assert_eq!(Accepted::read(&HeaderMap::new()).best(), None);
    }

    /// Not even one whose length is known: it comes piece by piece, and each is to go out at once.
    #[actix_web::test]
    async fn a_stream_is_left_alone() {
        let pieces = || futures_util::stream::iter([Ok::<_, actix_web::Error>(Bytes::from("x"))]);
        for response in [
            HttpResponse::Ok().content_type("text/event-stream").streaming(pieces()),
            HttpResponse::Ok().content_type("application/json").streaming(pieces()),
            HttpResponse::Ok().no_chunking(5000).streaming(pieces()),
            HttpResponse::Ok().content_type("text/event-stream").body("x".repeat(5000)),
        ] {
            let size = response.body().size();
            let request = TestRequest::default().insert_header((ACCEPT_ENCODING, "gzip, *"));
            let answer = compressed(request.to_srv_response(response), None).await;
            assert_eq!(answer.headers().get(CONTENT_ENCODING), None);
            assert_eq!(answer.response().body().size(), size);
        }
    }

    #[test]
    fn what_is_encoded_is_the_body() {
        let body = br#"{"source":"newsletter"}"#.repeat(100);
        let read = |coding: Coding, bytes: &[u8]| {
            let mut out = Vec::new();
            match coding {
                Coding::Zstd => out = zstd::stream::decode_all(bytes).unwrap(),
                Coding::Brotli => {
                    brotli::BrotliDecompress(&mut &bytes[..], &mut out).unwrap();
                }
                Coding::Gzip => {
                    let mut decoder = flate2::write::GzDecoder::new(&mut out);
                    decoder.write_all(bytes).unwrap();
                    decoder.finish().unwrap();
                }
            }
            out
        };
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            let encoded = coding.encode(&body).unwrap();
            assert!(encoded.len() < body.len() / 5, "{coding:?}");
            assert_eq!(read(coding, &encoded), body, "{coding:?}");
        }
    }
}
