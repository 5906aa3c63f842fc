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

use crate::boot::vmm::Vmm;

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

/// How a guest comes by what it is told of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// From a service at a URL that the kernel command line names, with the network beside it: Flintlock's way for Firecracker.
    Url,
    /// From a disk labelled cidata at /dev/vdb, the modules behind it: Flintlock's way for Cloud Hypervisor.
    Cidata,
}

impl Wiring {
    /// Flintlock's way for a monitor; QEMU, which it does not know, stands in for Firecracker.
    pub(in crate::boot) fn of(vmm: Vmm) -> Self {
        if vmm == Vmm::CloudHypervisor { Self::Cidata } else { Self::Url }
    }
}

/// How the guest's own interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::boot) enum Uplink {
    /// From QEMU's.
    Dhcp,
    /// There is nobody to ask.
    Fixed,
}

/// A file of the seed: its name and what is in it.
pub(in crate::boot) type File = (&'static str, Vec<u8>);

/// What the guest is told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::boot) struct Seed {
    /// The release of the modules volume, if there is one.
    modules: Option<String>,
    user: Vec<u8>,
}

impl Seed {
    /// The seed of a guest with the modules of this release on a disk, if it has them; the user's data is made of
    /// these parts.
    pub(in crate::boot) fn new(modules: Option<&str>, parts: &[Part<'_>]) -> Self {
        Self { modules: modules.map(str::to_owned), user: multipart(parts) }
    }

    /// All of it as files.
    pub(in crate::boot) fn files(&self, wiring: Wiring, uplink: Uplink) -> Vec<File> {
        let meta = "instance-id: imgbuild-boot\nlocal-hostname: imgbuild-boot\n";
        let mut files = vec![
            ("meta-data", meta.into()),
            ("user-data", self.user.clone()),
            ("vendor-data", self.vendor(wiring).into()),
        ];
        if wiring == Wiring::Cidata {
            files.push(("network-config", network(wiring, uplink).into()));
        }
        files
    }

    /// CAPMVM's bootcmd, a mark to see later that all of this was read, and the mounts that Flintlock adds, under its header.
    /// Flintlock counts the modules as the second disk for Cloud Hypervisor too, where the seed is that: here they are the
    /// third, as they would have to be named.
    fn vendor(&self, wiring: Wiring) -> String {
        let disk = if wiring == Wiring::Cidata { "vdc" } else { "vdb" };
        let mounts = self.modules.as_ref().map_or_else(String::new, |release| {
            format!(
                "mount_default_fields: [None, None, auto, \"defaults,nofail\", \"0\", \"2\"]\n\
                 mounts:\n- [{disk}, /lib/modules/{release}]\n"
            )
        });
        format!(
            "## template: jinja\n#cloud-config\n\nbootcmd:\n\
             - ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf\n\
             - touch /run/imgbuild-vendor-data\n{mounts}"
        )
    }
}

/// A part of the user's data, as cloud-init takes several.
pub(in crate::boot) struct Part<'p> {
    pub(in crate::boot) name: &'p str,
    pub(in crate::boot) content: &'p [u8],
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

/// What Flintlock adds to the kernel command line where there is a metadata service: its URL, and the network.
pub(in crate::boot) fn parameters(seed: Option<&Seed>, wiring: Wiring, uplink: Uplink) -> String {
    if seed.is_none() || wiring == Wiring::Cidata {
        return String::new();
    }
    let network = STANDARD.encode(network(wiring, uplink));
    format!("ds=nocloud-net;s=http://{ADDRESS}/latest/ network-config={network}")
}

/// The network, in version 2 of cloud-init's words. The first interface is the metadata service's, where there is one.
fn network(wiring: Wiring, uplink: Uplink) -> String {
    let [metadata, node] = MACS;
    let mut text = "version: 2\nethernets:\n".to_owned();
    if wiring == Wiring::Url {
        text += &format!(
            "  eth0:\n    match: {{macaddress: \"{metadata}\"}}\n    addresses: [169.254.0.1/16]\n    \
             dhcp4: false\n    dhcp6: false\n    dhcp-identifier: mac\n"
        );
    }
    text += &format!("  eth1:\n    match: {{macaddress: \"{node}\"}}\n    ");
    text += match uplink {
        Uplink::Dhcp => "dhcp4: true\n",
        Uplink::Fixed => "addresses: [192.0.2.2/24]\n    dhcp4: false\n    dhcp6: false\n",
    };
    text + "    dhcp-identifier: mac\n"
}

/// The service, for as long as this lives.
pub(in crate::boot) struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    connection: Arc<Mutex<Option<UnixStream>>>,
    path: PathBuf,
    /// The socket is named by way of this: a socket's path is short, a store's may be long.
    _dir: fs_err::File,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to serve `seed` on a socket in `work`, to one QEMU.
    pub(in crate::boot) fn start(seed: &Seed, work: &Path) -> std::io::Result<Self> {
        // Left by a run under another accelerator.
        if work.join(SOCKET).exists() {
            fs_err::remove_file(work.join(SOCKET))?;
        }
        let dir = fs_err::File::open(work)?;
        let files = seed.files(Wiring::Url, Uplink::Dhcp);
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
        let listener = UnixListener::bind(&path)?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connection = Arc::new(Mutex::new(None));
        let (log, held) = (Arc::clone(&asked), Arc::clone(&connection));
        let thread = std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                *held.lock().unwrap_or_else(PoisonError::into_inner) = stream.try_clone().ok();
                // A guest that breaks off has what it wanted, or says on its console that it has not.
                let _ = serve(&stream, &stream, &files, &log);
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
    files: &[File],
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
        let asked = path.strip_prefix("/latest/");
        let found = files.iter().find(|(name, _)| Some(*name) == asked);
        let (status, body) = found.map_or(("404 Not Found", &b""[..]), |(_, body)| ("200 OK", body));
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
        serve(requests.as_bytes(), &mut out, &seed().files(Wiring::Url, Uplink::Dhcp), &log).unwrap();
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
        assert!(!Seed::new(None, &[]).vendor(Wiring::Url).contains("mounts"));
    }

    #[test]
    fn on_a_disk_of_its_own_the_seed_has_the_network_and_the_modules_are_the_third_disk() {
        let files = seed().files(Wiring::Cidata, Uplink::Fixed);
        let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["meta-data", "user-data", "vendor-data", "network-config"]);
        let text = |at: usize| String::from_utf8(files[at].1.clone()).unwrap();
        assert!(text(2).ends_with("mounts:\n- [vdc, /lib/modules/5.10.262]\n"), "{}", text(2));
        assert!(!text(3).contains("eth0") && text(3).contains("addresses: [192.0.2.2/24]"), "{}", text(3));
        assert_eq!(parameters(Some(&seed()), Wiring::Cidata, Uplink::Fixed), "");
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
        let parameters = parameters(Some(&seed()), Wiring::Url, Uplink::Dhcp);
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
        drop(Server::start(&seed(), dir.path()).unwrap());
        let server = Server::start(&seed(), dir.path()).unwrap();
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
