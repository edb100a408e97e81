//! HTTP/2 by hand: what floods a connection ends that connection, and the others go on.
//!
//! Frames: RFC 9113, 4.1 and 6. Heads: RFC 7541, 6 and appendix A.

use std::io::{Read, Write};

use leads_testkit::reqwest::Client;
use leads_testkit::{Api, Authority, DEADLINE, Folder, System, eventually};

use crate::shared::run;

const HOSTS: &[&str] = &["127.0.0.1", "localhost"];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;
/// `GET https://x/livez`
const HEAD: &[u8] = b"\x82\x87\x04\x06/livez\x01\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// The frames that came, as kind and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("24 bits");
        let Some((payload, others)) = rest.split_at_checked(length) else { break };
        found.push((*kind, payload));
        bytes = others;
    }
    found
}

/// Starts an API, sends it all of this over one connection, and gives what came until its end.
async fn flood(bytes: Vec<u8>) -> (System, Api, Client, Vec<u8>) {
    let system = System::builder().without_topics().without_migrations().build().await;
    let (authority, folder) = (Authority::new(), Folder::new());
    let identity = authority.issue(HOSTS);
    let cert = folder.write("tls.crt", &identity.certificate_pem()).display().to_string();
    let key = folder.write("tls.key", &identity.key_pem()).display().to_string();
    // One worker: the one that is flooded has to go on.
    let env = [("API_TLS_CERT", cert.as_str()), ("API_TLS_KEY", &key), ("API_WORKERS", "1")];
    let env = [&env[..], &[("KEEP_ALIVE", "1s"), ("HEADER_TIMEOUT", "1s")]].concat();
    let api = system.start_api_with(&env).await;
    let client = authority.client().build().expect("a client");
    let address = api.address();
    let read = tokio::task::spawn_blocking(move || {
        let mut stream = authority.connect("localhost", address, b"\x02h2");
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        stream.write_all(&hello).expect("it is taken");
        // It may be closed before all is written.
        let _ = stream.write_all(&bytes);
        let mut read = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            read.extend_from_slice(&piece[..length]);
        }
        read
    });
    let read = read.await.expect("it has ended");
    (system, api, client, read)
}

async fn assert_goes_on(api: &Api, client: &Client) {
    let url = format!("https://{}/livez", api.address());
    eventually(DEADLINE, "others are served", async || {
        client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    assert_eq!(api.terminate().await.code(), Some(0));
}

#[test]
fn one_request_is_answered() {
    run(async {
        let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, HEAD);
        let (_system, api, client, read) = flood(get).await;
        assert!(frames(&read).iter().any(|(kind, _)| *kind == HEADERS), "{read:?}");
        assert_goes_on(&api, &client).await;
    });
}

/// CVE-2023-44487
#[test]
fn opening_and_resetting_ends_the_connection() {
    run(async {
        let cancel = 8_u32.to_be_bytes();
        let streams = (0..2000).map(|n| 2 * n + 1);
        let bytes = streams.flat_map(|stream| {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, HEAD);
            [open, frame(RST_STREAM, 0, stream, &cancel)].concat()
        });
        let (_system, api, client, read) = flood(bytes.collect()).await;
        let calm = ENHANCE_YOUR_CALM.to_be_bytes();
        let told = frames(&read).into_iter().any(|(kind, payload)| {
            kind == GOAWAY && payload.get(4..8).is_some_and(|code| code == calm)
        });
        assert!(told, "{:?}", frames(&read));
        assert_goes_on(&api, &client).await;
    });
}

#[test]
fn a_head_without_end_ends_the_connection() {
    run(async {
        // 40,000 names, none of them twice; and one head that never ends.
        let names = (0..40_000).flat_map(|n| format!("\0\x06n{n:05}\x01x").into_bytes());
        let block: Vec<u8> = HEAD.iter().copied().chain(names).collect();
        let pieces: Vec<_> = block.chunks(16_000).collect();
        for ends in [true, false] {
            let mut bytes = Vec::new();
            for (n, piece) in pieces.iter().enumerate() {
                let kind = if n == 0 { HEADERS } else { CONTINUATION };
                let last = ends && n == pieces.len() - 1;
                let flags = if n == 0 { END_STREAM } else { 0 };
                bytes.extend(frame(kind, flags | if last { END_HEADERS } else { 0 }, 1, piece));
            }
            let (_system, api, client, read) = flood(bytes).await;
            let answered = frames(&read).iter().filter(|(kind, _)| *kind == HEADERS).count();
            assert!(answered <= 1, "{:?}", frames(&read));
            assert_goes_on(&api, &client).await;
        }
    });
}
