//! The pages of docs/: every command of theirs is run, in order, as a user would type it.
//!
//! A page is one shell script in an empty directory. Its registry is a real one on loopback, its kernel real and small;
//! what is not here (flintlockd, kubectl …) is a stand-in that keeps what it was given, which is then held against
//! the rules of the real one. There is no other program on the script's PATH, so a page cannot have a command that
//! nobody looks at.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::containerd::Containerd;
use crate::support::docker::{Docker, Door};
use crate::support::{Place, consumers, names, real, shared_store, ubuntu};
use fs_err as fs;
use serde_json::Value;

/// Every page with commands, and whether its root volumes come from what stands in for Ubuntu's archive.
const PAGES: [(&str, bool); 5] = [
    ("flintlock.md", false),
    ("hammertime.md", false),
    ("cloud-hypervisor.md", false),
    ("firecracker.md", false),
    ("capmvm.md", true),
];
/// The registry of all pages.
const REGISTRY: &str = "registry.example/";
/// Programs of every machine.
const TOOLS: [&str; 5] = ["sed", "tar", "cat", "jq", "base64"];
/// Programs that are not here.
const STAND_INS: [&str; 8] =
    ["flintlockd", "curl", "grpcurl", "hammertime", "kubectl", "clusterctl", "firecracker", "ctr"];
/// `flintlockd run`'s flags.
const FLINTLOCKD: [&str; 8] = [
    "--bridge-name",
    "--parent-iface",
    "--containerd-socket",
    "--default-provider",
    "--enable-http",
    "--grpc-endpoint",
    "--http-endpoint",
    "--insecure",
];

/// Keeps words, standard input where `-` or `@` stands for it, and the files that are named.
const RECORD: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
call=$CALLS/$(printf %03d "$(ls "$CALLS" | wc -l)")
mkdir "$call"
printf '%s\n' NAME "$@" > "$call/words"
for word in "$@"; do
    case $word in
        - | @) cat > "$call/input" ;;
        *) if [ -f "${word#@}" ]; then cp "${word#@}" "$call/$(basename "${word#@}")"; fi ;;
    esac
done
"#;

/// The part of a cluster template of CAPMVM's that is about images, as its variables fill it.
const CLUSTER: &str = r#"for role in control-plane md-0; do cat <<END
---
kind: MicrovmMachineTemplate
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
metadata:
  name: "demo-$role"
spec:
  template:
    spec:
      vcpu: 2
      memoryMb: 2048
      rootVolume: { id: root, image: "$MVM_ROOT_IMAGE" }
      kernel: { filename: "boot/vmlinux", image: "$MVM_KERNEL_IMAGE" }
      volumes:
      - id: modules
        image: "$MVM_KERNEL_MODULES_IMAGE"
        mountPoint: /lib/modules/5.10.77
      kernelCmdline: {}
      networkInterfaces:
      - { guestDeviceName: "eth1", type: "macvtap" }
END
done
: "$CONTROL_PLANE_VIP" "$HOST_ENDPOINT" "$KUBERNETES_VERSION"
"#;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn page(name: &str) -> String {
    fs::read_to_string(docs().join(name)).unwrap()
}

/// The commands of a page: its blocks marked `sh`. Blocks without a mark hide what they are.
fn commands(page: &str) -> Result<String, String> {
    let (mut script, mut block) = (String::new(), None);
    for line in page.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(""), Some(_)) => block = None,
            (Some("sh"), None) => block = Some(true),
            (Some("json" | "yaml" | "toml"), None) => block = Some(false),
            (Some(mark), _) => return Err(format!("a block is marked `{mark}`, not sh, json, yaml or toml")),
            (None, Some(true)) => script += &format!("{line}\n"),
            (None, None) if line.starts_with("    ") => {
                return Err(format!("an indented block: `{}`", line.trim()));
            }
            (None, _) => {}
        }
    }
    match block {
        None => Ok(script),
        Some(_) => Err("a block has no end".into()),
    }
}

/// One call of a stand-in.
#[derive(Debug)]
struct Call {
    words: Vec<String>,
    /// By their names; standard input is `input`.
    files: BTreeMap<String, String>,
}

impl Call {
    fn read(dir: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let words = text("words").lines().map(str::to_owned).collect();
        let files =
            names(dir).into_iter().filter(|name| name != "words").map(|name| (name.clone(), text(&name)));
        Self { words, files: files.collect() }
    }

    /// The value of an option.
    fn option(&self, name: &str) -> &str {
        let at = self.words.iter().position(|word| word == name);
        at.and_then(|at| self.words.get(at + 1)).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn file(&self, name: &str) -> &str {
        self.files.get(name.trim_start_matches('@')).unwrap_or_else(|| panic!("no file {name} in {self:?}"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(self.file(name)).unwrap()
    }

    /// The options, without their values.
    fn options(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).filter(|word| word.starts_with('-') && word.len() > 1).collect()
    }

    /// What the real program would say; returns the references of images that it would have pulled.
    fn check(&self) -> Vec<String> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words[..] {
            ["flintlockd", "run", ..] => {
                let unknown = self.options().into_iter().find(|option| !FLINTLOCKD.contains(option));
                assert_eq!(unknown, None, "{words:?}");
                Vec::new()
            }
            ["curl", "--fail", "--data", body, "http://localhost:8090/v1alpha1/microvm"] => {
                consumers::microvm(&self.json(body))
            }
            [
                "grpcurl",
                "-plaintext",
                "-d",
                "@",
                "localhost:9090",
                "microvm.services.api.v1alpha1.MicroVM/CreateMicroVM",
            ] => {
                let request = self.json("input");
                assert_eq!(request.as_object().unwrap().len(), 1, "{request}");
                consumers::microvm(&request["microvm"])
            }
            [
                "hammertime",
                "create" | "get" | "delete",
                "--grpc-address",
                "127.0.0.1:9090",
                "--file",
                file,
            ] => {
                let machine = self.json(file);
                assert!(machine["interfaces"][0]["type"].is_u64() && machine["namespace"].is_string());
                consumers::microvm(&machine)
            }
            ["kubectl", "apply", "--filename", file] => {
                let documents: Vec<Value> = serde_saphyr::from_multiple(self.file(file)).unwrap();
                assert!(!documents.is_empty(), "{file} is empty");
                documents.iter().flat_map(template).collect()
            }
            ["kubectl", "patch", "machinedeployment", "demo-md-0", "--type", "merge", "--patch", ..] => {
                let patch: Value = serde_json::from_str(self.option("--patch")).unwrap();
                let template = &patch["spec"]["template"]["spec"]["infrastructureRef"]["name"];
                assert_eq!(template, "demo-md-1");
                Vec::new()
            }
            ["clusterctl", "init", "--infrastructure", "microvm"] => Vec::new(),
            ["clusterctl", "generate", "cluster", "demo", ..] => {
                let known = [
                    "--infrastructure",
                    "--flavor",
                    "--control-plane-machine-count",
                    "--worker-machine-count",
                ];
                assert_eq!(self.options(), known);
                assert_eq!(self.option("--infrastructure"), "microvm");
                Vec::new()
            }
            ["firecracker", "--no-api", "--config-file", file] => {
                let files = consumers::firecracker(&self.json(file));
                assert_eq!(files, ["boot/vmlinux", "root.ext4", "modules.ext4"]);
                Vec::new()
            }
            _ => panic!("no test knows what `{}` does", words.join(" ")),
        }
    }
}

/// A template that Firecracker would run, with its modules where they belong.
fn template(document: &Value) -> Vec<String> {
    let references = consumers::template(document);
    let spec = &document["spec"]["template"]["spec"];
    assert_eq!(spec["volumes"][0]["mountPoint"], format!("/lib/modules/{}", real::VERSION));
    assert_eq!(spec["networkInterfaces"][0]["type"], "tap");
    references
}

/// Where a page is followed.
struct Desk {
    place: Place,
    docker: Docker,
    containerd: Containerd,
}

impl Desk {
    /// One with imgbuild, a few tools and the stand-ins, and nothing else.
    fn new(is_ubuntu: bool) -> Self {
        let place = if is_ubuntu { ubuntu::place() } else { Place::new() };
        let docker = Docker::start(&place, &Door::Open);
        let containerd = Containerd::start(&place);
        let desk = Self { place, docker, containerd };
        desk.place
            .write("../home/.ssh/id_ed25519.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB user@example\n");
        fs::create_dir(desk.dir("calls")).unwrap();
        fs::create_dir(desk.dir("page")).unwrap();
        catalogue(&desk.dir("catalogue"));
        for tool in TOOLS {
            let paths = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|dir| dir.join(tool))
                .collect::<Vec<_>>();
            let path = paths
                .into_iter()
                .find(|path| path.is_file())
                .unwrap_or_else(|| panic!("the tests need {tool}"));
            fs::create_dir_all(desk.dir("bin")).unwrap();
            symlink(path, desk.dir("bin").join(tool)).unwrap();
        }
        STAND_INS.iter().for_each(|name| desk.program(name, &RECORD.replace("NAME", name)));
        desk.program(
            "clusterctl",
            &(RECORD.replace("NAME", "clusterctl") + "[ \"$1\" = init ] && exit\n" + CLUSTER),
        );
        desk.program("sudo", "#!/bin/sh\nexec \"$@\"\n");
        let ctr = desk.containerd.command().join(" ");
        desk.program("ctr", &format!("#!/bin/sh\nPATH={}\nexec {ctr} \"$@\"\n", path()));
        desk.program("imgbuild", &desk.imgbuild(is_ubuntu));
        desk
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.place.path(format!("../{name}"))
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.place.write(&format!("../bin/{name}"), text);
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The real one, which finds its tools, and Ubuntu where it has to.
    fn imgbuild(&self, is_ubuntu: bool) -> String {
        let (path, program) = (path(), env!("CARGO_BIN_EXE_imgbuild"));
        let catalogue = self.dir("catalogue").display().to_string();
        let store = shared_store().display().to_string();
        let mut text = format!("#!/bin/sh\nexport PATH={path} IMGBUILD_STORE={store}\n");
        if is_ubuntu {
            let lock = self.place.path("standin.lock").display().to_string();
            let options = format!("{} --lock {lock}", ubuntu::options(&self.place).join(" "));
            let store = ubuntu::store().display().to_string();
            text += &format!(
                "[ \"$1\" = os ] && export IMGBUILD_STORE={store} && exec {program} \"$@\" {options}\n"
            );
        }
        text + &format!("export IMGBUILD_CATALOGUE={catalogue}\nexec {program} \"$@\"\n")
    }

    /// Follows a page to its end; returns what it came to and what it said.
    fn follow(&self, script: &str) -> (bool, String) {
        let script = script.replace(REGISTRY, &format!("{}/", self.docker.host));
        let log = fs::File::create(self.dir("log")).unwrap().into_parts().0;
        let status = Command::new("/bin/bash")
            .args(["-euxo", "pipefail", "-c", &script])
            .current_dir(self.dir("page"))
            .env_clear()
            .env("PATH", self.dir("bin"))
            .env("HOME", self.place.home())
            .env("CALLS", self.dir("calls"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        (status.success(), fs::read_to_string(self.dir("log")).unwrap())
    }

    fn calls(&self) -> Vec<Call> {
        let dir = self.dir("calls");
        names(&dir).iter().map(|name| Call::read(&dir.join(name))).collect()
    }
}

/// This machine's PATH.
fn path() -> String {
    std::env::var("PATH").unwrap()
}

/// The built-in recipes, but the kernels of nodes are the small one, which the tests' store has.
fn catalogue(dir: &Path) {
    let top = docs().parent().unwrap().to_owned();
    for part in ["recipes", "kconfigs", "keys"] {
        copy(&top.join(part), &dir.join(part));
    }
    let kernels = dir.join("recipes/kernel");
    let read = |name: &str| fs::read_to_string(kernels.join(name)).unwrap();
    let (tiny, firecracker) = (read("tiny.toml"), read("firecracker.toml"));
    assert!(firecracker.contains("\ndefault = true\n") && tiny.contains("name = \"tiny\"\n"));
    fs::write(kernels.join("firecracker.toml"), firecracker.replace("\ndefault = true\n", "\n")).unwrap();
    let named = |name: &str, suffix: &str| {
        let tiny = tiny.replace("name = \"tiny\"\n", name);
        tiny.replace("\"kernel-bin-tiny\"", &format!("\"kernel-bin{suffix}\""))
            .replace("\"kernel-modules-tiny\"", &format!("\"kernel-modules{suffix}\""))
    };
    fs::write(kernels.join("tiny.toml"), named("name = \"tiny\"\ndefault = true\n", "")).unwrap();
    let other = named("name = \"cloud-hypervisor\"\n", "-cloud-hypervisor");
    fs::write(kernels.join("cloud-hypervisor.toml"), other).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(from, to).map(drop).unwrap() }
    }
}

/// Follows a page, and looks at what came of it; returns what hosts would pull.
fn followed(name: &str) -> (Desk, Vec<String>) {
    let _alone = real::alone();
    let is_ubuntu = PAGES.iter().find(|(page, _)| *page == name).unwrap().1;
    let desk = Desk::new(is_ubuntu);
    let (is_well, said) = desk.follow(&commands(&page(name)).unwrap());
    assert!(is_well, "{name}:\n{said}");
    let calls = desk.calls();
    assert!(!calls.is_empty(), "{name} uses none of the programs that it is about");
    let mut references: Vec<String> = calls.iter().flat_map(Call::check).collect();
    references.sort();
    references.dedup();
    (desk, references)
}

/// A host gets every image that a document names, under that very name.
fn can_be_pulled(desk: &Desk, references: &[String]) {
    assert!(references.len() >= 3, "{references:?}");
    for reference in references {
        desk.containerd.ctr(&["content", "fetch", "--plain-http", reference]);
    }
}

#[test]
fn the_page_of_flintlock() {
    let (desk, references) = followed("flintlock.md");
    can_be_pulled(&desk, &references);
    let third = fs::read_to_string(desk.dir("page").join("mvm3.json")).unwrap();
    let by_digest = consumers::microvm(&serde_json::from_str(&third).unwrap());
    assert!(by_digest.iter().all(|reference| reference.contains("@sha256:")), "{by_digest:?}");
    can_be_pulled(&desk, &by_digest);
}

#[test]
fn the_page_of_hammertime() {
    let (_, references) = followed("hammertime.md");
    assert_eq!(references.len(), 3, "{references:?}");
}

#[test]
fn the_page_of_cloud_hypervisor() {
    let (desk, references) = followed("cloud-hypervisor.md");
    assert!(
        references.iter().any(|reference| reference.contains("/kernel-bin-cloud-hypervisor:")),
        "{references:?}"
    );
    let json: Value =
        serde_json::from_str(&fs::read_to_string(desk.dir("page").join("mvm1.json")).unwrap()).unwrap();
    assert_eq!(json["provider"], "cloudhypervisor");
}

#[test]
fn the_page_of_firecracker_alone() {
    let (desk, _) = followed("firecracker.md");
    let dir = desk.dir("page");
    for disk in ["root.ext4", "modules.ext4"] {
        crate::support::tool("e2fsck", &["-fn".as_ref(), dir.join(disk).as_os_str()]);
    }
    assert!(dir.join("boot/vmlinux").is_file());
}

#[test]
fn the_page_of_capmvm() {
    let (desk, references) = followed("capmvm.md");
    can_be_pulled(&desk, &references);
    let told = fs::read_to_string(desk.dir("log")).unwrap();
    // What the page has, the command says.
    let sed = "sed 's/macvtap/tap/; s,/lib/modules/5.10.77,/lib/modules/5.10.262,'";
    assert!(told.contains(&format!("| {sed}`")), "{told}");
    assert!(told.contains("KUBERNETES_VERSION=v1.22.8"), "{told}");
}

#[test]
fn every_page_with_commands_is_followed_here() {
    for name in names(&docs()).into_iter().filter(|name| docs().join(name).is_file()) {
        let has_commands = page(&name).lines().any(|line| line == "```sh");
        assert_eq!(has_commands, PAGES.iter().any(|(page, _)| *page == name), "docs/{name}");
    }
}

#[test]
fn a_command_that_nobody_knows_is_noticed() {
    let desk = Desk::new(false);
    let (is_well, said) = desk.follow("cat < /dev/null\nsystemctl restart flintlockd\n");
    assert!(!is_well && said.contains("systemctl"), "{said}");
    assert!(!desk.follow("imgbuild spec --format nonsense | cat\n").0);
    assert!(desk.follow("kubectl delete namespace default\n").0);
    let call = desk.calls().pop().unwrap();
    let checked = std::panic::catch_unwind(|| call.check()).unwrap_err();
    assert_eq!(
        checked.downcast_ref::<String>().unwrap(),
        "no test knows what `kubectl delete namespace default` does"
    );
    for (page, reason) in [
        ("text\n\n    imgbuild boot\n", "an indented block: `imgbuild boot`"),
        ("```\nimgbuild boot\n```\n", "a block is marked ``"),
        ("```bash\nimgbuild boot\n```\n", "a block is marked `bash`"),
        ("```sh\nimgbuild boot\n", "a block has no end"),
    ] {
        assert!(commands(page).unwrap_err().contains(reason), "{page}");
    }
    assert_eq!(
        commands("```sh\na \\\n  b\n```\n```json\n{}\n```\n```sh\nc\n```\n").unwrap(),
        "a \\\n  b\nc\n"
    );
}
