//! The workflows, run as GitHub runs them: every `run:` of theirs, in the order of the jobs, with a registry on loopback.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::Place;
use crate::support::pinned::{bare, give_tree, tree_tags};
use crate::support::registry::{Door, PASSWORD, Registry, USER};
use crate::support::source::RECIPE;
use fs_err as fs;
use serde_json::{Value, json};

/// A step that runs something.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    job: String,
    id: Option<String>,
    run: String,
}

/// The steps of a workflow that run something. It is written so that a line tells what a line is.
fn steps(name: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows").join(name);
    let text = fs::read_to_string(path).unwrap();
    let (mut steps, mut job, mut id) = (Vec::new(), String::new(), None);
    let jobs = text.split_once("\njobs:\n").unwrap().1;
    for line in jobs.lines() {
        let bare = line.trim_start();
        let (indent, bare) = (line.len() - bare.len(), bare.split(" # ").next().unwrap());
        if indent == 2 && !bare.starts_with('#') {
            bare.trim_end_matches(':').clone_into(&mut job);
        }
        let field = bare.strip_prefix("- ");
        if field.is_some() {
            id = None;
        }
        match field.unwrap_or(bare).split_once(": ") {
            Some(("id", value)) if indent >= 6 => id = Some(value.to_owned()),
            Some(("run", value)) => {
                assert!(!value.starts_with(['|', '>']), "{name}: a step is one line: {line}");
                steps.push(Step { job: job.clone(), id: id.take(), run: value.to_owned() });
            }
            _ => {}
        }
    }
    assert_eq!(jobs.matches("run:").count(), steps.len(), "{name}: a `run:` that was not seen");
    steps
}

/// A checkout on a runner: a catalogue with a made-up kernel that is released for two architectures.
struct Checkout {
    place: Place,
    registry: Registry,
    /// What every step has.
    env: BTreeMap<String, String>,
    jobs: usize,
}

/// What a job has come to.
#[derive(Default)]
struct Job {
    outputs: BTreeMap<String, String>,
    summary: String,
}

impl Checkout {
    fn new() -> Self {
        let place = bare();
        place.write(
            "recipes/kernel/toy.toml",
            RECIPE.replace("series =", "released = [\"5.10.1\"]\nseries ="),
        );
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        symlink(repository.join("scripts"), place.path("scripts")).unwrap();
        // For setup alone, which asks which Rust there is.
        symlink(repository.join("Cargo.toml"), place.path("Cargo.toml")).unwrap();
        let real = env!("CARGO_BIN_EXE_imgbuild");
        // What is made up does not boot, and kernel.org is not on loopback: tests/boot.rs and tests/lock_command.rs
        // have both.
        let stand_in = format!(
            "#!/bin/sh\ncase \"$1 $2\" in\n\"lock kernel.org\") echo '5.10: 5.10.2 is new' ;;\n\
             \"release --only\") exec {real} \"$@\" --no-boot ;;\n*) exec {real} \"$@\" ;;\nesac\n"
        );
        let signed = place.path("signed");
        let cosign = format!(
            "#!/bin/sh\nset -eu\ncase $1 in\nverify) echo \"$*\" >>{0}.asked; grep -qx \"$2\" {0} ;;\n\
             sign) echo \"$4\" >>{0}; echo \"$1 $2 $3\" >>{0}.how ;;\nesac\n",
            signed.display()
        );
        let firecracker = "#!/bin/sh\necho 'Firecracker v1.17.0'\n".to_owned();
        for (name, text) in [("imgbuild", stand_in), ("cosign", cosign), ("firecracker", firecracker)] {
            let path = place.write(&format!("bin/{name}"), text);
            fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let registry = Registry::new(Door::Tokens);
        for tag in tree_tags() {
            registry.put_manifest("org/imgbuild-cache", &tag, &json!({}));
        }
        let home = std::env::var("HOME").unwrap();
        let of =
            |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| format!("{home}/{default}"));
        let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
        let mirror = place.path("mirror").display().to_string();
        let env = [
            ("PATH", path),
            ("HOME", place.home().display().to_string()),
            ("CARGO_HOME", of("CARGO_HOME", ".cargo")),
            ("RUSTUP_HOME", of("RUSTUP_HOME", ".rustup")),
            ("IMGBUILD_MIRROR_TEST", mirror),
            ("RELEASE_REGISTRY", format!("{}/org", registry.host())),
            ("RELEASE_CACHE", String::new()),
            ("ONLY", String::new()),
            ("REGISTRY_USER", USER.into()),
            ("REGISTRY_TOKEN", PASSWORD.into()),
            ("GITHUB_REPOSITORY_OWNER", "Org".into()),
            ("GITHUB_WORKFLOW_REF", "org/images/.github/workflows/release.yml@refs/heads/main".into()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { place, registry, env, jobs: 0 }
    }

    /// Runs the steps of a job on a machine of its own; fails if one of them does.
    fn job(&mut self, name: &str, env: &[(&str, &str)]) -> Job {
        self.jobs += 1;
        let store = self.place.path(format!("stores/{}", self.jobs));
        give_tree(&store);
        let mut own = self.env.clone();
        own.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        own.insert("IMGBUILD_STORE".into(), store.display().to_string());
        let mut job = Job::default();
        let of_job: Vec<_> = steps("release.yml").into_iter().filter(|step| step.job == name).collect();
        assert!(!of_job.is_empty(), "the workflow has no job `{name}`");
        for step in of_job {
            let files = ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"];
            for file in files {
                let path = self.place.write(&format!("runner/{file}"), "");
                own.insert(file.into(), path.display().to_string());
            }
            let output = bash(&step.run, &self.place.work(), &own);
            assert!(output.status.success(), "{step:?}: {output:?}");
            let [outputs, env, _, summary] =
                files.map(|file| fs::read_to_string(self.place.path(format!("runner/{file}"))).unwrap());
            own.extend(pairs(&env));
            job.summary += &summary;
            if step.id.is_some() {
                job.outputs.extend(pairs(&outputs));
            }
        }
        job
    }

    fn writes(&self) -> usize {
        let is_write = |method: &str| !["GET", "HEAD"].contains(&method);
        self.registry.requests().iter().filter(|request| is_write(&request.method)).count()
    }
}

fn bash(run: &str, dir: &Path, env: &BTreeMap<String, String>) -> Output {
    // As GitHub's runners do.
    let words = ["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", run];
    Command::new("bash").args(words).current_dir(dir).env_clear().envs(env).output().unwrap()
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_release_goes_through_and_a_second_one_has_nothing_to_do() {
    let mut checkout = Checkout::new();
    let plan = checkout.job("plan", &[]);
    assert!(plan.summary.contains("| kernel/toy/5.10.1/amd64 |"), "{}", plan.summary);
    checkout.job("lock", &[]);
    let found = fs::read_to_string(checkout.place.path("target/lock-check.md")).unwrap();
    assert!(found.contains("    5.10: 5.10.2 is new"), "{found}");
    checkout.job("arm64", &[]);
    let matrix = json_of(&plan.outputs["matrix"]);
    let cells = matrix["include"].as_array().unwrap();
    assert_eq!(cells.len(), 2, "{matrix}");
    for cell in cells {
        let env = [("CELL", cell["cell"].as_str().unwrap()), ("IMGBUILD_CACHE_WRITE", "1")];
        let built = checkout.job("build", &env);
        assert!(built.summary.contains("| published |"), "{}", built.summary);
    }
    let joined = checkout.job("join", &[]);
    let images = json_of(&joined.outputs["images"]);
    assert_eq!(images.as_array().unwrap().len(), 2, "{images}");
    for image in images.as_array().unwrap() {
        assert_eq!(image["host"], json!(checkout.registry.host()));
        let name =
            image["name"].as_str().unwrap().strip_prefix(&format!("{}/", checkout.registry.host())).unwrap();
        assert!(checkout.registry.manifest(name, "5.10").is_some(), "{image}");
        let digest = image["digest"].as_str().unwrap();
        assert!(
            checkout.registry.manifest(name, digest).is_some() && joined.summary.contains(digest),
            "{image}"
        );
    }
    let signed = checkout.job("sign", &[("IMAGES", &joined.outputs["images"])]);
    assert_eq!(json_of(&signed.outputs["signed"]), images);
    let how = fs::read_to_string(checkout.place.path("signed.how")).unwrap();
    assert_eq!(how, "sign --yes --recursive\n".repeat(2));
    let asked = fs::read_to_string(checkout.place.path("signed.asked")).unwrap();
    let identity =
        "--certificate-identity https://github.com/org/images/.github/workflows/release.yml@refs/heads/main";
    assert!(asked.lines().all(|line| line.ends_with(identity)), "{asked}");

    let before = checkout.writes();
    let plan = checkout.job("plan", &[]);
    assert_eq!(plan.outputs["matrix"], r#"{"include":[]}"#);
    let joined = checkout.job("join", &[]);
    assert_eq!(json_of(&joined.outputs["images"]), images);
    let signed = checkout.job("sign", &[("IMAGES", &joined.outputs["images"])]);
    assert_eq!((&*signed.outputs["signed"], checkout.writes()), ("[]", before));
}

#[test]
fn every_step_is_one_that_is_run_here_or_runs_the_tests() {
    let here = ["plan", "lock", "arm64", "build", "join", "sign"];
    for step in steps("release.yml") {
        assert!(here.contains(&&*step.job), "{step:?} is run by no test");
    }
    let runs: Vec<_> = steps("ci.yml").into_iter().map(|step| step.run).collect();
    assert_eq!(runs, ["scripts/lint", "scripts/test", PLAN_DIFF]);
    let test = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test")).unwrap();
    assert!(test.contains("\nscripts/lint\n"), "the tests' script runs the other");
}

/// What tells a pull request what it moves.
const PLAN_DIFF: &str = "scripts/plan-diff target/base >>\"$GITHUB_STEP_SUMMARY\"";

#[test]
fn a_pull_request_is_told_what_it_moves_and_why() {
    let mut checkout = Checkout::new();
    let base = checkout.place.path("target/base");
    fs::create_dir_all(&base).unwrap();
    for room in ["recipes", "kconfigs"] {
        let (from, to) = (checkout.place.path(room), base.as_os_str());
        crate::support::tool("cp", &["-r".as_ref(), from.as_os_str(), to]);
    }
    let summary = checkout.place.path("summary");
    checkout.env.insert("IMGBUILD".into(), env!("CARGO_BIN_EXE_imgbuild").into());
    checkout.env.insert("IMGBUILD_STORE".into(), checkout.place.store().display().to_string());
    checkout.env.insert("GITHUB_STEP_SUMMARY".into(), summary.display().to_string());
    let told = |checkout: &Checkout| {
        fs::write(&summary, "").unwrap();
        let output = bash(PLAN_DIFF, &checkout.place.work(), &checkout.env);
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(&summary).unwrap()
    };
    assert_eq!(told(&checkout), "nothing moves: all 2 cells have the keys they had\n");

    let fragment = fs::read_to_string(checkout.place.path("kconfigs/toy.config")).unwrap();
    checkout.place.write("kconfigs/toy.config", fragment.replace("NUMBER=3", "NUMBER=4"));
    let both = told(&checkout);
    for arch in ["amd64", "arm64"] {
        let row =
            format!("| kernel/toy/5.10.1/{arch} | moves | kernel-bin, kernel-modules<br>kernel.requested.");
        assert!(both.contains(&row) && both.contains("NUMBER"), "{both}");
    }
    assert!(both.ends_with("\n2 of 2 cells have other keys\n"), "{both}");

    // A base from before there was a plan to tell.
    fs::write(base.join("recipes/kernel/toy.toml"), "kind = 1\n").unwrap();
    assert!(told(&checkout).contains("cannot tell its plan"));
}

#[test]
fn a_plan_that_is_none_is_refused() {
    let checkout = Checkout::new();
    let place = &checkout.place;
    let plan = |words: &str| place.imgbuild(words).without("IMGBUILD_TOOLCHAIN").run().fails(2);
    place.write("earlier.json", "[]");
    plan("plan --all --against earlier.json").says("`earlier.json` is no earlier plan").says("--format json");
    plan("plan --all --against nowhere.json").says("`nowhere.json` is no earlier plan");
    plan("plan --all --against earlier.json --format github").says("leave one of them out");
}

#[test]
fn a_firecracker_that_is_not_the_pinned_one_is_not_installed() {
    let checkout = Checkout::new();
    fs::remove_file(checkout.place.path("bin/firecracker")).unwrap();
    let machine = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let releases =
        checkout.place.write(&format!("releases/v1.17.0/firecracker-v1.17.0-{machine}.tgz"), "another");
    let releases = releases.ancestors().nth(2).unwrap().display().to_string();
    let run = |releases: PathBuf| {
        let mut env = checkout.env.clone();
        env.insert("IMGBUILD_STORE".into(), checkout.place.store().display().to_string());
        env.insert("FIRECRACKER_RELEASES".into(), format!("file://{}", releases.display()));
        let output = bash("scripts/runner firecracker", &checkout.place.work(), &env);
        assert!(!checkout.place.path("target/release/firecracker").exists());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(releases.into());
    assert!(code == 5 && said.contains("does not have its sha256"), "{code}: {said}");
    let (code, said) = run("/nowhere".into());
    assert!(code == 4 && said.contains("cannot be had"), "{code}: {said}");
}

#[test]
fn an_image_with_a_missing_cell_is_told_and_the_job_fails() {
    let mut checkout = Checkout::new();
    let cell = format!("kernel/toy/5.10.1/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    checkout.job("build", &[("CELL", &cell), ("IMGBUILD_CACHE_WRITE", "1")]);
    let mut env = checkout.env.clone();
    env.insert("IMGBUILD_STORE".into(), checkout.place.store().display().to_string());
    env.insert("IMGBUILD_REGISTRY".into(), format!("{}/org", checkout.registry.host()));
    for file in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        env.insert(file.into(), checkout.place.write(file, "").display().to_string());
    }
    let output = bash("scripts/join", &checkout.place.work(), &env);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let summary = fs::read_to_string(checkout.place.path("GITHUB_STEP_SUMMARY")).unwrap();
    assert!(summary.contains("| missing | kernel/toy/5.10.1/"), "{summary}");
    assert_eq!(fs::read_to_string(checkout.place.path("GITHUB_OUTPUT")).unwrap(), "images=[]\n");
}
