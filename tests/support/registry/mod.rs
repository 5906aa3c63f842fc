//! A registry in memory, strict about order and rights, with faults on demand and an account of what it was asked.

mod message;
mod referrers;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Place, sha256};
use message::{Head, Reply, error, first_byte, parts, read_head, reply};

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everybody.
    Open,
    /// `bob`, by `Basic`.
    Basic,
    /// Everybody to read and `bob` to write, by tokens of the registry's own token server.
    Tokens,
}

/// The one user.
pub(crate) const USER: &str = "bob";
/// His password.
pub(crate) const PASSWORD: &str = "s3cret-pass";

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done; this status, these header lines.
    Status(u16, &'static str),
    /// Nothing is done; this status comes before a long body is read, which is then read for nothing.
    Early(u16),
    /// The connection is reset after so many bytes of the request's body, which are kept; shorter bodies are spared.
    Reset(usize),
    /// It is done, and the answer has this header instead of its own, or besides.
    Header(&'static str, String),
    /// Nothing is done, the client is sent elsewhere by 307.
    Redirect(String),
    /// The answer's body is so many bytes of a document.
    Large(usize),
    /// The answer says this length, whatever its body has.
    Length(usize),
    /// The answer's body breaks after so many bytes.
    Cut(usize),
    /// The answer's body is these bytes.
    Instead(Vec<u8>),
    /// A part is taken with thanks and thrown away.
    Lost,
    /// All tokens have run out by now.
    Expire,
    /// It takes a while.
    Slow(Duration),
    /// Nothing is done; the answer repeats the request's `Authorization` as an error.
    Tattle,
    /// Somebody else's manifest takes this tag's place first.
    Race(String, Vec<u8>),
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    /// The bytes of its body that were read.
    pub(crate) body: usize,
    pub(crate) status: u16,
}

/// The registry; it ends when dropped.
pub(crate) struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<(String, String), Vec<u8>>,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// How many uploads were ever begun: no two have one name.
    begun: usize,
    faults: Vec<(String, String, usize, Fault)>,
    requests: Vec<Request>,
    /// Tokens that are good, each with its scopes.
    tokens: BTreeMap<String, BTreeSet<String>>,
    issued: usize,
}

struct Shared {
    address: SocketAddr,
    door: Door,
    /// Whether it lists referrers.
    lists: bool,
    state: Mutex<State>,
    ended: AtomicBool,
}

impl Registry {
    /// One that has never heard of referrers.
    pub(crate) fn new(door: Door) -> Self {
        Self::start(door, false)
    }

    /// One that lists referrers, two to a page.
    pub(crate) fn with_referrers(door: Door) -> Self {
        Self::start(door, true)
    }

    fn start(door: Door, lists: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let shared =
            Arc::new(Shared { address, door, lists, state: Mutex::default(), ended: AtomicBool::new(false) });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // What goes wrong with a connection is the client's to tell.
                std::thread::spawn(move || stream.map(|stream| serving.serve(&stream)));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Has docker's file in the place's home know the password.
    pub(crate) fn log_in(&self, place: &Place) {
        let config = json!({ "auths": { self.host(): { "username": USER, "password": PASSWORD } } });
        fs_err::create_dir_all(place.home().join(".docker")).expect("a new directory");
        fs_err::write(place.home().join(".docker/config.json"), config.to_string()).expect("a new file");
    }

    /// The next request with this method whose path has `part` meets the fault.
    pub(crate) fn fault(&self, method: &str, part: &str, fault: Fault) {
        self.faults(method, part, 1, fault);
    }

    /// The next so many requests do.
    pub(crate) fn faults(&self, method: &str, part: &str, times: usize, fault: Fault) {
        guard(&self.shared.state).faults.push((method.to_owned(), part.to_owned(), times, fault));
    }

    /// All goes well from now on.
    pub(crate) fn no_faults(&self) {
        guard(&self.shared.state).faults.clear();
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        guard(&self.shared.state).requests.clone()
    }

    /// How many requests there were with this method whose path has `part`.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.method == method && request.path.contains(part))
            .count()
    }

    /// What a tag or digest names.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), reference.to_owned());
        guard(&self.shared.state).manifests.get(&key).map(|(_, bytes)| bytes.clone())
    }

    /// A blob's bytes.
    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Vec<u8> {
        let key = (repository.to_owned(), digest.to_owned());
        guard(&self.shared.state).blobs[&key].clone()
    }

    /// Has a blob, pushed by nobody; returns its descriptor.
    pub(crate) fn put_blob(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", sha256(bytes));
        guard(&self.shared.state).blobs.insert((repository.to_owned(), digest.clone()), bytes.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Has a manifest under a tag, put there by nobody.
    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) {
        let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let bytes = manifest.to_string().into_bytes();
        guard(&self.shared.state).manifests.insert((repository.to_owned(), tag.to_owned()), (kind, bytes));
    }

    /// The tags and digests of a repository.
    pub(crate) fn references(&self, repository: &str) -> Vec<String> {
        let state = guard(&self.shared.state);
        state
            .manifests
            .keys()
            .filter(|(other, _)| other == repository)
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// The digests of a repository's blobs.
    pub(crate) fn blobs(&self, repository: &str) -> Vec<String> {
        let state = guard(&self.shared.state);
        state
            .blobs
            .keys()
            .filter(|(other, _)| other == repository)
            .map(|(_, digest)| digest.clone())
            .collect()
    }

    /// Uploads that are neither done nor taken back.
    pub(crate) fn uploads(&self) -> usize {
        guard(&self.shared.state).uploads.len()
    }

    /// Tokens handed out.
    pub(crate) fn tokens(&self) -> usize {
        guard(&self.shared.state).issued
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The listener waits for somebody to come.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        // Else each answer's second piece waits for the first one's acknowledgement.
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader)? {
            let fault = self.fault_for(&head);
            let length = head.length();
            if let Some(Fault::Early(status)) = fault {
                self.log(&head, 0, status);
                let mut stream = stream;
                write!(stream, "HTTP/1.1 {status} So\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
                stream.shutdown(Shutdown::Write)?;
                std::io::copy(&mut reader, &mut std::io::sink())?;
                return Ok(());
            }
            let (mut body, take) =
                (Vec::new(), if let Some(Fault::Reset(n)) = fault { n.min(length) } else { length });
            reader.by_ref().take(take as u64).read_to_end(&mut body)?;
            if let Some(Fault::Slow(time)) = fault {
                std::thread::sleep(time);
            }
            if let Some(Fault::Reset(_)) = fault {
                self.log(&head, body.len(), 0);
                let id = head.path.rsplit('/').next().unwrap_or_default().to_owned();
                if let Some(upload) = guard(&self.state).uploads.get_mut(&id) {
                    upload.extend(body);
                }
                // Closed with bytes unread, which is a reset.
                return Ok(());
            }
            let length = body.len();
            let mut reply = self.answer(&head, body, fault.as_ref());
            self.log(&head, length, reply.status);
            let mut said = reply.body.len();
            match &fault {
                Some(Fault::Header(name, value)) => {
                    let own = format!("{}:", name.to_ascii_lowercase());
                    let mut lines: Vec<_> = reply.head.lines().map(str::to_owned).collect();
                    lines.retain(|line| !line.to_ascii_lowercase().starts_with(&own));
                    lines.push(format!("{name}: {value}\r\n"));
                    reply.head = lines.join("\r\n");
                }
                Some(Fault::Length(n)) => said = *n,
                Some(Fault::Cut(n)) => reply.body.truncate(*n),
                _ => {}
            }
            let mut stream = stream;
            write!(stream, "HTTP/1.1 {} So\r\n{}Content-Length: {said}\r\n\r\n", reply.status, reply.head)?;
            if head.method != "HEAD" {
                stream.write_all(&reply.body[..reply.body.len().min(said)])?;
                if reply.body.len() < said {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn log(&self, head: &Head, body: usize, status: u16) {
        let path = head.target();
        let authorization = head.fields.get("authorization").cloned();
        let request = Request { method: head.method.clone(), path, authorization, body, status };
        guard(&self.state).requests.push(request);
    }

    fn fault_for(&self, head: &Head) -> Option<Fault> {
        let mut state = guard(&self.state);
        let fits = |(method, part, times, fault): &&mut (String, String, usize, Fault)| {
            let is_long = |n: usize| head.length() > n;
            *method == head.method
                && head.target().contains(part.as_str())
                && *times > 0
                && !matches!(fault, Fault::Reset(n) if !is_long(*n))
                && (*fault != Fault::Early(413) || is_long(1000))
        };
        let found = state.faults.iter_mut().find(fits)?;
        found.2 -= 1;
        Some(found.3.clone())
    }

    fn answer(&self, head: &Head, body: Vec<u8>, fault: Option<&Fault>) -> Reply {
        match fault {
            Some(Fault::Status(status, lines)) => return error(*status, "FAULT", "as asked", lines),
            Some(Fault::Redirect(to)) => return reply(307, format!("Location: {to}\r\n"), Vec::new()),
            Some(Fault::Tattle) => {
                let said = head.fields.get("authorization").cloned().unwrap_or_default();
                return error(400, "TATTLE", &said, "");
            }
            Some(Fault::Large(size)) => {
                let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
                return reply(200, kind.to_owned(), vec![b' '; *size]);
            }
            Some(Fault::Expire) => guard(&self.state).tokens.clear(),
            Some(Fault::Race(repository, bytes)) => {
                let kind = "application/vnd.oci.image.index.v1+json".to_owned();
                let tag = head.path.rsplit('/').next().unwrap_or_default().to_owned();
                guard(&self.state).manifests.insert((repository.clone(), tag), (kind, bytes.clone()));
            }
            _ => {}
        }
        if head.path == "/token" {
            return self.token(head);
        }
        if let Some(refusal) = self.refusal(head) {
            return refusal;
        }
        let mut reply = self.route(head, body, fault == Some(&Fault::Lost));
        if let Some(Fault::Instead(bytes)) = fault {
            reply.body.clone_from(bytes);
        }
        reply
    }

    /// Who comes without the right gets this.
    fn refusal(&self, head: &Head) -> Option<Reply> {
        let said = head.fields.get("authorization").map_or("", String::as_str);
        let (repository, _, _) = parts(&head.path);
        let action = if matches!(head.method.as_str(), "GET" | "HEAD") { "pull" } else { "push" };
        let own = format!("repository:{repository}:{action}");
        let (good, challenge) = match self.door {
            Door::Open => (true, String::new()),
            Door::Basic => (is_bob(said), "Basic realm=\"a fake\"".to_owned()),
            Door::Tokens => {
                let state = guard(&self.state);
                let scopes = said.strip_prefix("Bearer ").and_then(|token| state.tokens.get(token));
                let challenge = format!(
                    "Bearer realm=\"http://{}/token\",service=\"fake\",scope=\"{own}\"",
                    self.address
                );
                (scopes.is_some_and(|scopes| repository.is_empty() || scopes.contains(&own)), challenge)
            }
        };
        let lines = format!("WWW-Authenticate: {challenge}\r\n");
        (!good).then(|| error(401, "UNAUTHORIZED", "authentication required", &lines))
    }

    fn token(&self, head: &Head) -> Reply {
        let said = head.fields.get("authorization").map_or("", String::as_str);
        if !said.is_empty() && !is_bob(said) {
            return error(401, "UNAUTHORIZED", "wrong password", "");
        }
        let mut scopes = BTreeSet::new();
        for scope in head.query.get("scope").into_iter().flat_map(|all| all.split(' ')) {
            let Some((repository, actions)) = scope.rsplit_once(':') else { continue };
            for action in actions.split(',').filter(|action| *action == "pull" || !said.is_empty()) {
                scopes.insert(format!("{repository}:{action}"));
            }
        }
        let mut state = guard(&self.state);
        state.issued += 1;
        let token = format!("fake-token-{}", state.issued);
        state.tokens.insert(token.clone(), scopes);
        reply(200, String::new(), json!({ "token": token, "expires_in": 300 }).to_string().into_bytes())
    }

    fn route(&self, head: &Head, body: Vec<u8>, lost: bool) -> Reply {
        let (repository, kind, name) = parts(&head.path);
        let state = &mut *guard(&self.state);
        match (kind.as_str(), head.method.as_str()) {
            ("", "GET") => reply(200, String::new(), b"{}".to_vec()),
            ("manifests", "PUT") => {
                let mut reply = put_manifest(state, &repository, &name, head, &body);
                let document: Value = serde_json::from_slice(&body).unwrap_or_default();
                if let (true, Some(subject)) = (self.lists, document["subject"]["digest"].as_str()) {
                    reply.head += &format!("OCI-Subject: {subject}\r\n");
                }
                reply
            }
            ("referrers", "GET") if self.lists => referrers::page(&state.manifests, &repository, &name, head),
            ("manifests", _) => match state.manifests.get(&(repository, name)) {
                Some((kind, bytes)) => {
                    let digest = sha256(bytes);
                    let lines = format!("Content-Type: {kind}\r\nDocker-Content-Digest: sha256:{digest}\r\n");
                    reply(200, lines, bytes.clone())
                }
                None => error(404, "MANIFEST_UNKNOWN", "manifest unknown", ""),
            },
            ("blobs", "GET" | "HEAD") => match state.blobs.get(&(repository, name)) {
                Some(bytes) => match head.fields.get("range").and_then(|range| first_byte(range)) {
                    Some(from) if from < bytes.len() => {
                        let range =
                            format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                        reply(206, range, bytes[from..].to_vec())
                    }
                    Some(_) => reply(416, String::new(), Vec::new()),
                    None => reply(200, String::new(), bytes.clone()),
                },
                None => error(404, "BLOB_UNKNOWN", "blob unknown", ""),
            },
            ("uploads", _) => upload::upload(state, &repository, &name, head, body, lost),
            _ => error(404, "UNSUPPORTED", "no such thing", ""),
        }
    }
}

/// Takes a manifest whose parts are all there.
fn put_manifest(state: &mut State, repository: &str, name: &str, head: &Head, body: &[u8]) -> Reply {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let digest_of =
        |entry: &Value| (repository.to_owned(), entry["digest"].as_str().unwrap_or_default().to_owned());
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let mut blobs = list("layers");
    blobs.extend(document.get("config").cloned());
    if !blobs.iter().all(|blob| state.blobs.contains_key(&digest_of(blob)))
        || !list("manifests").iter().all(|member| state.manifests.contains_key(&digest_of(member)))
    {
        return error(404, "MANIFEST_BLOB_UNKNOWN", "it names what is not here", "");
    }
    let digest = format!("sha256:{}", sha256(body));
    let kind = head.fields.get("content-type").cloned().unwrap_or_default();
    for name in [name, &digest] {
        state.manifests.insert((repository.to_owned(), name.to_owned()), (kind.clone(), body.to_vec()));
    }
    reply(201, format!("Docker-Content-Digest: {digest}\r\n"), Vec::new())
}

fn is_bob(said: &str) -> bool {
    use base64::Engine;
    let word = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    said == format!("Basic {word}")
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
