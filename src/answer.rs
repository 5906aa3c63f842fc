//! An answer of a server as it comes, read by a thread of its own, so that a silent server can be left and a stop obeyed.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use reqwest::StatusCode;
use reqwest::blocking::RequestBuilder;
use reqwest::header::HeaderMap;

use crate::step::because;

/// How many bytes are read at once.
const PIECE: usize = 1 << 17;
/// How many pieces may wait to be taken.
const AHEAD: usize = 16;

/// What comes of a request, in this order: a head, bytes, an end; a break at any time.
pub enum Heard {
    /// The answer's head.
    Head(StatusCode, HeaderMap),
    /// The next bytes of the body.
    Bytes(Vec<u8>),
    /// The body is over.
    End,
    /// The connection broke; the reason has no URL in it, which may be signed.
    Broken(String),
}

/// Sends a request. Who drops what is returned ends the reading.
pub fn listen(request: RequestBuilder) -> Receiver<Heard> {
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::spawn(move || converse(request, &sender));
    receiver
}

fn converse(request: RequestBuilder, sender: &SyncSender<Heard>) {
    let mut response = match request.send() {
        Ok(response) => response,
        Err(error) => return drop(sender.send(Heard::Broken(because(&error.without_url())))),
    };
    let mut next = Heard::Head(response.status(), response.headers().clone());
    loop {
        let last = matches!(next, Heard::End | Heard::Broken(_));
        if sender.send(next).is_err() || last {
            return;
        }
        let mut buffer = vec![0; PIECE];
        next = match response.read(&mut buffer) {
            Ok(0) => Heard::End,
            Ok(n) => {
                buffer.truncate(n);
                Heard::Bytes(buffer)
            }
            Err(error) => Heard::Broken(because(&error)),
        };
    }
}
