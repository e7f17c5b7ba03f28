//! The way to the API from anywhere: HTTPS with an API token.
//!
//! The server is known by the fingerprint of its certificate or by the cluster's CA, and by nothing else. No proxy is
//! used, no redirect followed, and every answer is bounded in size and time. Only what changes nothing is asked again.

mod tls;
mod token;

pub use tls::{Fingerprint, Trust};
pub use token::{Token, VARIABLE};

use super::call::{odd_answer, Call, Transport};
use super::calls::Method;
use super::refusal::{one_line, Refusal};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::stop::Stop;
use reqwest::header::{HeaderValue, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Where Proxmox VE listens.
const PORT: u16 = 8006;
/// How often a wait looks at the stop flag.
const STOP_LOOK: Duration = Duration::from_millis(100);

/// The address of a node's API: `https://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Url);

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address> {
        let bad = |why: &str| {
            Error::new(
                Kind::Usage,
                format!("\"{}\" is not the address of an API: {why}", shown(text)),
            )
            .advise("write https://HOST or https://HOST:8006")
        };
        let mut url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        if url.scheme() != "https" {
            return Err(bad("it does not begin with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "it holds a user name; the token has a place of its own",
            ));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(bad("something follows the host"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        // `Url` drops a port that is https's own, which is not Proxmox VE's: only the text tells it from none.
        let given = text.trim_end_matches('/').ends_with(":443");
        if url.port().is_none() && !given {
            url.set_port(Some(PORT))
                .map_err(|()| bad("it cannot have a port"))?;
        }
        Ok(Address(url))
    }
}

impl Address {
    /// The host, as a name or an address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// Whatever stands before an `@` may be a secret.
fn shown(text: &str) -> String {
    let text = match text.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => text.to_owned(),
    };
    text.escape_default().take(200).collect()
}

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect and shake hands.
    pub connect: Duration,
    /// From the request to the last byte of the answer. Proxmox VE gives up on its own workers after 30 s.
    pub whole: Duration,
    /// Bytes of an answer.
    pub answer_bytes: usize,
    /// How often a question is asked in all, if the way to the answer fails.
    pub tries: u32,
    /// Before it is asked again.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            whole: Duration::from_secs(60),
            answer_bytes: 16 << 20,
            tries: 3,
            pause: Duration::from_secs(1),
        }
    }
}

/// The API of one node over HTTPS; it passes on what concerns other nodes of its cluster.
pub struct Rest {
    runtime: Runtime,
    client: Client,
    address: Address,
    token: Token,
    limits: Limits,
    stop: Stop,
}

impl Rest {
    /// Makes ready; nothing is sent yet. Fails if the CA's file cannot be read.
    pub fn new(
        address: Address,
        token: Token,
        trust: &Trust,
        limits: Limits,
        stop: &Stop,
    ) -> Result<Rest> {
        let cannot = |e| Error::io("cannot start the runtime for HTTPS", e);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(cannot)?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls::config(trust)?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits.connect)
            .user_agent(concat!("pvesync/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::new(Kind::Usage, "cannot set up HTTPS").because(e.without_url()))?;
        Ok(Rest {
            runtime,
            client,
            address,
            token,
            limits,
            stop: stop.clone(),
        })
    }

    async fn once(&self, call: &Call) -> std::result::Result<Value, Failure> {
        let sent = self.request(call)?.send().await;
        let response = sent.map_err(|e| self.lost(call, e))?;
        let status = response.status();
        let reason = response
            .extensions()
            .get::<hyper::ext::ReasonPhrase>()
            .map(|r| String::from_utf8_lossy(r.as_bytes()).into_owned());
        if status.is_redirection() {
            let what = format!("{} answers {call} with a redirect", self.address);
            return Err(Failure::lasting(
                Error::new(Kind::Protocol, what)
                    .because("redirects are not followed: the token is for that server only")
                    .advise("give the address of the node itself"),
            ));
        }
        let body = self.body(call, response).await?;
        if !status.is_success() {
            let passing = call.method() == Method::Get && is_passing(status.as_u16());
            let error = refusal(status.as_u16(), reason, &body).error(call);
            return Err(Failure { error, passing });
        }
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|e| {
            // A fault in the text shows no more than its place, but an answer may be anything.
            Failure::lasting(odd_answer(call, e))
        })?;
        Ok(envelope.data)
    }

    fn request(&self, call: &Call) -> std::result::Result<reqwest::RequestBuilder, Failure> {
        let mut url = self.address.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear()
                .extend(["api2", "json"])
                .extend(call.segments());
        }
        let encoded = encode(call.params());
        let method = match call.method() {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let in_body = matches!(call.method(), Method::Post | Method::Put);
        if !in_body && !call.params().is_empty() {
            url.set_query(Some(&encoded));
        }
        let header = self.token.header().map_err(Failure::lasting)?;
        let mut request = self
            .client
            .request(method, url)
            .header(AUTHORIZATION, header);
        if in_body {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            request = request.header(CONTENT_TYPE, form).body(encoded);
        }
        Ok(request)
    }

    async fn body(
        &self,
        call: &Call,
        mut response: Response,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.lost(call, e))? {
            if body.len() + chunk.len() > self.limits.answer_bytes {
                let why = format!("it is longer than {} bytes", self.limits.answer_bytes);
                return Err(Failure::lasting(odd_answer(call, why)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// There was no answer, or not all of it.
    fn lost(&self, call: &Call, e: reqwest::Error) -> Failure {
        if let Some(error) = tls::distrust(&self.address.to_string(), &e) {
            return Failure::lasting(error);
        }
        let what = format!("no answer from {} to {call}", self.address);
        let (connecting, timeout) = (e.is_connect(), e.is_timeout());
        let kind = match timeout {
            true => Kind::Timeout,
            false => Kind::Remote,
        };
        let error = Error::new(kind, what).because(e.without_url());
        match call.method() {
            Method::Get => Failure {
                error,
                passing: !timeout,
            },
            _ if connecting => Failure::lasting(error),
            _ => Failure::lasting(unsure(error)),
        }
    }

    /// Within its time, and until the stop flag is set.
    fn in_time<T>(
        &self,
        call: &Call,
        work: impl Future<Output = std::result::Result<T, Failure>>,
    ) -> std::result::Result<T, Failure> {
        let deadline = Instant::now() + self.limits.whole;
        self.runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if let Ok(done) = tokio::time::timeout(left.min(STOP_LOOK), &mut work).await {
                    return done;
                }
                let ended = match self.stop.check() {
                    Err(stopped) => stopped,
                    Ok(()) if !left.is_zero() => continue,
                    Ok(()) => Error::new(
                        Kind::Timeout,
                        format!(
                            "{} did not answer {call} within {} s",
                            self.address,
                            self.limits.whole.as_secs_f32()
                        ),
                    ),
                };
                return Err(Failure::lasting(match call.method() {
                    Method::Get => ended,
                    _ => unsure(ended),
                }));
            }
        })
    }

    fn pause(&self) -> Result<()> {
        let until = Instant::now() + self.limits.pause;
        loop {
            self.stop.check()?;
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(STOP_LOOK)),
            }
        }
    }
}

impl Transport for Rest {
    fn send(&self, call: &Call) -> Result<Value> {
        let mut tried = 1;
        loop {
            match self.in_time(call, self.once(call)) {
                Ok(data) => return Ok(data),
                Err(Failure { passing: true, .. }) if tried < self.limits.tries => tried += 1,
                Err(failure) => return Err(failure.error),
            }
            self.pause()?;
        }
    }
}

/// Without the token.
impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rest({})", self.address)
    }
}

#[derive(Deserialize)]
struct Envelope {
    data: Value,
}

/// What comes with a status that is none of success.
#[derive(Deserialize, Default)]
struct Complaint {
    #[serde(default)]
    message: Option<Value>,
    #[serde(default)]
    errors: Option<BTreeMap<String, Value>>,
}

/// A failed attempt, and whether another may go better.
struct Failure {
    error: Error,
    passing: bool,
}

impl Failure {
    fn lasting(error: Error) -> Failure {
        Failure {
            error,
            passing: false,
        }
    }
}

/// What a request that changes something leaves behind when its answer is missing.
fn unsure(error: Error) -> Error {
    error
        .followed_by("it may have been done all the same")
        .advise("look at the VM, and at the node's task log, before it is tried again")
}

/// The node in between, or its connection to the one that it concerns, has a weak moment.
fn is_passing(status: u16) -> bool {
    matches!(status, 502..=504 | 595..=599)
}

/// The sentence may be in the body, in the status line or in both; `errors` comes with a 400.
fn refusal(status: u16, reason: Option<String>, body: &[u8]) -> Refusal {
    let complaint: Complaint = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: Value| match value {
        Value::String(s) => s,
        other => other.to_string(),
    };
    let said = complaint.message.map(text).map(|m| one_line(&m));
    let reason = reason.map(|r| one_line(&r)).filter(|r| !r.is_empty());
    let message = match (said.filter(|s| !s.is_empty()), reason) {
        // The status line has the beginning of what the body says.
        (Some(said), _) => said,
        (None, reason) => reason.unwrap_or_default(),
    };
    let errors = complaint.errors.unwrap_or_default();
    Refusal {
        status: Some(status),
        message,
        errors: errors.into_iter().map(|(k, v)| (k, text(v))).collect(),
    }
}

/// As a form or a query is written. The url crate does that for queries, so it is asked to.
fn encode(params: &[(String, String)]) -> String {
    let Ok(mut url) = Url::parse("https://x/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(params);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port() {
        for (text, want, host) in [
            ("https://pve1", "https://pve1:8006", "pve1"),
            ("https://pve1/", "https://pve1:8006", "pve1"),
            ("https://pve1:443", "https://pve1", "pve1"),
            ("https://10.0.0.1:8007", "https://10.0.0.1:8007", "10.0.0.1"),
            ("https://[::1]:8006", "https://[::1]:8006", "::1"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.host()), (want, host));
        }
        for text in [
            "",
            "pve1",
            "http://pve1",
            "https://",
            "https://pve1/api2",
            "https://pve1?x",
            "file:///etc/passwd",
        ] {
            assert_eq!(
                text.parse::<Address>().unwrap_err().kind(),
                Kind::Usage,
                "{text}"
            );
        }
    }

    #[test]
    fn a_secret_in_an_address_is_not_repeated() {
        let e = "https://root:geheim@pve1".parse::<Address>().unwrap_err();
        assert!(!e.to_string().contains("geheim"), "{e}");
    }

    #[test]
    fn what_is_sent_is_encoded() {
        let params = [
            ("a".to_owned(), "x&b=1 +\u{e4}".to_owned()),
            ("scsi0".to_owned(), "l:vm-1,x=y".to_owned()),
        ];
        assert_eq!(
            encode(&params),
            "a=x%26b%3D1+%2B%C3%A4&scsi0=l%3Avm-1%2Cx%3Dy"
        );
    }
}
