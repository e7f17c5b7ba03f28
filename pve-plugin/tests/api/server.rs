//! The world over HTTPS: a small HTTP/1.1 server with real TLS, which can also misbehave.

use super::world::{Answer, Request, World};
use pvesync::api::{Address, Fingerprint, Limits, Rest, Token, Trust};
use rblocksync::stop::Stop;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request instead of answering it.
#[derive(Clone)]
pub enum Misdeed {
    /// Sends these bytes.
    Says(Vec<u8>),
    /// Sends nothing until the client gives up.
    Hangs,
    /// Closes the connection.
    HangsUp,
}

pub struct Server {
    pub world: Arc<World>,
    pub ca_pem: String,
    pub fingerprint: Fingerprint,
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    misdeeds: Mutex<VecDeque<Misdeed>>,
    requests: AtomicUsize,
    ended: AtomicBool,
}

impl Server {
    /// With a certificate for 127.0.0.1.
    pub fn start() -> Server {
        Server::start_as("127.0.0.1")
    }

    /// With a certificate for this name or address, signed by a CA of its own.
    pub fn start_as(name: &str) -> Server {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &ca)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            world: Arc::new(World::new()),
            ca_pem: ca.pem(),
            fingerprint: Fingerprint::of(cert.der()),
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        let (world, shared) = (Arc::clone(&server.world), Arc::clone(&server.shared));
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.ended.load(Ordering::Acquire) {
                    return;
                }
                let (world, shared) = (Arc::clone(&world), Arc::clone(&shared));
                let config = Arc::clone(&config);
                // Whatever ends a connection early is the client's affair.
                std::thread::spawn(move || serve(stream, config, &world, &shared));
            }
        });
        server
    }

    pub fn address(&self) -> Address {
        format!("https://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// The next requests are answered so, one each.
    pub fn misbehave(&self, misdeeds: impl IntoIterator<Item = Misdeed>) {
        self.shared.misdeeds.lock().unwrap().extend(misdeeds);
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }

    pub fn client(&self) -> Rest {
        self.client_with(super::world::TOKEN, &Trust::Fingerprint(self.fingerprint))
    }

    pub fn client_with(&self, token: &str, trust: &Trust) -> Rest {
        self.client_within(token, trust, Duration::from_secs(60), &Stop::new())
    }

    pub fn client_within(&self, token: &str, trust: &Trust, whole: Duration, stop: &Stop) -> Rest {
        let limits = Limits {
            whole,
            pause: Duration::ZERO,
            answer_bytes: 1 << 20,
            ..Limits::default()
        };
        let token = Token::parse(token, "the test").unwrap();
        Rest::new(self.address(), token, trust, limits, stop).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Wakes the one that waits for connections.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    world: &World,
    shared: &Shared,
) -> Option<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let request = read(&mut stream)?;
    shared.requests.fetch_add(1, Ordering::AcqRel);
    let misdeed = shared.misdeeds.lock().unwrap().pop_front();
    match misdeed {
        Some(Misdeed::Says(bytes)) => stream.write_all(&bytes).ok()?,
        Some(Misdeed::HangsUp) => return None,
        Some(Misdeed::Hangs) => {
            // Until the client closes.
            let _ = stream.read(&mut [0]);
            return None;
        }
        None => stream.write_all(&reply(&world.handle(&request))).ok()?,
    }
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn reply(answer: &Answer) -> Vec<u8> {
    let mut body = json!({"data": answer.data});
    if answer.status != 200 {
        body["message"] = json!(format!("{}\n", answer.message));
    }
    if !answer.errors.is_empty() {
        body["errors"] = json!(answer.errors);
    }
    raw(answer.status, &answer.message, "", &body.to_string())
}

/// An answer in HTTP.
pub fn raw(status: u16, reason: &str, header: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n{header}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn read(stream: &mut impl Read) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let header = |name: &str| {
        lines.clone().find_map(|l| {
            let (n, value) = l.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length = header("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let form = match method.as_str() {
        "POST" | "PUT" => &body,
        _ => query,
    };
    let params = form
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(n, v)| (decode(&n.replace('+', " ")), decode(&v.replace('+', " "))))
        .collect();
    Some(Request {
        params,
        path: decode(path).strip_prefix("/api2/json").unwrap().to_owned(),
        token: Some(header("authorization").unwrap_or_default()),
        method,
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        let (byte, left) = match b {
            b'%' => {
                let hex = std::str::from_utf8(&after[..2]).unwrap();
                (u8::from_str_radix(hex, 16).unwrap(), &after[2..])
            }
            b => (b, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).unwrap()
}
