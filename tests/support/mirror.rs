//! An HTTP mirror with faults on demand, and an account of what it was asked.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How one request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With what is asked for: all of it, or the range.
    Right,
    /// With this status and a page about it.
    Status(u16),
    /// With 200 and these bytes instead.
    Instead(Vec<u8>),
    /// Rightly, but the connection breaks after so many bytes of the body.
    Break(usize),
    /// Rightly, but after so many bytes of the body nothing more comes for as long as anybody waits.
    Stall(usize),
    /// With 200 and the whole, whatever range is asked for.
    Whole,
    /// With a range that begins so many bytes after the one asked for.
    Shifted(usize),
    /// With the right bytes of the range, and no `Content-Range` to say so.
    Unsaid,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    /// How many bytes of the body were sent in return.
    pub(crate) sent: usize,
}

/// The mirror of one file, whatever its path; it ends when dropped.
pub(crate) struct Mirror {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    content: Vec<u8>,
    /// What is left of the answers to come; `always` follows.
    answers: Mutex<VecDeque<Answer>>,
    always: Answer,
    requests: Mutex<Vec<Request>>,
    ended: AtomicBool,
    /// Wakes the stalled connections when the mirror ends.
    end: (Mutex<()>, Condvar),
}

impl Mirror {
    /// Serves `content` rightly.
    pub(crate) fn of(content: &[u8]) -> Self {
        Self::answering(content, [], Answer::Right)
    }

    /// Serves `content`, the first requests as `answers` say and all later ones as `always` says.
    pub(crate) fn answering(
        content: &[u8],
        answers: impl IntoIterator<Item = Answer>,
        always: Answer,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let shared = Arc::new(Shared {
            content: content.to_owned(),
            answers: Mutex::new(answers.into_iter().collect()),
            always,
            requests: Mutex::default(),
            ended: AtomicBool::new(false),
            end: (Mutex::new(()), Condvar::new()),
        });
        let address = listener.local_addr().expect("a bound port");
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

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/pub", self.address)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        guard(&self.shared.requests).clone()
    }

    /// From which byte on each request asked for the file; none where it asked for the whole.
    pub(crate) fn ranges(&self) -> Vec<Option<usize>> {
        let start = |range: String| first_byte(&range).unwrap_or_else(|| panic!("the range `{range}`"));
        self.requests().into_iter().map(|request| request.range.map(start)).collect()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(guard(&self.shared.end.0));
        self.shared.end.1.notify_all();
        // The listener waits for somebody to come.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let head = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut range = None;
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = Some(value.trim().to_owned());
            }
        }
        if path.is_empty() {
            return Ok(());
        }
        let answer = guard(&self.answers).pop_front().unwrap_or_else(|| self.always.clone());
        let number = {
            let mut requests = guard(&self.requests);
            requests.push(Request { path, range: range.clone(), sent: 0 });
            requests.len() - 1
        };
        let from = range.as_deref().and_then(first_byte);
        self.answer(stream, &answer, from, number)?;
        stream.shutdown(Shutdown::Write)?;
        // Until the client has closed: a close with bytes unread would take back what was sent.
        let mut stream = stream;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }

    /// Answers the request of this number.
    fn answer(
        &self,
        mut stream: &TcpStream,
        answer: &Answer,
        from: Option<usize>,
        number: usize,
    ) -> std::io::Result<()> {
        let whole = &self.content[..];
        let from = from.filter(|_| *answer != Answer::Whole);
        let page;
        let (head, body) = match (answer, from) {
            (Answer::Status(status), _) => {
                page = format!("<h1>{status}</h1>\n").into_bytes();
                (format!("{status} As Asked"), &page[..])
            }
            (Answer::Instead(bytes), _) => ("200 OK".to_owned(), &bytes[..]),
            (_, None) => ("200 OK".to_owned(), whole),
            (_, Some(from)) if from >= whole.len() => ("416 Range Not Satisfiable".to_owned(), &[][..]),
            (Answer::Unsaid, Some(from)) => ("206 Partial Content".to_owned(), &whole[from..]),
            (answer, Some(from)) => {
                let from = from + if let Answer::Shifted(by) = answer { *by } else { 0 };
                let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
                (format!("206 Partial Content\r\nContent-Range: {range}"), &whole[from..])
            }
        };
        let sent = match answer {
            Answer::Break(after) | Answer::Stall(after) => &body[..body.len().min(*after)],
            _ => body,
        };
        guard(&self.requests)[number].sent = sent.len();
        write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        stream.write_all(sent)?;
        if let Answer::Stall(_) = answer {
            let mut waiting = guard(&self.end.0);
            while !self.ended.load(Ordering::SeqCst) {
                waiting = self.end.1.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Ok(())
    }
}

/// Where a range to the file's end begins.
fn first_byte(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
