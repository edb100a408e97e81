//! With a certificate the API speaks HTTP/2 and HTTP/1.1 over TLS, and takes a new one as it runs.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use leads_testkit::reqwest::header::HeaderMap;
use leads_testkit::reqwest::tls::TlsInfo;
use leads_testkit::reqwest::{Client, Response, Version};
use leads_testkit::{Api, Authority, DEADLINE, Folder, Identity, Key, System, eventually};

use crate::shared::{run, unlimited};

const HOSTS: &[&str] = &["127.0.0.1", "localhost"];

/// Writes what the API is started with; a file is replaced in one step.
fn write(folder: &Folder, identity: &Identity) {
    for (name, bytes) in [("tls.crt", identity.certificate_pem()), ("tls.key", identity.key_pem())]
    {
        let new = folder.write("new", &bytes);
        std::fs::rename(new, folder.path().join(name)).expect("it can be renamed");
    }
}

fn env(folder: &Path) -> [(&'static str, String); 2] {
    let file = |name: &str| folder.join(name).to_str().expect("a plain name").to_owned();
    [("API_TLS_CERT", file("tls.crt")), ("API_TLS_KEY", file("tls.key"))]
}

async fn start(system: &System, folder: &Path, period: &str) -> Api {
    let [cert, key] = env(folder);
    let env = [(cert.0, cert.1.as_str()), (key.0, &key.1), ("API_TLS_CHECK", period)];
    system.start_api_with(&env).await
}

fn url(api: &Api, path: &str) -> String {
    format!("https://{}{path}", api.address())
}

async fn get(client: &Client, api: &Api, path: &str) -> Response {
    client.get(url(api, path)).send().await.expect("an answer")
}

/// The certificate of the connection that the answer came over.
fn shown(response: &Response) -> Vec<u8> {
    let info = response.extensions().get::<TlsInfo>().expect("it came over TLS");
    info.peer_certificate().expect("a certificate").to_vec()
}

async fn post(client: &Client, api: &Api, key: &Key, body: &str) -> Response {
    let request = client.post(url(api, "/api/v1/leads")).bearer_auth(&key.secret);
    let request = request.header("content-type", "application/json").body(body.to_owned());
    request.send().await.expect("an answer")
}

async fn ready(client: &Client, api: &Api) {
    eventually(DEADLINE, "the API is ready", async || {
        get(client, api, "/readyz").await.status() == 200
    })
    .await;
}

/// What a connection made now is shown.
async fn shown_to_a_newcomer(authority: &Authority, api: &Api) -> Vec<u8> {
    let newcomer = authority.client().build().expect("a client");
    shown(&get(&newcomer, api, "/livez").await)
}

#[test]
fn both_versions_of_http_are_spoken_and_only_to_who_trusts_us() {
    run(async {
        let system = System::new().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        let identity = authority.issue(HOSTS);
        write(&folder, &identity);
        let key = system.create_key(unlimited()).await;
        let api = start(&system, folder.path(), "1m").await;
        let two = authority.client().build().expect("a client");
        let one = authority.client().http1_only().build().expect("a client");
        ready(&two, &api).await;
        for (client, version) in [(&two, Version::HTTP_2), (&one, Version::HTTP_11)] {
            let answer = post(client, &api, &key, r#"{"code":"tls"}"#).await;
            assert_eq!((answer.status().as_u16(), answer.version()), (201, version));
            assert!(answer.headers().contains_key("x-request-id"));
            assert_eq!(shown(&answer), identity.certificate_der());
            let large = format!(r#"{{"code":"{}"}}"#, "x".repeat(300_000));
            let answer = post(client, &api, &key, &large).await;
            assert_eq!((answer.status().as_u16(), answer.version()), (413, version));
            let answer = get(client, &api, "/nowhere").await;
            assert_eq!((answer.status().as_u16(), answer.version()), (404, version));
        }
        assert_eq!(system.records().await.len(), 2);

        let stranger = Authority::new().client().build().expect("a client");
        let refused = stranger.get(url(&api, "/livez")).send().await;
        assert!(refused.is_err_and(|error| error.is_connect()), "the authority is not trusted");
        let misled = authority.client().resolve("leads.example", api.address()).build();
        let wrong = format!("https://leads.example:{}/livez", api.address().port());
        let refused = misled.expect("a client").get(wrong).send().await;
        assert!(refused.is_err_and(|error| error.is_connect()), "it is another host's");

        // In clear nothing is served.
        let mut clear = api.raw().await;
        clear.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let said = clear.read_to_close(DEADLINE).await;
        assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));

        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let until = api.metric("leads_tls_certificate_expiry_seconds", "").await;
        assert!((now + 80_000.0..now + 90_000.0).contains(&until), "{until}");
        assert_eq!(api.terminate().await.code(), Some(0));
    });
}

/// Posts until it is told to stop; counts what was answered with 201 over the connection it began with.
async fn post_on(client: Client, api: &Api, key: &Key, stop: &AtomicBool, count: &AtomicUsize) {
    let first = shown(&get(&client, api, "/livez").await);
    while !stop.load(Ordering::Relaxed) {
        let answer = post(&client, api, key, "{}").await;
        assert_eq!(answer.status().as_u16(), 201);
        assert_eq!(shown(&answer), first, "an open connection goes on");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn grows(count: &AtomicUsize) {
    let before = count.load(Ordering::Relaxed);
    let what = "requests go on";
    eventually(DEADLINE, what, async || count.load(Ordering::Relaxed) > before + 10).await;
}

#[test]
fn a_new_certificate_is_taken_on_a_signal_while_requests_run() {
    run(async {
        let system = System::new().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        let (old, new) = (authority.issue(HOSTS), authority.issue(HOSTS));
        write(&folder, &old);
        let key = system.create_key(unlimited()).await;
        let api = start(&system, folder.path(), "1h").await;
        let client = authority.client().build().expect("a client");
        ready(&client, &api).await;
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let change = async {
            grows(&count).await;
            write(&folder, &new);
            api.signal("HUP");
            eventually(DEADLINE, "newcomers see the new one", async || {
                shown_to_a_newcomer(&authority, &api).await == new.certificate_der()
            })
            .await;
            grows(&count).await;

            // One that can't be used changes nothing.
            folder.write("tls.key", b"-----BEGIN PRIVATE KEY-----\nnonsense");
            api.signal("HUP");
            let stays = "the certificate could not be replaced";
            let line = api.wait_for_log(|line| line.message().starts_with(stays)).await;
            let cause = line.str("cause").expect("a cause");
            assert!(cause.contains("API_TLS_KEY") && !cause.contains("nonsense"), "{cause}");
            assert_eq!(shown_to_a_newcomer(&authority, &api).await, new.certificate_der());
            grows(&count).await;
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(post_on(client, &api, &key, &stop, &count), change);
    });
}

/// As a volume of secrets does it: files behind a link, and the link is swapped.
#[test]
fn a_new_certificate_is_found_without_a_signal() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        let (old, new) = (authority.issue(HOSTS), authority.issue(HOSTS));
        let place = |name: &str, cert: &Identity, key: &Identity| {
            let place = folder.path().join(name);
            std::fs::create_dir(&place).expect("a folder");
            std::fs::write(place.join("tls.crt"), cert.certificate_pem()).expect("a file");
            std::fs::write(place.join("tls.key"), key.key_pem()).expect("a file");
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&place, &link).expect("a link");
            std::fs::rename(link, folder.path().join("data")).expect("it can be swapped");
        };
        place("1", &old, &old);
        let api = start(&system, &folder.path().join("data"), "1s").await;
        assert_eq!(shown_to_a_newcomer(&authority, &api).await, old.certificate_der());

        // A certificate whose key has not come yet.
        place("2", &new, &old);
        let stays = "the certificate could not be replaced";
        let line = api.wait_for_log(|line| line.message().starts_with(stays)).await;
        let cause = line.str("cause").expect("a cause");
        assert!(cause.contains("is not the key of the first certificate"), "{cause}");
        assert_eq!(shown_to_a_newcomer(&authority, &api).await, old.certificate_der());

        place("3", &new, &new);
        api.wait_for_log(|line| line.message() == "the certificate was replaced").await;
        assert_eq!(shown_to_a_newcomer(&authority, &api).await, new.certificate_der());
        let told = api.logs().into_iter().filter(|line| line.message().starts_with(stays)).count();
        assert_eq!(told, 1, "trouble is told once");
    });
}

#[test]
fn files_that_can_not_be_used_are_named_at_boot() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        let (one, other) = (authority.issue(HOSTS), authority.issue(HOSTS));
        let file = |name: &str, bytes: &[u8]| folder.write(name, bytes).display().to_string();
        let cert = file("cert.pem", &one.certificate_pem());
        let key = file("key.pem", &one.key_pem());
        let not_its_key = file("other.pem", &other.key_pem());
        let empty = file("empty.pem", b"");
        let broken =
            file("broken.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        for (cert, key, words) in [
            ("/nowhere.pem", key.as_str(), ["API_TLS_CERT", "/nowhere.pem can't be read"]),
            (&cert, "/nowhere.key", ["API_TLS_KEY", "/nowhere.key can't be read"]),
            (&empty, &key, ["API_TLS_CERT", "empty.pem has no certificate"]),
            (&key, &key, ["API_TLS_CERT", "key.pem has no certificate"]),
            (&broken, &key, ["API_TLS_CERT", "broken.pem: its first certificate can't be read"]),
            (&cert, &empty, ["API_TLS_KEY", "empty.pem has no private key"]),
            (&cert, &cert, ["API_TLS_KEY", "cert.pem has no private key"]),
            (
                &cert,
                &not_its_key,
                ["API_TLS_KEY", "other.pem is not the key of the first certificate"],
            ),
        ] {
            let env = [("API_TLS_CERT", cert), ("API_TLS_KEY", key)];
            let output = system.run("leads-api", &["serve"], &env).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
            assert!(!said.contains("PRIVATE KEY"), "{said}");
        }
        // One that has expired is served, for want of a better one, and warned of.
        write(&folder, &authority.issue_expired(HOSTS));
        let api = start(&system, folder.path(), "1m").await;
        let expired = "the certificate has expired";
        let line = api.wait_for_log(|line| line.message().starts_with(expired)).await;
        assert_eq!(line.level(), "WARN");
        let until = api.metric("leads_tls_certificate_expiry_seconds", "").await;
        assert!((until - 86_400.0).abs() < 1.0, "{until}");
    });
}

/// Posts until the service says that it goes; gives how many were kept.
async fn post_to_the_end(client: &Client, api: &Api, key: &Key) -> usize {
    for kept in 0.. {
        let answer = post(client, api, key, "{}").await;
        let status = answer.status().as_u16();
        if status == 503 {
            let body = answer.text().await.expect("a body");
            assert!(body.contains("shutting_down"), "{body}");
            return kept;
        }
        assert_eq!(status, 201);
    }
    unreachable!("it goes at some time")
}

#[test]
fn at_the_end_of_the_process_no_request_of_http2_is_cut() {
    run(async {
        let system = System::new().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        write(&folder, &authority.issue(HOSTS));
        let key = system.create_key(unlimited()).await;
        let api = start(&system, folder.path(), "1m").await;
        let client = authority.client().build().expect("a client");
        ready(&client, &api).await;
        let posting = futures_util::future::join_all(
            (0..8).map(async |_| post_to_the_end(&client, &api, &key).await),
        );
        let ending = async {
            let some = async || !system.records().await.is_empty();
            eventually(DEADLINE, "leads are taken", some).await;
            api.terminate().await
        };
        let (kept, ended) = tokio::join!(posting, ending);
        assert_eq!(ended.code(), Some(0));
        assert_eq!(system.records().await.len(), kept.into_iter().sum::<usize>());
    });
}

#[test]
fn slow_clients_are_cut_off_inside_tls_as_well() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        write(&folder, &authority.issue(HOSTS));
        let [cert, key] = env(folder.path());
        let limits = [("HEADER_TIMEOUT", "1s"), ("KEEP_ALIVE", "1s")];
        let env = [&[(cert.0, cert.1.as_str()), (key.0, &key.1)], &limits[..]].concat();
        let api = system.start_api_with(&env).await;
        let address = api.address();
        let read = tokio::task::spawn_blocking(move || {
            let mut stream = authority.connect("localhost", address, b"");
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is taken");
            let mut read = vec![0; 12];
            stream.read_exact(&mut read).expect("an answer");
            stream.write_all(b"GET /livez HTTP/1.1\r\nx-slow: ").expect("it is taken");
            let ended = stream.read_to_end(&mut read);
            let waits = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            assert!(!waits, "it is still open");
            read
        });
        let read = read.await.expect("it has ended");
        assert!(read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&read));
        // One that never shakes hands.
        api.raw().await.read_to_close(DEADLINE).await;
    });
}

/// What one connection may ask for at a time is bounded; it goes on after that.
#[test]
fn a_connection_of_http2_has_its_bounds() {
    run(async {
        let system = System::new().await;
        let (authority, folder) = (Authority::new(), Folder::new());
        write(&folder, &authority.issue(HOSTS));
        let key = system.create_key(unlimited()).await;
        let api = Arc::new(start(&system, folder.path(), "1m").await);
        let client = authority.client().build().expect("a client");
        ready(&client, &api).await;
        let mut headers = HeaderMap::new();
        for n in 0..200 {
            let name = format!("x-{n}").parse::<leads_testkit::reqwest::header::HeaderName>();
            headers.insert(name.expect("a name"), "x".parse().expect("a value"));
        }
        let answer = client.get(url(&api, "/livez")).headers(headers).send().await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (431, Version::HTTP_2));
        assert!(answer.text().await.expect("a body").contains("headers_too_large"));

        // All at once over the one connection; each waits for the broker a little.
        let refused = eventually(DEADLINE, "too many at once", async || {
            let post = async |_| post(&client, &api, &key, "{}").await;
            let answers = futures_util::future::join_all((0..800).map(post)).await;
            let mut statuses: Vec<_> = answers.iter().map(|it| it.status().as_u16()).collect();
            statuses.sort_unstable();
            statuses.dedup();
            assert!(statuses.iter().all(|status| [201, 503].contains(status)), "{statuses:?}");
            answers.into_iter().find(|answer| answer.status() == 503)
        })
        .await;
        assert_eq!(refused.headers()["retry-after"], "1");
        assert!(refused.text().await.expect("a body").contains("on this connection"));
        assert_eq!(post(&client, &api, &key, "{}").await.status().as_u16(), 201);
    });
}
