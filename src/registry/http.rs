//! Requests: sent, retried, redirected, held to time limits, and never with our credentials to somebody else.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use reqwest::blocking::{ClientBuilder, RequestBuilder};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::client::{Client, guard, header};
use super::hosts::{plain, same_origin, without_queries};
use super::stream::{FileBody, Traffic};
use crate::answer::{self, Heard};
use crate::step::{Level, human};

/// How often a waiting request looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);
/// How many redirects are followed in a row.
const REDIRECTS: usize = 5;
/// How much of an answer that is only looked at for its complaint is read, in bytes.
const COMPLAINT_LIMIT: u64 = 64 << 10;

/// What a token has to allow: `repository:org/name:pull`, or several with spaces between. Empty: no token at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scope(pub(super) String);

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self(format!("{} {}", self.0, other.0))
    }
}

/// What a request carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// `len` bytes of a file, from `from` on; of a whole file also the digest, which is checked while it is sent.
    File {
        path: &'a Path,
        from: u64,
        len: u64,
        digest: Option<&'a str>,
    },
}

impl Body<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }
}

/// One request, which can be sent again.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) scope: Scope,
    /// What it is for, for messages: "read `…`".
    pub(super) what: String,
    headers: HeaderMap,
    /// An `Authorization` that is for this URL's host alone.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: Body<'a>,
    /// How long the answer's body may be, in bytes.
    pub(super) limit: u64,
    /// Is told how many bytes of the body were sent.
    pub(super) progress: Option<&'a dyn Fn(u64)>,
}

impl Call<'_> {
    pub(super) fn new(method: Method, url: Url, scope: Scope, what: impl Into<String>) -> Self {
        Self {
            method,
            url,
            scope,
            what: what.into(),
            headers: HeaderMap::new(),
            authorization: None,
            body: Body::Empty,
            limit: COMPLAINT_LIMIT,
            progress: None,
        }
    }

    /// With one more header.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Who gave it.
    pub(super) url: Url,
}

impl Answer {
    /// Where it sends us.
    pub(super) fn location(&self) -> Option<Url> {
        self.url.join(header(&self.headers, LOCATION.as_str())?).ok()
    }
}

/// Why one attempt ended.
#[derive(Debug)]
pub(super) enum Stumble {
    /// Another attempt may do better, not before `after`.
    Again { reason: String, after: Option<Duration> },
    /// No attempt will.
    Final(Error),
}

impl Stumble {
    pub(super) fn again(reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), after: None }
    }
}

impl<E: Into<Error>> From<E> for Stumble {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// Takes an answer's body as it comes.
pub(super) trait Sink {
    /// Whether the body of an answer with this head is taken; else it is read for its complaint.
    fn begin(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<bool, Stumble>;
    /// The next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stumble>;
}

/// An agent that follows no redirect by itself.
pub(super) fn agent(
    with: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<reqwest::blocking::Client, Error> {
    let builder = reqwest::blocking::Client::builder()
        .user_agent(concat!("imgbuild/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        // A referer would tell one host the signed URL of another.
        .referer(false)
        .connect_timeout(Duration::from_secs(20))
        .timeout(None);
    with(builder).build().map_err(|error| Error::Io(std::io::Error::other(error.without_url())))
}

impl Client {
    /// Sends until there is an answer that is not a passing failure.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let mut tries = 0;
        loop {
            match self.attempt(call, None) {
                Ok(answer) => return Ok(answer),
                Err(stumble) => self.stumbled(stumble, &mut tries, &call.what)?,
            }
        }
    }

    /// Waits before the next attempt, or says that there is none.
    pub(super) fn stumbled(&self, stumble: Stumble, tries: &mut u32, what: &str) -> Result<(), Error> {
        let (reason, after) = match stumble {
            Stumble::Final(error) => return Err(error),
            Stumble::Again { reason, after } => (reason, after),
        };
        *tries += 1;
        let unreachable = |reason: String| Error::Unreachable {
            registry: self.host.to_string(),
            what: what.to_owned(),
            reason,
            tries: *tries,
        };
        // Who is told when to come again may come more often than who finds nobody in.
        if *tries >= if after.is_some() { 2 * self.patience.tries } else { self.patience.tries } {
            return Err(unreachable(reason));
        }
        let wait = after.unwrap_or_else(|| jittered(self.patience.pause * (1 << (*tries - 1).min(6))));
        let until = Instant::now() + wait;
        {
            let mut turn = guard(&self.turn);
            let begins = if after.is_some() { turn.0.max(Instant::now()) } else { Instant::now() };
            let Some(left) = turn.1.checked_sub(until.saturating_duration_since(begins)) else {
                let asked = after
                    .map_or_else(String::new, |after| format!("; it asks to wait {} s", after.as_secs()));
                return Err(unreachable(format!("{reason}{asked}, longer than is left to wait")));
            };
            turn.1 = left;
            if after.is_some() {
                // The registry means all our connections.
                turn.0 = turn.0.max(until);
            }
        }
        let message = format!("{}: {reason}; trying again in {:.1} s", self.host, wait.as_secs_f64());
        self.watch.reporter.note(Level::Info, &message);
        self.sleep_until(until)
    }

    fn sleep_until(&self, until: Instant) -> Result<(), Error> {
        loop {
            if self.is_over() {
                return Err(Error::Cancelled);
            }
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(TICK)),
            }
        }
    }

    /// Sends once: with a token, renewed once if need be, and along redirects.
    pub(super) fn attempt(
        &self,
        call: &Call<'_>,
        mut sink: Option<&mut dyn Sink>,
    ) -> Result<Answer, Stumble> {
        let turn = guard(&self.turn).0;
        self.sleep_until(turn)?;
        let mut url = call.url.clone();
        let (mut renewed, mut redirects) = (false, 0);
        loop {
            let is_home = self.is_home(&url, call);
            let agent = if is_home { self.agent.clone() } else { self.other(&url)? };
            let asks = is_home && !call.scope.0.is_empty();
            let authorization = if asks { self.authorization(&call.scope)? } else { None };
            let own = call.authorization.clone().filter(|_| same_origin(&url, &call.url));
            let answer = self.once(call, &agent, &url, authorization.clone().or(own), &mut sink)?;
            match answer.status {
                StatusCode::UNAUTHORIZED if asks && !renewed => {
                    self.renew(&answer, call, authorization.as_ref())?;
                    renewed = true;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if asks => {
                    return Err(self.denied(&call.what, self.said(&answer)).into());
                }
                status if may_follow(status, &call.method) => {
                    redirects += 1;
                    let next = answer.location().filter(|_| redirects <= REDIRECTS);
                    url = next.ok_or_else(|| self.refused(&call.what, "its redirects lead nowhere"))?;
                }
                StatusCode::NOT_IMPLEMENTED => return Ok(answer),
                status if status.is_server_error() || is_for_now(status) => {
                    let after = header(&answer.headers, RETRY_AFTER.as_str()).and_then(retry_after);
                    return Err(Stumble::Again { reason: self.said(&answer), after });
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Sends once to one URL.
    fn once(
        &self,
        call: &Call<'_>,
        agent: &reqwest::blocking::Client,
        url: &Url,
        authorization: Option<HeaderValue>,
        sink: &mut Option<&mut dyn Sink>,
    ) -> Result<Answer, Stumble> {
        let traffic = Arc::new(Traffic::default());
        let mut request = agent.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request = match call.body {
            // Without a length, some servers wait for a body.
            Body::Empty if matches!(call.method, Method::GET | Method::HEAD) => request,
            Body::Empty => request.header(CONTENT_LENGTH, 0),
            Body::Bytes(bytes) => request.body(bytes.to_vec()),
            Body::File { path, from, len, digest } => {
                let file = FileBody::open(path, from, len, digest, &traffic)?;
                let reader = BufReader::with_capacity(1 << 18, file);
                request.body(reqwest::blocking::Body::sized(reader, len))
            }
        };
        let mut answer =
            Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Vec::new(), url: url.clone() };
        let exchanged = self.exchange(call, request, &traffic, sink, &mut answer);
        traffic.left.store(true, Ordering::Relaxed);
        if let Some(error) = traffic.fault(call.body) {
            return Err(Stumble::Final(error));
        }
        exchanged.map(|()| answer)
    }

    /// Has the request sent and takes its answer.
    fn exchange(
        &self,
        call: &Call<'_>,
        request: RequestBuilder,
        traffic: &Traffic,
        sink: &mut Option<&mut dyn Sink>,
        answer: &mut Answer,
    ) -> Result<(), Stumble> {
        let heard = answer::listen(request);
        let (mut taken, mut has_head, mut received) = (false, false, 0);
        let mut window = (Instant::now(), 0);
        loop {
            match heard.recv_timeout(TICK) {
                Ok(Heard::Head(status, headers)) => {
                    has_head = true;
                    if let Some(sink) = sink {
                        taken = sink.begin(status, &headers)?;
                    }
                    let length = header(&headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
                    let is_document = !taken && status.is_success() && call.method != Method::HEAD;
                    if is_document && length.is_some_and(|length: u64| length > call.limit) {
                        return Err(too_large(call).into());
                    }
                    (answer.status, answer.headers) = (status, headers);
                }
                Ok(Heard::Bytes(bytes)) => {
                    received += bytes.len() as u64;
                    match sink {
                        Some(sink) if taken => sink.bytes(&bytes)?,
                        _ => answer.body.extend(bytes),
                    }
                    if answer.body.len() as u64 > call.limit {
                        if answer.status.is_success() {
                            return Err(too_large(call).into());
                        }
                        // Enough of a complaint.
                        return Ok(());
                    }
                }
                Ok(Heard::End) => return Ok(()),
                Ok(Heard::Broken(reason)) => return Err(self.broken(&reason, call)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stumble::again("the connection ended")),
            }
            let sent = traffic.sent.load(Ordering::Relaxed);
            if let Some(progress) = call.progress {
                progress(sent);
            }
            if self.is_over() {
                return Err(Error::Cancelled.into());
            }
            let moved = sent + received;
            // Whoever has just taken a large blob may need a while to put it away.
            let is_digesting = !has_head && sent > 0 && sent == call.body.len();
            let stall = if is_digesting { 5 * self.patience.stall } else { self.patience.stall };
            if moved >= window.1 + self.patience.least {
                window = (Instant::now(), moved);
            } else if window.0.elapsed() > stall {
                let (least, time) = (human(self.patience.least), stall.as_secs_f64());
                return Err(Stumble::again(format!("stalled: less than {least} in {time:.0} s")));
            }
        }
    }

    /// A connection's end, with what may be done about it.
    fn broken(&self, reason: &str, call: &Call<'_>) -> Stumble {
        let reason = self.auth.scrub(&without_queries(reason));
        // No other attempt finds another certificate.
        if reason.contains("certificate") {
            let registry = self.host.to_string();
            return Error::Unreachable { registry, what: call.what.clone(), reason, tries: 1 }.into();
        }
        Stumble::again(reason)
    }
}

fn too_large(call: &Call<'_>) -> Error {
    Error::TooLarge { what: plain(&call.url), limit: call.limit }
}

fn is_for_now(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

fn may_follow(status: StatusCode, method: &Method) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match status.as_u16() {
        301..=303 => reads,
        307 | 308 => true,
        _ => false,
    }
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::try_from(date.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// Between half of `pause` and all of it, so that those who failed together do not come again together.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or_default() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(retry_after("Wed, 21 Oct 2065 07:28:00 GMT").unwrap() > Duration::from_secs(1 << 20));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn pauses_lie_between_half_and_all() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_millis(400));
            assert!((200..=400).contains(&pause.as_millis()), "{pause:?}");
        }
    }
}
