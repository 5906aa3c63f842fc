//! What takes too long to be tried through the command: registries that trickle. And what needs none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::client::Patience;
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
