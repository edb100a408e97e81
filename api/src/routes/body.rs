//! Reading a request body: bounded in size, also after decompression, and in time.

use std::io::Read;

use actix_web::http::header::{CONTENT_ENCODING, HeaderMap};
use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::error::{ApiError, ErrorCode};
use crate::startup::App;

/// 8 MiB: what a sender may ask a receiver to keep at hand. Source: RFC 9659, 3.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Reads the body, at most `limit` bytes of it as sent and after decompression.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: web::Payload,
    limit: usize,
    app: &App,
) -> Result<Bytes, ApiError> {
    let encoding = encoding(headers)?;
    let body = tokio::time::timeout(app.limits.body_timeout, collect(payload, limit))
        .await
        .map_err(|_| {
            ApiError::new(
                ErrorCode::RequestTimeout,
                format!("the body did not arrive within {:?}", app.limits.body_timeout),
            )
        })??;
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => inflate(flate2::read::MultiGzDecoder::new(&body[..]), limit),
        Encoding::Zstd => {
            if declares_more_than(&body, limit) {
                return Err(ApiError::too_large(limit));
            }
            let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(malformed)?;
            inflate(decoder, limit)
        }
    }
}

/// Whether the first frame says that it holds more. Such a one may ask for a window of its whole
/// size, and would be refused for that.
fn declares_more_than(body: &[u8], limit: usize) -> bool {
    let declared = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
    declared.is_some_and(|length| u64::try_from(limit).is_ok_and(|limit| length > limit))
}

enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let mut values = headers.get_all(CONTENT_ENCODING);
    let Some(value) = values.next() else { return Ok(Encoding::Identity) };
    let name = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    match (name.as_str(), values.next()) {
        ("identity", None) => Ok(Encoding::Identity),
        ("gzip" | "x-gzip", None) => Ok(Encoding::Gzip),
        ("zstd", None) => Ok(Encoding::Zstd),
        (_, _) => Err(ApiError::new(
            ErrorCode::UnsupportedContentEncoding,
            "a body may be compressed once, with gzip or zstd",
        )),
    }
}

async fn collect(mut payload: web::Payload, limit: usize) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::new(ErrorCode::MalformedJson, "the body ended before its announced length")
        })?;
        let length = rest.as_ref().map_or(first.len(), BytesMut::len);
        if length + chunk.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        // Most bodies come in one piece, which is then used as it is.
        match &mut rest {
            None if first.is_empty() => first = chunk,
            None => {
                let mut joined = BytesMut::from(&first[..]);
                joined.extend_from_slice(&chunk);
                rest = Some(joined);
            }
            Some(joined) => joined.extend_from_slice(&chunk),
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// Decompresses up to one byte more than `limit`: a bomb is refused at the bound.
fn inflate(decoder: impl Read, limit: usize) -> Result<Bytes, ApiError> {
    let mut body = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(bound).read_to_end(&mut body).map_err(malformed)?;
    if body.len() > limit { Err(ApiError::too_large(limit)) } else { Ok(Bytes::from(body)) }
}

fn malformed(_: std::io::Error) -> ApiError {
    ApiError::new(
        ErrorCode::MalformedEncoding,
        "the body is not what Content-Encoding says, or ends too early",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        let zeros = std::io::repeat(0);
        let error = inflate(zeros, 1024).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
        assert_eq!(inflate(&[1_u8; 1024][..], 1024).unwrap().len(), 1024);
    }
}
