//! What takes too long to be tried through the command: registries that trickle. And what needs none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::client::Patience;
use super::tree::entry;
use super::{Client, Error, Options};
use crate::step::Watch;

/// A server that sends `head` at once and then a byte every few milliseconds, until nobody listens.
fn trickling(head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(head.as_bytes());
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    address
}

#[test]
fn a_registry_that_trickles_is_left() {
    for head in ["HTTP/1.1 2", "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"] {
        let patience = Patience {
            stall: Duration::from_millis(200),
            tries: 2,
            pause: Duration::from_millis(10),
            ..Patience::default()
        };
        let host = trickling(head).to_string().parse().unwrap();
        let options = Options { plain_http: true };
        let client = Client::with_patience(&host, &options, &Watch::silent(), patience).unwrap();
        let begun = Instant::now();
        let error = client.manifest("org/x", "1").unwrap_err();
        assert!(matches!(&error, Error::Unreachable { tries: 2, .. }), "{head}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{head}: {:?}", begun.elapsed());
    }
}

/// A server that gives ten bytes of a blob of 60,000 with each request, from where it is asked to go on.
fn stingy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
            let from = request.split_once("range: bytes=").and_then(|(_, rest)| rest.split('-').next());
            let head = match from.and_then(|from| from.parse::<u64>().ok()) {
                Some(from) => format!(
                    "206 Part\r\nContent-Range: bytes {from}-59999/60000\r\nContent-Length: {}",
                    60_000 - from
                ),
                None => "200 OK\r\nContent-Length: 60000".to_owned(),
            };
            let _ = stream.write_all(format!("HTTP/1.1 {head}\r\n\r\nxxxxxxxxxx").as_bytes());
        }
    });
    address
}

#[test]
fn a_blob_that_comes_forward_too_slowly_is_left() {
    let patience = Patience {
        tries: 2,
        pause: Duration::from_millis(10),
        budget: Duration::from_millis(50),
        ..Patience::default()
    };
    let host = stingy().to_string().parse().unwrap();
    let client =
        Client::with_patience(&host, &Options { plain_http: true }, &Watch::silent(), patience).unwrap();
    client.base.set(format!("http://{host}/v2/").parse().unwrap()).unwrap();
    let mut blob = entry("", b"", None);
    blob.size = 60_000;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let error = client.fetch_blob("org/x", &blob, &mut file, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("longer than is left to wait"), "{error}");
    assert!(file.as_file().metadata().unwrap().len() >= 40, "it went on from where it was");
}

#[test]
fn a_password_in_what_should_be_a_reference_is_not_repeated() {
    for (text, shown) in [
        ("bob:s3cret@registry.example/a", "…@registry.example/a"),
        ("https://bob:s3cret@registry.example/a", "https://…@registry.example/a"),
        ("https://registry.example/a@sha256:1", "https://registry.example/a@sha256:1"),
        ("bob:s3cret@x", "…@x"),
    ] {
        let error = Error::reference(text, "so").to_string();
        assert_eq!(error, format!("`{shown}` is no image reference: so"));
    }
}
