//! One file over HTTP: resumed with Range after a break, retried with growing pauses, hashed while it streams.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use fs_err::{self as fs, File, OpenOptions};
use reqwest::StatusCode;
use reqwest::blocking::Client;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};

use super::{Error, Sum};
use crate::answer::{self, Heard};
use crate::lock::FilePin;
use crate::step::{Level, Progress, Watch, because};

/// How often a server is asked in a row without a single byte of progress.
const ATTEMPTS: usize = 4;
/// The first pause between two attempts; each one is twice the one before.
const PAUSE: Duration = Duration::from_millis(500);
/// After so long without a byte a connection counts as broken.
const STALL: Duration = Duration::from_secs(60);
/// How long a server may take to say whether it has something.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a waiting download looks whether it should stop.
const TICK: Duration = Duration::from_millis(100);

/// Why one attempt ended.
enum Broken {
    /// Another attempt may do better.
    Retry(String),
    /// The server says that it is not there.
    Gone(String),
    /// No attempt will.
    Final(Error),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Downloads into `part`, going on where an earlier run stopped, and checks the hash.
///
/// On a break `part` stays, for the next run to go on from; on a mismatch it is removed. Returns the size.
pub(super) fn download(
    pin: &FilePin,
    url: &str,
    part: &Path,
    progress: &dyn Progress,
    watch: &Watch,
) -> Result<u64, Error> {
    let mut sum = resume(part, watch)?;
    let mut resumed = sum.size > 0;
    loop {
        receive(&pin.place, url, part, &mut sum, u64::MAX, progress, watch)?;
        match sum.clone().check(pin, url) {
            Ok(size) => return Ok(size),
            // What an earlier run left may have been damaged on disk: once more from the start.
            Err(Error::Mismatch { .. }) if resumed => {
                watch.reporter.note(Level::Info, "the resumed download has another hash: fetching it anew");
                fs::remove_file(part)?;
                (sum, resumed) = (Sum::default(), false);
            }
            Err(error) => {
                fs::remove_file(part)?;
                return Err(error);
            }
        }
    }
}

/// Asks until the whole file is in `part` or it is no use to go on; `sum` goes on from what is there.
pub(super) fn receive(
    place: &str,
    url: &str,
    part: &Path,
    sum: &mut Sum,
    limit: u64,
    progress: &dyn Progress,
    watch: &Watch,
) -> Result<(), Error> {
    let client = client()?;
    let mut failures = 0;
    loop {
        let before = sum.size;
        match attempt(&client, url, part, sum, limit, progress, watch) {
            Ok(()) => return Ok(()),
            Err(Broken::Gone(status)) => {
                return Err(Error::Gone { place: place.to_owned(), url: url.to_owned(), status });
            }
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Retry(reason)) => {
                failures = if sum.size > before { 1 } else { failures + 1 };
                if failures >= ATTEMPTS {
                    let (place, url) = (place.to_owned(), url.to_owned());
                    return Err(Error::Unreachable { place, url, reason, attempts: failures });
                }
                watch.reporter.note(Level::Info, &format!("{url}: {reason}; trying again"));
                pause(PAUSE * (1 << (failures - 1)), watch)?;
            }
        }
    }
}

fn client() -> Result<Client, Error> {
    // The process has one provider; a second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().user_agent(concat!("imgbuild/", env!("CARGO_PKG_VERSION")));
    let built = builder.connect_timeout(Duration::from_secs(20)).timeout(None).build();
    built.map_err(|error| Error::Io(std::io::Error::other(error)))
}

/// Whether a server answers for this URL; else why not.
pub(super) fn answers(url: &str, watch: &Watch) -> Result<(), String> {
    let client = client().map_err(|error| error.to_string())?;
    let request = client.head(url).timeout(PATIENCE);
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || drop(sender.send(request.send())));
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(Ok(response)) if response.status().is_success() => return Ok(()),
            Ok(Ok(response)) => return Err(response.status().to_string()),
            Ok(Err(error)) => return Err(because(&error)),
            Err(_) if watch.cancel.is_cancelled() => return Err("interrupted".into()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the connection ended".into()),
        }
    }
}

/// The hash of what an earlier run left.
fn resume(part: &Path, watch: &Watch) -> Result<Sum, Error> {
    let mut sum = Sum::default();
    let mut file = match File::open(part) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(sum),
        Err(error) => return Err(error.into()),
    };
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sum),
            _ if watch.cancel.is_cancelled() => return Err(Error::Cancelled),
            n => sum.add(&buffer[..n]),
        }
    }
}

fn attempt(
    client: &Client,
    url: &str,
    part: &Path,
    sum: &mut Sum,
    limit: u64,
    progress: &dyn Progress,
    watch: &Watch,
) -> Result<(), Broken> {
    let mut request = client.get(url);
    if sum.size > 0 {
        request = request.header(RANGE, format!("bytes={}-", sum.size));
    }
    let heard = answer::listen(request);
    let mut file = None;
    let mut last_heard = Instant::now();
    loop {
        match heard.recv_timeout(TICK) {
            Ok(heard) => {
                last_heard = Instant::now();
                match heard {
                    Heard::Head(status, headers) => {
                        file = Some(open(status, starts_at(&headers), part, sum)?);
                    }
                    Heard::Bytes(bytes) if sum.size + bytes.len() as u64 > limit => {
                        return Err(Broken::Final(Error::TooLarge { from: url.to_owned(), limit }));
                    }
                    Heard::Bytes(bytes) => {
                        file.as_mut().expect("a body comes after its head").write_all(&bytes)?;
                        sum.add(&bytes);
                        progress.set(sum.size);
                    }
                    Heard::End => return Ok(()),
                    Heard::Broken(reason) => return Err(Broken::Retry(reason)),
                }
            }
            Err(RecvTimeoutError::Timeout) if last_heard.elapsed() > STALL => {
                return Err(Broken::Retry(format!("no byte for {} s", STALL.as_secs())));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Broken::Retry("the connection ended".into())),
        }
        if watch.cancel.is_cancelled() {
            return Err(Broken::Final(Error::Cancelled));
        }
    }
}

/// The file to append the body to, as the answer's head has it: going on, from the start, or not at all.
fn open(status: StatusCode, start: Option<u64>, part: &Path, sum: &mut Sum) -> Result<File, Broken> {
    let from_the_start = |sum: &mut Sum| {
        *sum = Sum::default();
        File::create(part)
    };
    match status {
        StatusCode::PARTIAL_CONTENT if start == Some(sum.size) => {
            Ok(OpenOptions::new().append(true).open(part)?)
        }
        StatusCode::OK => Ok(from_the_start(sum)?),
        // The server has no such range: from the start, then.
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if sum.size > 0 => {
            from_the_start(sum)?;
            Err(Broken::Retry(format!("cannot resume ({status})")))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Broken::Retry(status.to_string())),
        _ if status.is_server_error() => Err(Broken::Retry(status.to_string())),
        _ => Err(Broken::Gone(status.to_string())),
    }
}

/// Where a partial answer begins.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn pause(time: Duration, watch: &Watch) -> Result<(), Error> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if watch.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}
