//! The real `docker-registry` of Debian, and skopeo as whoever reads what we push.

use crate::support::containerd::Containerd;
use crate::support::docker::{Docker, Door};
use crate::support::layout::Layout;
use crate::support::registry::{PASSWORD, USER};
use crate::support::source::Source;
use crate::support::{Place, names, tool};

/// A place with kernels for two platforms in `out`.
fn place() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    place
}

/// What skopeo sees of an image: the bytes of its index.
fn skopeo(place: &Place, host: &str, name: &str) -> String {
    let dir = place.path(format!("skopeo-{}", names(&place.work()).len()));
    let from = format!("docker://{host}/org/{name}");
    let to = format!("dir:{}", dir.display());
    let words = ["copy", "--all", "--quiet", "--src-tls-verify=false", &from, &to];
    tool("skopeo", &words.map(std::ffi::OsStr::new));
    fs_err::read_to_string(dir.join("manifest.json")).unwrap()
}

#[test]
fn skopeo_reads_what_is_pushed_and_we_read_it_again() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let push = || place.imgbuild("push out --registry").arg(format!("{}/org", docker.host)).run().succeeds();
    push();
    let out = Layout::at(place.path("out"));
    for (name, digest) in out.images() {
        assert!(skopeo(&place, &docker.host, &name).as_bytes() == out.blob(&digest), "{name}");
        place.imgbuild("pull").arg(format!("{}/org/{name}", docker.host)).arg("in").run().succeeds();
    }
    let into = Layout::at(place.path("in"));
    assert_eq!((into.images(), into.blobs()), (out.images(), out.blobs()));
    let second = push();
    assert_eq!(second.stderr.matches("there already").count(), 2, "{}", second.stderr);
    assert!(!second.stderr.contains("layer"), "{}", second.stderr);
}

#[test]
fn a_registry_with_passwords_is_logged_in_to_first() {
    let place = place();
    let docker = Docker::start(&place, &Door::Password);
    let push = || place.imgbuild("push out --registry").arg(format!("{}/org", docker.host)).run();
    push().fails(7).says("imgbuild login");
    let login = |password: &str| {
        let input = place.write("password", password);
        place
            .imgbuild("login --username")
            .arg(USER)
            .arg("--password-stdin")
            .arg(&docker.host)
            .stdin(input)
            .run()
    };
    login("wr0ng-pass").fails(7);
    login(PASSWORD).succeeds();
    push().succeeds();
}

#[test]
fn mounting_appending_and_joining_go_as_with_the_fake() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let host = &docker.host;
    let name = "kernel-bin:5.10.1";
    let whole = Layout::at(place.path("out")).images()[name].clone();
    let tag = |words: &str| {
        let outcome = place.imgbuild(words).arg("--plain-http").run().succeeds();
        outcome.stdout.lines().find(|line| line.contains("kernel-bin")).unwrap().to_owned()
    };
    tag(&format!("push out {name} --registry {host}/whole"));
    for (arch, dir) in [("x86_64", "amd64"), ("arm64", "arm64")] {
        place.imgbuild(&format!("kernel 5.10.1 --arch {arch} --output {dir}")).run().succeeds();
        tag(&format!("push {dir} {name} --registry {host}/append --append"));
    }
    let appended = tag(&format!("push arm64 {name} --registry {host}/append --append"));
    assert_eq!(appended, format!("{host}/append/{name}@{whole}"));
    let digests = ["amd64", "arm64"].map(|dir| {
        let line = tag(&format!("push {dir} {name} --registry {host}/joined --by-digest"));
        line.split_once('@').unwrap().1.to_owned()
    });
    let joined = tag(&format!("index {host}/joined/{name} {} {}", digests[0], digests[1]));
    assert_eq!(joined, format!("{host}/joined/{name}@{whole}"));
    let copy = format!("copy {host}/joined/{name} {host}/release/{name} --format json");
    let json = place.imgbuild(&copy).run().succeeds().json();
    assert_eq!((&json["sent"], &json["digest"]), (&0.into(), &whole.into()));
}

#[test]
fn containerd_pulls_and_mounts_what_is_pushed() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let containerd = Containerd::start(&place);
    for compression in ["gzip", "zstd"] {
        let command =
            format!("kernel 5.10.1 --arch all --output {compression} --push --compression {compression}");
        place
            .imgbuild(&command)
            .arg("--registry")
            .arg(format!("{}/{compression}", docker.host))
            .run()
            .succeeds();
        let layout = Layout::at(place.path(compression));
        let name = "kernel-bin:5.10.1";
        let reference = format!("{}/{compression}/{name}", docker.host);
        for (architecture, snapshotter) in [("amd64", "native"), ("arm64", "overlayfs")] {
            let platform = format!("linux/{architecture}");
            let common = ["--snapshotter", snapshotter, "--platform", &platform];
            containerd.ctr(&[&["images", "pull", "--plain-http"], &common[..], &[&reference]].concat());
            let at = place.path(format!("{compression}-{architecture}"));
            fs_err::create_dir(&at).unwrap();
            let at = at.to_str().unwrap();
            containerd.ctr(&[&["images", "mount"], &common[..], &[&reference, at]].concat());
            // On arm64 boot/vmlinux is a second name of boot/image.
            let file = if architecture == "arm64" { "boot/image" } else { "boot/vmlinux" };
            let kernel = fs_err::read(containerd.sees(at).join(file)).unwrap();
            assert!(kernel == layout.image(name, architecture).entry(file).content, "{platform} {reference}");
            containerd.ctr(&["images", "unmount", at]);
        }
    }
}
