//! One request is one request: nothing that is hidden in another one's body, length or head is served.

use leads_testkit::{DEADLINE, Key, Response};

use crate::shared::{Shared, run, shared};

/// A whole request that makes a lead. No record of it may ever be in the log.
fn hidden(key: &Key) -> String {
    let body = r#"{"code":"hidden"}"#;
    format!(
        "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        key.secret,
        body.len()
    )
}

/// A POST of a lead up to its last header.
fn head(key: &Key) -> String {
    format!(
        "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n",
        key.secret
    )
}

/// Sends bytes, ends the sending side, and gives all answers.
async fn answers(shared: &Shared, bytes: &[u8]) -> Vec<Response> {
    let mut raw = shared.api.raw().await;
    // It may be closed before all is written.
    let _ = raw.write(bytes).await;
    let _ = raw.shutdown().await;
    let mut answers = Vec::new();
    while let Some(answer) = raw.read_response(DEADLINE).await {
        answers.push(answer);
    }
    answers
}

/// Records of the key's workspace.
async fn records(shared: &Shared, key: &Key) -> usize {
    let workspace = key.workspace.to_string();
    let records = shared.system.records().await.into_iter();
    let of_it = records.filter(|record| {
        let value = record.value.as_deref().unwrap_or_default();
        String::from_utf8_lossy(value).contains(&workspace)
    });
    of_it.count()
}

/// Whatever a proxy before us may take such a request for, here it is refused and ends the connection.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let (head, hidden) = (head(&key), hidden(&key));
        let chunked = "transfer-encoding: chunked\r\n";
        let length = format!("content-length: {}\r\n", hidden.len());
        for (what, headers) in [
            ("two lengths", format!("content-length: 0\r\n{length}")),
            ("two lengths, turned round", format!("{length}content-length: 0\r\n")),
            ("a list of lengths", "content-length: 0, 0\r\n".to_owned()),
            ("a signed length", "content-length: +0\r\n".to_owned()),
            ("a negative length", "content-length: -1\r\n".to_owned()),
            ("a hexadecimal length", "content-length: 0x0\r\n".to_owned()),
            ("a length beyond 64 bits", "content-length: 99999999999999999999\r\n".to_owned()),
            ("an empty length", "content-length: \r\n".to_owned()),
            ("length and chunks", format!("{length}{chunked}")),
            ("chunks and length", format!("{chunked}{length}")),
            ("a space before the colon", "content-length : 0\r\n".to_owned()),
            ("a tab before the colon", "transfer-encoding\t: chunked\r\n".to_owned()),
            ("an unknown coding", "transfer-encoding: xchunked\r\n".to_owned()),
            ("a coding of identity", "transfer-encoding: identity\r\n".to_owned()),
            ("chunks that are not last", "transfer-encoding: chunked, identity\r\n".to_owned()),
            ("chunks twice", format!("{chunked}{chunked}")),
            ("a vertical tab", "transfer-encoding: \x0bchunked\r\n".to_owned()),
            ("a line that goes on", "x-long: a\r\n content-length: 0\r\n".to_owned()),
            ("a null in a value", "x-null: a\0b\r\n".to_owned()),
            ("a null in a name", "x-\0null: a\r\n".to_owned()),
            ("a bare carriage return", "x-cr: a\rcontent-length: 0\r\n".to_owned()),
            ("a header without a name", ": a\r\n".to_owned()),
            ("a header without a colon", "x-nothing\r\n".to_owned()),
            ("a second host", "host: y\r\n".to_owned()),
        ] {
            let found = answers(shared, format!("{head}{headers}\r\n{hidden}").as_bytes()).await;
            let statuses: Vec<_> = found.iter().map(|answer| answer.status).collect();
            assert!(
                statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status)),
                "{what}: {statuses:?}"
            );
        }
        assert_eq!(records(shared, &key).await, 0);
        assert_eq!(shared.api.post_lead(&key, "{}").await.status, 201, "it goes on beside it");
    });
}

#[test]
fn broken_chunks_end_the_connection() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let (head, hidden) = (head(&key), hidden(&key));
        for chunks in [
            "-1\r\n{}\r\n0\r\n\r\n",
            "0x2\r\n{}\r\n0\r\n\r\n",
            "g\r\n{}\r\n0\r\n\r\n",
            "\r\n{}\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
            "2\n{}\n0\n\n",
            "2\r\n{}0\r\n\r\n",
            "2 2\r\n{}\r\n0\r\n\r\n",
            "2;a=\x01\r\n{}\r\n0\r\n\r\n",
            "2;a\n{}\r\n0\r\n\r\n",
        ] {
            let request = format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}{hidden}");
            let found = answers(shared, request.as_bytes()).await;
            let statuses: Vec<_> = found.iter().map(|answer| answer.status).collect();
            assert!(
                statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status)),
                "{chunks:?}: {statuses:?}"
            );
        }
        assert_eq!(records(shared, &key).await, 0);
    });
}

/// A trailer ends with a whole line break: what follows half a one belongs to it.
#[test]
fn a_trailer_that_does_not_end_takes_what_follows_with_it() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let chunks = "2\r\n{}\r\n0\r\nx: y\n\n";
        let request = format!("{}transfer-encoding: chunked\r\n\r\n{chunks}", head(&key));
        let found = answers(shared, (request + &hidden(&key)).as_bytes()).await;
        let statuses: Vec<_> = found.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [201, 400], "the outer one, and the hidden one's body");
        assert_eq!(records(shared, &key).await, 1);
    });
}

/// What the service does not read of a body is no request.
#[test]
fn a_body_that_is_not_read_is_not_served() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let hidden = hidden(&key);
        let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let long = "content-type: application/json\r\ncontent-length: 300000\r\n".to_owned();
        let length = format!("content-length: {}\r\n", hidden.len());
        let chunked = "transfer-encoding: chunked\r\n".to_owned();
        let wrong_type = format!("x-api-key: {}\r\n{length}", key.secret);
        for (path, headers, body, status) in [
            ("/api/v1/leads", &long, &hidden, 413),
            ("/api/v1/leads", &length, &hidden, 401),
            ("/api/v1/leads", &wrong_type, &hidden, 415),
            ("/api/v1/leads", &chunked, &chunk, 401),
            ("/livez", &length, &hidden, 405),
            ("/livez", &chunked, &chunk, 405),
            ("/nowhere", &length, &hidden, 404),
        ] {
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}");
            let found = answers(shared, request.as_bytes()).await;
            let statuses: Vec<_> = found.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [status], "{path} {headers}");
        }
        assert_eq!(records(shared, &key).await, 0);
    });
}

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let post = |n: usize| {
            let body = format!(r#"{{"code":"n{n}"}}"#);
            format!("{}content-length: {}\r\n\r\n{body}", head(&key), body.len())
        };
        let get = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        let bad_lead = post(3).replace("\"code\"", "\"cod\\\"");
        let row = [post(0), get.to_owned(), post(1), bad_lead, post(2)].concat();
        let found = answers(shared, row.as_bytes()).await;
        let told: Vec<_> = found
            .iter()
            .map(|it| (it.status, it.json()["data"]["code"].as_str().map(str::to_owned)))
            .collect();
        let code = |n: usize| Some(format!("n{n}"));
        let expected = [(201, code(0)), (200, None), (201, code(1)), (400, None), (201, code(2))];
        assert_eq!(told, expected);
        assert_eq!(records(shared, &key).await, 3);

        // What is no request ends the row: nobody can know where the next one begins.
        let row = [post(4), "NONSENSE\r\n\r\n".to_owned(), post(5), get.to_owned()].concat();
        let found = answers(shared, row.as_bytes()).await;
        let statuses: Vec<_> = found.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [201, 400]);
        assert_eq!(records(shared, &key).await, 4);

        // More than are read ahead.
        let row = get.repeat(200);
        assert_eq!(answers(shared, row.as_bytes()).await.len(), 200);
    });
}
