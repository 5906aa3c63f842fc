use super::*;

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

#[test]
fn a_command_sees_nothing_of_the_callers_environment() {
    let out = sh("env").output(&Cancel::default()).unwrap();
    let names: Vec<_> =
        String::from_utf8(out).unwrap().lines().map(|l| l.split('=').next().unwrap().to_owned()).collect();
    for name in names {
        assert!(
            ["PATH", "LC_ALL", "TZ", "HOME", "PWD", "_", "OLDPWD", "SHLVL"].contains(&name.as_str()),
            "{name} leaked"
        );
    }
}

#[test]
fn a_failure_carries_the_command_the_status_and_the_output() {
    let error = sh("echo out; echo err >&2; exit 3").output(&Cancel::default()).unwrap_err();
    assert_eq!(error.to_string(), "`sh -c 'echo out; echo err >&2; exit 3'` failed (exit status 3)");
    let detail = error.detail().unwrap();
    assert!(detail.contains("out") && detail.contains("err"), "{detail}");
}

#[test]
fn a_missing_program_is_named() {
    let error = Command::new("no-such-program").output(&Cancel::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot start `no-such-program`"), "{error}");
    assert_eq!(error.class(), Class::Input);
}

#[test]
fn cancelling_ends_grandchildren_too() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let cancel = Cancel::default();
    let script = format!("sleep 600 & echo $! > {}; echo ready; wait", pid_file.display());
    let result = sh(&script).lines(&cancel, |_| cancel.cancel());
    assert!(matches!(result, Err(Error::Cancelled)));
    let pid = fs::read_to_string(&pid_file).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    assert!(stat.is_err() || stat.unwrap().contains(") Z"), "the grandchild is still running");
}

/// This host's own root stands in for a tree.
fn shut_in() -> Sandbox {
    Sandbox::tree("/")
}

fn told(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("sh").args(["-c", script]).output(&Cancel::default()).unwrap();
    String::from_utf8(output).unwrap().trim_end().to_owned()
}

#[test]
fn inside_there_is_no_network_and_nobody_else() {
    let inside = shut_in();
    assert_eq!(told(&inside, "tail -n +3 /proc/net/dev | cut -d : -f 1 | tr -d ' '"), "lo");
    assert_eq!(
        told(&inside, "cat /proc/sys/kernel/hostname; id -u; id -g; umask"),
        "imgbuild\n1000\n1000\n0022"
    );
    // bubblewrap, the shell and what it runs.
    assert!(told(&inside, "ls -d /proc/[0-9]* | wc -l").parse::<usize>().unwrap() <= 5);
}

#[test]
fn inside_tmp_is_empty_and_all_else_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "seven").unwrap();
    assert_eq!(told(&shut_in(), "ls -A /tmp; touch /tmp/x && echo written"), "written");
    assert_eq!(
        told(
            &shut_in(),
            "touch /x /usr/x /etc/x 2> /dev/null; ls -d /x /usr/x /etc/x 2> /dev/null || echo none"
        ),
        "none"
    );
    let mounted = shut_in().read_only(dir.path(), "/imgbuild/source").writable(dir.path(), "/imgbuild/build");
    assert_eq!(
        told(&mounted, "cat /imgbuild/source/file; touch /imgbuild/source/x 2> /dev/null || echo ' kept'"),
        "seven kept"
    );
    assert_eq!(told(&mounted, "mkdir /imgbuild/build/made && ls /imgbuild/source"), "file\nmade");
}

#[test]
fn inside_the_environment_is_what_was_set() {
    let inside = shut_in().env("CCACHE_DIR", "/imgbuild/ccache");
    let expected = "CCACHE_DIR=/imgbuild/ccache HOME=/nonexistent LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin PWD=/ TZ=UTC";
    assert_eq!(told(&inside, "env -u _ -u SHLVL -u OLDPWD | LC_ALL=C sort | paste -s -d ' '"), expected);
}

#[test]
fn paths_are_named_as_the_command_sees_them() {
    let inside = shut_in()
        .read_only("/store/work/linux", "/imgbuild/source")
        .writable("/store/work/build", "/imgbuild/build");
    let named = |path: &str| inside.path(Path::new(path)).display().to_string();
    assert_eq!(named("/store/work/linux"), "/imgbuild/source");
    assert_eq!(named("/store/work/build/lib/modules"), "/imgbuild/build/lib/modules");
    assert_eq!(named("/elsewhere"), "/elsewhere");
    assert_eq!(Sandbox::host().path(Path::new("/store/x")).display().to_string(), "/store/x");
}

#[test]
fn a_limit_ends_a_runaway() {
    let limits = Limits { memory_mib: Some(64), processor_minutes: Some(2) };
    assert_eq!(told(&shut_in().limits(limits), "ulimit -v; ulimit -t"), "65536\n120");
}

#[test]
fn a_failure_inside_names_the_command_and_not_the_walls() {
    let error = shut_in().command("false").output(&Cancel::default()).unwrap_err();
    assert_eq!(error.to_string(), "`false` failed (exit status 1)");
    let error = shut_in().command("no-such-program").output(&Cancel::default()).unwrap_err();
    assert!(error.detail().unwrap().contains("no-such-program: not found"), "{error:?}");
}

#[test]
fn what_bubblewrap_says_is_the_hosts_fault() {
    let said = "bwrap: setting up uid map: Permission denied";
    assert_eq!(forbidden(&format!("$ make\n{said}")).unwrap(), "setting up uid map: Permission denied");
    assert_eq!(forbidden("make: *** Error 1"), None);
    let error = Error::Forbidden { reason: "No permissions to create new namespace".into() };
    assert_eq!(error.class(), Class::Input);
    assert!(error.hint().unwrap().contains("--toolchain host"));
}

#[test]
fn cancelling_ends_everybody_inside() {
    let dir = tempfile::tempdir().unwrap();
    let marker = format!("{}", 300_000 + std::process::id());
    let script = format!("sleep {marker} & echo ready; wait");
    let cancel = Cancel::default();
    let sandbox = shut_in().writable(dir.path(), "/imgbuild/build");
    let result = sandbox.command("sh").args(["-c", &script]).lines(&cancel, |_| cancel.cancel());
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    let running = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .any(|line| line == format!("sleep\0{marker}\0").as_bytes())
    };
    assert!(!running(), "the grandchild is still running");
}
