//! A containerd to read images with.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Place, eventually, tool};

/// A containerd of the test's own, in namespaces of its own, so that it needs no root and no mount is left behind.
pub(crate) struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    /// Starts one that keeps its files in the place.
    pub(crate) fn start(place: &Place) -> Self {
        let dir = place.path("containerd");
        let socket = dir.join("socket");
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\", \
             \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n\
             [grpc]\naddress = \"{1}\"\nuid = 0\ngid = 0\n",
            dir.display(),
            socket.display()
        );
        let config = place.write("containerd/config.toml", config);
        let log = fs_err::File::create(dir.join("log")).expect("our own containerd").into_parts().0;
        let child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "containerd", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("our own containerd"))
            .stderr(log)
            .spawn()
            .expect("the tests need util-linux and containerd");
        let mut containerd = Self { child, socket };
        let log = dir.join("log");
        eventually("containerd listens", || {
            let ended = containerd.child.try_wait().expect("our own containerd");
            assert!(
                ended.is_none(),
                "containerd ended: {}",
                fs_err::read_to_string(&log).expect("our own containerd")
            );
            fs_err::read_to_string(&log)
                .expect("our own containerd")
                .contains("containerd successfully booted")
        });
        containerd
    }

    /// Runs `ctr` beside it.
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        let words = self.command();
        let args = words[1..].iter().map(OsStr::new).chain(args.iter().map(OsStr::new));
        tool(&words[0], &args.collect::<Vec<_>>())
    }

    /// The words that run `ctr` beside it, before its arguments.
    pub(crate) fn command(&self) -> Vec<String> {
        let pid = self.child.id().to_string();
        let socket = self.socket.to_str().expect("our own containerd");
        let words = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &pid];
        words.into_iter().chain(["ctr", "--address", socket]).map(str::to_owned).collect()
    }

    /// A path as containerd's namespace has it.
    pub(crate) fn sees(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.child.id()))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
