//! Registries that speak TLS with a certificate of the user's own CA, and registries behind a proxy.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::support::docker::{Docker, Door};
use crate::support::images;
use crate::support::registry::{self, PASSWORD, Registry};
use crate::support::{Imgbuild, Place, tool};

const NAME: &str = "kernel-bin:5.10.1";

fn openssl(place: &Place, words: &str) {
    let words = words.replace("DIR/", &format!("{}/", place.work().display()));
    tool("openssl", &words.split_whitespace().map(OsStr::new).collect::<Vec<_>>());
}

/// A CA's certificate.
fn authority(place: &Place, name: &str) -> PathBuf {
    openssl(
        place,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} -keyout DIR/{name}.key -out DIR/{name}.pem"
        ),
    );
    place.path(format!("{name}.pem"))
}

/// A place with an image, and a registry whose certificate its `authority` has signed, for `owner`.
fn registry(owner: &str) -> (Place, Docker, PathBuf) {
    let place = Place::new();
    images::layout(&place, "out", &[(NAME, 1)]);
    let authority = authority(&place, "authority");
    let extensions =
        format!("subjectAltName={owner}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n");
    place.write("extensions", extensions);
    openssl(
        &place,
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=registry -keyout DIR/registry.key -out DIR/registry.csr",
    );
    openssl(
        &place,
        "x509 -req -in DIR/registry.csr -CA DIR/authority.pem -CAkey DIR/authority.key -CAcreateserial -days 2 -extfile DIR/extensions -out DIR/registry.pem",
    );
    let door = Door::Tls(place.path("registry.pem"), place.path("registry.key"));
    let docker = Docker::start(&place, &door);
    (place, docker, authority)
}

fn push(place: &Place, docker: &Docker) -> Imgbuild {
    place.imgbuild("push out --registry").arg(format!("{}/org", docker.host))
}

#[test]
fn a_registry_with_a_certificate_of_the_users_own_ca_is_pushed_to_and_pulled_from() {
    let (place, docker, authority) = registry("IP:127.0.0.1");
    let reference = format!("{}/org/{NAME}", docker.host);
    push(&place, &docker).env("SSL_CERT_FILE", &authority).run().succeeds();
    place.imgbuild("pull").arg(reference).arg("in").env("SSL_CERT_FILE", &authority).run().succeeds();
    let blobs = |dir| crate::support::layout::Layout::at(place.path(dir)).blobs();
    assert_eq!(blobs("in"), blobs("out"));
}

#[test]
fn a_certificate_of_another_ca_is_refused_once_and_the_way_out_is_told() {
    let (place, docker, _) = registry("IP:127.0.0.1");
    let other = authority(&place, "other");
    for run in [push(&place, &docker), push(&place, &docker).env("SSL_CERT_FILE", other)] {
        let outcome = run.run().fails(7).says("certificate").says("(1 attempt)");
        outcome.says("hint: if a CA of your own signed it").says("SSL_CERT_FILE=PATH").says(&docker.host);
    }
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let (place, docker, authority) = registry("DNS:registry.example");
    let outcome = push(&place, &docker).env("SSL_CERT_FILE", authority).run().fails(7);
    outcome.says("certificate").says("(1 attempt)");
}

/// A proxy that notes the first lines of what it is asked, and does nothing of it.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://bob:{PASSWORD}@{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            notes.lock().unwrap().push(line.trim_end().to_owned());
            let mut rest = String::new();
            while stream.read_line(&mut rest).is_ok_and(|n| n > 2) {}
            let _ = stream.get_mut().write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, asked)
}

#[test]
fn a_proxy_of_the_environment_is_asked_for_what_it_is_for() {
    let place = Place::new();
    let registry = Registry::new(registry::Door::Open);
    images::layout(&place, "out", &[(NAME, 1)]);
    let (proxy, asked) = proxy();
    let push = |host: &str| {
        place
            .imgbuild("push out --registry")
            .arg(host)
            .env("HTTPS_PROXY", &proxy)
            .env("NO_PROXY", "127.0.0.1")
    };
    let outcome = push("registry.invalid/org").arg("-v").run().fails(7).says("registry.invalid: cannot");
    outcome.does_not_say(PASSWORD);
    let lines = asked.lock().unwrap().clone();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line == "CONNECT registry.invalid:443 HTTP/1.1"), "{lines:?}");
    push(&registry.host()).env("HTTP_PROXY", &proxy).run().succeeds();
    assert_eq!(*asked.lock().unwrap(), lines, "what NO_PROXY names is asked directly");
}
