//! The real `docker-registry` of Debian.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Place, eventually};

/// What `htpasswd -nbB bob s3cret-pass` prints: the registry takes bcrypt alone.
const HTPASSWD: &str = "bob:$2y$05$abcdefghijklmnopqrstuuV7fpPozvyqJfnY19y0802WTlXUm6Rjy\n";

/// Whom it lets in.
pub(crate) enum Door {
    /// Everybody.
    Open,
    /// `bob` alone.
    Password,
    /// Whoever speaks TLS to the owner of this certificate and key.
    Tls(PathBuf, PathBuf),
}

/// A running docker-registry; it ends when dropped.
pub(crate) struct Docker {
    child: Child,
    pub(crate) host: String,
}

impl Docker {
    /// Starts one that keeps its files in the place.
    pub(crate) fn start(place: &Place, door: &Door) -> Self {
        // Free a moment ago: the registry cannot tell which port it took.
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("a port").port();
        let host = format!("127.0.0.1:{port}");
        let door = match door {
            Door::Open => String::new(),
            Door::Password => {
                let passwords = place.write("htpasswd", HTPASSWD);
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.display())
            }
            Door::Tls(certificate, key) => {
                format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display())
            }
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: {host}\n{door}",
            place.path("registry").display()
        );
        let config = place.write("registry.yml", config);
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start docker-registry, which the tests need: {error}"));
        let docker = Self { child, host };
        eventually("listening", || TcpStream::connect(&docker.host).is_ok());
        docker
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
