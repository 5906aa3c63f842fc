//! The metadata service of a guest, as Flintlock fills Firecracker's: instance and vendor data, the user's data, and
//! what the kernel command line says of the network.
//!
//! QEMU hands every connection of the guest to 169.254.169.254 to one socket of ours; nothing else of the host, or of
//! the world, can be reached from inside, and nothing here listens where another user could ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err::File;

/// The socket's name in the scratch directory, QEMU's working directory.
pub(in crate::boot) const SOCKET: &str = "seed.sock";
/// The guest's interfaces: that of the metadata service first, as Flintlock has it.
pub(in crate::boot) const MACS: [&str; 2] = ["52:54:00:69:00:00", "52:54:00:69:00:01"];
/// Where the service is.
pub(in crate::boot) const ADDRESS: &str = "169.254.169.254";
/// What stands between the parts of the user's data.
const BOUNDARY: &str = "==imgbuild-boot==";
/// More than any request line or header of a guest that means well.
const LONGEST: u64 = 16 << 10;

/// What the guest is told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::boot) struct Seed {
    pub(super) meta: String,
    pub(super) user: Vec<u8>,
    pub(super) vendor: String,
}

impl Seed {
    /// The seed of a guest with the modules of this release on its second disk, if it has them; the user's data is
    /// made of these parts.
    pub(super) fn new(modules: Option<&str>, parts: &[Part<'_>]) -> Self {
        let mounts = modules.map_or_else(String::new, |release| {
            format!(
                "mount_default_fields: [~, ~, auto, \"defaults,nofail\", \"0\", \"2\"]\n\
                 mounts:\n- [vdb, /lib/modules/{release}]\n"
            )
        });
        Self {
            meta: "instance-id: imgbuild-boot\nlocal-hostname: imgbuild-boot\n".into(),
            user: multipart(parts),
            // CAPMVM's bootcmd, and a mark to see later that all of this was read.
            vendor: format!(
                "#cloud-config\nbootcmd:\n- ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf\n\
                 - touch /run/imgbuild-vendor-data\n{mounts}"
            ),
        }
    }

    fn answer(&self, path: &str) -> Option<&[u8]> {
        match path {
            "/latest/meta-data" => Some(self.meta.as_bytes()),
            "/latest/user-data" => Some(&self.user),
            "/latest/vendor-data" => Some(self.vendor.as_bytes()),
            _ => None,
        }
    }
}

/// A part of the user's data, as cloud-init takes several.
pub(super) struct Part<'p> {
    pub(super) name: &'p str,
    pub(super) content: &'p [u8],
}

/// The parts as one MIME document. Each is plain text: cloud-init then looks at its first line, as it does at a whole.
fn multipart(parts: &[Part<'_>]) -> Vec<u8> {
    let mut text =
        format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n").into_bytes();
    for Part { name, content } in parts {
        text.extend(
            format!(
                "--{BOUNDARY}\nContent-Type: text/plain; charset=\"utf-8\"\nContent-Transfer-Encoding: base64\n\
                 Content-Disposition: attachment; filename=\"{name}\"\n\n"
            )
            .as_bytes(),
        );
        for line in STANDARD.encode(content).as_bytes().chunks(76) {
            text.extend(line);
            text.push(b'\n');
        }
    }
    text.extend(format!("--{BOUNDARY}--\n").as_bytes());
    text
}

/// What Flintlock adds to the kernel command line: where the metadata is, and the network (version 2 of cloud-init's).
pub(in crate::boot) fn parameters() -> String {
    let [metadata, node] = MACS;
    let network = format!(
        "version: 2\nethernets:\n  eth0:\n    match: {{macaddress: \"{metadata}\"}}\n    addresses: [169.254.0.1/16]\n    \
         dhcp4: false\n    dhcp6: false\n  eth1:\n    match: {{macaddress: \"{node}\"}}\n    dhcp4: true\n    \
         dhcp-identifier: mac\n"
    );
    format!("ds=nocloud-net;s=http://{ADDRESS}/latest/ network-config={}", STANDARD.encode(network))
}

/// The service, for as long as this lives.
pub(in crate::boot) struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    connection: Arc<Mutex<Option<UnixStream>>>,
    path: PathBuf,
    /// The socket is named by way of this: a socket's path is short, a store's may be long.
    _dir: File,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to serve `seed` on a socket in `work`, to one QEMU.
    pub(in crate::boot) fn start(seed: Seed, work: &Path) -> std::io::Result<Self> {
        // Left by a run under another accelerator.
        if work.join(SOCKET).exists() {
            fs_err::remove_file(work.join(SOCKET))?;
        }
        let dir = File::open(work)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
        let listener = UnixListener::bind(&path)?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connection = Arc::new(Mutex::new(None));
        let (log, held) = (Arc::clone(&asked), Arc::clone(&connection));
        let thread = std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                *held.lock().unwrap_or_else(PoisonError::into_inner) = stream.try_clone().ok();
                // A guest that breaks off has what it wanted, or says on its console that it has not.
                let _ = serve(&stream, &stream, &seed, &log);
            }
        });
        Ok(Self { asked, connection, path, _dir: dir, thread: Some(thread) })
    }

    /// What the guest has asked for so far.
    pub(in crate::boot) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever still waits for a QEMU is woken by a caller who says nothing.
        let _ = UnixStream::connect(&self.path);
        if let Some(stream) = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request after the other. All connections of the guest come through one stream, and it makes them one
/// after the other: lengths alone tell where an answer ends.
fn serve(
    stream: impl Read,
    mut out: impl Write,
    seed: &Seed,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.by_ref().take(LONGEST).read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.by_ref().take(LONGEST).read_line(&mut header)? > 0 && header.trim() != "" {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = path
            .strip_prefix("http://")
            .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
            .unwrap_or(path);
        log.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        let (status, body) = seed.answer(path).map_or(("404 Not Found", &b""[..]), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        out.write_all(&[head.as_bytes(), body].concat())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        let part = Part { name: "a", content: "#cloud-config\nhostname: é\n".as_bytes() };
        Seed::new(Some("5.10.262"), &[part, Part { name: "b", content: b"#!/bin/sh\n" }])
    }

    fn answers(requests: &str) -> (String, Vec<String>) {
        let (mut out, log) = (Vec::new(), Mutex::default());
        serve(requests.as_bytes(), &mut out, &seed(), &log).unwrap();
        (String::from_utf8(out).unwrap(), log.into_inner().unwrap())
    }

    #[test]
    fn the_service_answers_one_request_after_the_other() {
        let (text, asked) = answers(
            "GET /latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n\
             GET /latest/vendor-data HTTP/1.1\r\nA: b\r\n\r\nGET /else HTTP/1.1\r\n\r\n",
        );
        assert_eq!(asked, ["/latest/meta-data", "/latest/vendor-data", "/else"]);
        let answers: Vec<_> = text.split("HTTP/1.1 ").skip(1).collect();
        assert!(answers[0].starts_with("200 OK\r\n"), "{text}");
        assert!(
            answers[0].ends_with("\r\n\r\ninstance-id: imgbuild-boot\nlocal-hostname: imgbuild-boot\n"),
            "{text}"
        );
        assert!(answers[1].ends_with("mounts:\n- [vdb, /lib/modules/5.10.262]\n"), "{text}");
        assert!(
            answers[2].starts_with("404 Not Found\r\n") && answers[2].contains("Content-Length: 0\r\n"),
            "{text}"
        );
    }

    #[test]
    fn without_modules_nothing_is_mounted() {
        assert!(!Seed::new(None, &[]).vendor.contains("mounts"));
    }

    #[test]
    fn every_part_of_the_users_data_can_be_read_back() {
        let text = String::from_utf8(seed().user).unwrap();
        let parts: Vec<_> = text.split(&format!("--{BOUNDARY}\n")).skip(1).collect();
        let bodies: Vec<_> = parts
            .iter()
            .map(|part| part.split("\n\n").nth(1).unwrap().split("\n--").next().unwrap().replace('\n', ""))
            .map(|body| String::from_utf8(STANDARD.decode(body).unwrap()).unwrap())
            .collect();
        assert_eq!(bodies, ["#cloud-config\nhostname: é\n", "#!/bin/sh\n"]);
        assert!(text.ends_with(&format!("\n--{BOUNDARY}--\n")));
    }

    #[test]
    fn the_command_line_is_flintlocks() {
        let parameters = parameters();
        let network =
            parameters.strip_prefix("ds=nocloud-net;s=http://169.254.169.254/latest/ network-config=");
        let network = String::from_utf8(STANDARD.decode(network.unwrap()).unwrap()).unwrap();
        assert!(
            network.starts_with("version: 2\nethernets:\n  eth0:\n    match: {macaddress: \"52:54:"),
            "{network}"
        );
        // QEMU adds its devices behind: after ` --` the kernel would hand them to init.
        assert!(!parameters.contains(" --"));
    }

    #[test]
    fn a_server_that_nobody_called_ends_and_one_that_was_called_too() {
        let dir = tempfile::tempdir().unwrap();
        drop(Server::start(seed(), dir.path()).unwrap());
        let server = Server::start(seed(), dir.path()).unwrap();
        let mut stream = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        stream.write_all(b"GET /latest/user-data HTTP/1.1\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(
            (line.as_str(), server.asked()),
            ("HTTP/1.1 200 OK\r\n", vec!["/latest/user-data".to_owned()])
        );
        drop(server);
    }
}
