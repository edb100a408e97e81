//! Certificates to serve with, and servers that are not who they say they are.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslConnector, SslMethod};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name};

use crate::system::unique_name;

const MADE: &str = "a certificate can be made";
/// How long an [`Impostor`] waits for a client that says nothing more.
const SILENCE: Duration = Duration::from_secs(2);
/// PostgreSQL's question for TLS: length 8, code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A folder for this user alone, deleted with it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// A new one, under the system's folder for temporary files.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("leads-testkit-{}", unique_name()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it, and says where that is.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate authority that nobody trusts unless told to.
#[derive(Debug)]
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
    file: PathBuf,
    _folder: Folder,
}

/// What a server proves itself with.
#[derive(Debug, Clone)]
pub struct Identity {
    authority: X509,
    certificate: X509,
    key: PKey<Private>,
}

fn new_key() -> PKey<Private> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect(MADE);
    PKey::from_ec_key(EcKey::generate(&curve).expect(MADE)).expect(MADE)
}

/// Everything of a certificate but its extensions and its signature.
fn unsigned(name: &str, key: &PKey<Private>) -> X509Builder {
    let mut subject = X509Name::builder().expect(MADE);
    subject.append_entry_by_nid(Nid::COMMONNAME, name).expect(MADE);
    let mut serial = BigNum::new().expect(MADE);
    serial.rand(127, MsbOption::ONE, false).expect(MADE);
    let mut builder = X509::builder().expect(MADE);
    builder.set_version(2).expect(MADE);
    builder.set_serial_number(&serial.to_asn1_integer().expect(MADE)).expect(MADE);
    builder.set_subject_name(&subject.build()).expect(MADE);
    builder.set_not_before(&Asn1Time::days_from_now(0).expect(MADE)).expect(MADE);
    builder.set_not_after(&Asn1Time::days_from_now(1).expect(MADE)).expect(MADE);
    builder.set_pubkey(key).expect(MADE);
    builder
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = new_key();
        let mut builder = unsigned("leads-testkit authority", &key);
        let subject = X509Name::builder().and_then(|mut name| {
            name.append_entry_by_nid(Nid::COMMONNAME, "leads-testkit authority")?;
            Ok(name.build())
        });
        builder.set_issuer_name(&subject.expect(MADE)).expect(MADE);
        let constraints = BasicConstraints::new().critical().ca().build().expect(MADE);
        builder.append_extension(constraints).expect(MADE);
        let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build().expect(MADE);
        builder.append_extension(usage).expect(MADE);
        let id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None));
        builder.append_extension(id.expect(MADE)).expect(MADE);
        builder.sign(&key, MessageDigest::sha256()).expect(MADE);
        let certificate = builder.build();
        let folder = Folder::new();
        let file = folder.write("ca.pem", &certificate.to_pem().expect(MADE));
        Self { certificate, key, file, _folder: folder }
    }

    /// Its certificate as a PEM file, to be trusted.
    pub fn file(&self) -> &str {
        self.file.to_str().expect("a temporary folder has a plain name")
    }

    /// A client that speaks HTTPS, trusts this authority alone, and tells what it was shown
    /// ([`reqwest::tls::TlsInfo`]).
    pub fn client(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(&self.certificate.to_pem().expect(MADE));
        reqwest::Client::builder()
            .no_proxy()
            .timeout(crate::DEADLINE)
            .tls_certs_only([root.expect(MADE)])
            .tls_info(true)
    }

    /// A bare connection over TLS that trusts this authority alone, for what no HTTP client would
    /// send. `protocols` is what is offered inside, each behind its length; none when empty. It
    /// blocks; reading gives up after [`crate::DEADLINE`].
    pub fn connect(&self, host: &str, address: SocketAddr, protocols: &[u8]) -> impl Read + Write {
        let mut connector = SslConnector::builder(SslMethod::tls()).expect(MADE);
        if !protocols.is_empty() {
            connector.set_alpn_protos(protocols).expect("lengths and names");
        }
        connector.set_ca_file(&self.file).expect("the file is there");
        let stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_read_timeout(Some(crate::DEADLINE)).expect("a time-out can be set");
        let stream = connector.build().connect(host, stream);
        stream.unwrap_or_else(|error| panic!("{address} is not trusted: {error}"))
    }

    /// A server's certificate for these host names and addresses.
    pub fn issue(&self, hosts: &[&str]) -> Identity {
        self.issue_until(hosts, &Asn1Time::days_from_now(1).expect(MADE))
    }

    /// One that has expired.
    pub fn issue_expired(&self, hosts: &[&str]) -> Identity {
        self.issue_until(hosts, &Asn1Time::from_unix(86_400).expect(MADE))
    }

    fn issue_until(&self, hosts: &[&str], end: &Asn1TimeRef) -> Identity {
        let key = new_key();
        let mut builder = unsigned(hosts.first().expect("a host"), &key);
        builder.set_not_before(&Asn1Time::from_unix(0).expect(MADE)).expect(MADE);
        builder.set_not_after(end).expect(MADE);
        builder.set_issuer_name(self.certificate.subject_name()).expect(MADE);
        let mut names = SubjectAlternativeName::new();
        for host in hosts {
            if host.parse::<IpAddr>().is_ok() {
                names.ip(host)
            } else {
                names.dns(host)
            };
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let names = names.build(&context).expect(MADE);
        let issuer = AuthorityKeyIdentifier::new().keyid(true).build(&context).expect(MADE);
        builder.append_extension(names).expect(MADE);
        builder.append_extension(issuer).expect(MADE);
        builder.sign(&self.key, MessageDigest::sha256()).expect(MADE);
        let certificate = builder.build();
        Identity { authority: self.certificate.clone(), certificate, key }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> Vec<u8> {
        self.certificate.to_pem().expect(MADE)
    }

    /// Its private key as PEM.
    pub fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().expect(MADE)
    }

    /// The certificate as a server shows it.
    pub fn certificate_der(&self) -> Vec<u8> {
        self.certificate.to_der().expect(MADE)
    }

    /// The files that `dev/stack up --tls` takes.
    pub(crate) fn write_to(&self, folder: &Folder) {
        folder.write("ca.pem", &self.authority.to_pem().expect(MADE));
        folder.write("server.pem", &self.certificate_pem());
        folder.write("server.key", &self.key_pem());
    }

    fn acceptor(&self) -> SslAcceptor {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect(MADE);
        builder.set_certificate(&self.certificate).expect(MADE);
        builder.set_private_key(&self.key).expect(MADE);
        builder.build()
    }
}

/// Which server an [`Impostor`] pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pretend {
    /// A broker with a TLS listener.
    Kafka,
    /// PostgreSQL, which is asked for TLS first.
    Postgres,
    /// A PostgreSQL that answers "no TLS here".
    PostgresWithoutTls,
}

/// What an [`Impostor`] has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Clients that came.
    pub clients: usize,
    /// Those that broke off the handshake, or left when there was none.
    pub refusals: usize,
    /// What it could read of them all: what was sent in clear, or to it by a client that trusts it.
    pub read: Vec<u8>,
}

/// A server that only shakes hands, and keeps what a client tells it.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Impostor {
    /// Listens on 127.0.0.1 with the certificate of `identity`.
    pub fn start(pretend: Pretend, identity: &Identity) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let acceptor = identity.acceptor();
        let (all, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&all));
                std::thread::spawn(move || meet(pretend, &acceptor, client, &seen));
            }
        });
        Self { address, seen, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        locked(&self.seen).clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn meet(pretend: Pretend, acceptor: &SslAcceptor, mut client: TcpStream, seen: &Mutex<Seen>) {
    let _ = client.set_read_timeout(Some(SILENCE));
    locked(seen).clients += 1;
    let mut read = Vec::new();
    if pretend != Pretend::Kafka {
        let mut question = [0; SSL_REQUEST.len()];
        if client.read_exact(&mut question).is_err() || question != SSL_REQUEST {
            read.extend(question);
        }
        let answer = if pretend == Pretend::Postgres { b"S" } else { b"N" };
        let _ = client.write_all(answer);
    }
    if pretend == Pretend::PostgresWithoutTls {
        let _ = client.read_to_end(&mut read);
    } else if let Ok(mut trusting) = acceptor.accept(client) {
        let mut said = [0; 4096];
        let length = trusting.read(&mut said).unwrap_or(0);
        read.extend_from_slice(&said[..length]);
        // With TLS 1.3 a client's refusal may come after the server's last word.
        if length > 0 {
            locked(seen).read.extend(read);
            return;
        }
    }
    let mut seen = locked(seen);
    seen.refusals += 1;
    seen.read.extend(read);
}
