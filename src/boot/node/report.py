#!/usr/bin/env python3
# What a booted root volume says of itself. cloud-init runs this as a user's script, with the rest of the boot still to come:
# it starts itself again beside the boot, waits for its end, and writes one record to the console.
import base64, glob, hashlib, json, os, subprocess, sys, time

ASKED = json.loads('@ASKED@')


def run(*command):
    """The exit code of a command, and all that it printed."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace").strip()


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def module(name):
    """How a module is in the kernel; none if it is not."""
    if any(line.split(" ")[0] == name for line in read("/proc/modules").splitlines()):
        return "already_there"
    builtin = read("/lib/modules/%s/modules.builtin" % os.uname().release)
    stems = [os.path.basename(line).split(".")[0].replace("-", "_") for line in builtin.splitlines()]
    return "built_in" if name in stems or os.path.isdir("/sys/module/" + name) else None


def load(name):
    """Loads a module as modprobe does, unless it is there."""
    outcome = module(name)
    if outcome is None:
        code, said = run("modprobe", name)
        outcome = "loaded" if code == 0 and module(name) else "failed " + (said.splitlines() or ["?"])[-1]
    return {"name": name, "outcome": outcome}


def show(unit, name):
    """A time of systemd's, in seconds since the kernel began."""
    value = run("systemctl", "show", *([unit] if unit else []), "--property", name)[1].partition("=")[2]
    return int(value) / 1e6 if value.isdigit() else None


def failed_units():
    lines = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full")[1].splitlines()
    names = [line.split()[0] for line in lines if line.split()]
    return [{"name": name, "said": run("journalctl", "-b", "-u", name, "-n", "6", "-o", "cat", "--no-pager")[1]}
            for name in names]


def volume(path):
    """The type of what is mounted there."""
    real = os.path.realpath(path)
    found = [line.split(" ")[2] for line in read("/proc/mounts").splitlines() if line.split(" ")[1] == real]
    return found[-1] if found else None


def containerd():
    """What the daemon behind `ctr` calls its version; its complaint where it does not answer."""
    code, said = run("ctr", "version")
    if code == 127:
        return None
    server = said.partition("Server:")[2].split()
    if code == 0 and "Version:" in server:
        return {"version": server[server.index("Version:") + 1], "complaint": None}
    return {"version": None, "complaint": said}


def host_keys():
    """The ssh host keys, and whether all of them were made since this boot began."""
    began = [int(line.split()[1]) for line in read("/proc/stat").splitlines() if line.startswith("btime")][0]
    keys = sorted(glob.glob("/etc/ssh/ssh_host_*_key"))
    return {"files": keys, "new": all(os.stat(key).st_mtime >= began for key in keys)}


def cloud_init():
    status = run("cloud-init", "status")[1].partition("status:")[2].split()
    try:
        result = json.loads(read("/run/cloud-init/result.json"))["v1"]
    except (ValueError, KeyError):
        result = {}
    return {"status": (status or ["unknown"])[0], "datasource": result.get("datasource"),
            "errors": result.get("errors") or []}


def account():
    run("cloud-init", "status", "--wait")
    # The wait itself keeps no job waiting: this runs in a unit that is up already.
    state = run("systemctl", "is-system-running", "--wait")[1]
    names = dict(line.partition("=")[::2] for line in read("/etc/os-release").splitlines())
    return {
        "release": os.uname().release,
        "machine": os.uname().machine,
        "system": names.get("PRETTY_NAME", "").strip('"'),
        "userspace_seconds": show(None, "UserspaceTimestampMonotonic"),
        "multi_user_seconds": show("multi-user.target", "ActiveEnterTimestampMonotonic"),
        "state": (state.splitlines() or ["unknown"])[-1],
        "failed_units": failed_units(),
        "volume_fs": volume("/lib/modules/" + os.uname().release),
        "modules": [load(name) for name in ASKED["load"]],
        "node_modules": {name: module(name) for name in ASKED["node"]},
        "containerd": containerd(),
        "ssh_host_keys": host_keys(),
        "cloud_init": cloud_init(),
        "vendor_data": os.path.exists("/run/imgbuild-vendor-data"),
        "config_readable": os.path.exists("/proc/config.gz"),
    }


def say(record):
    """Writes the record twice, the kernel silenced: whatever else prints may spoil one."""
    run("dmesg", "--console-off")
    text = base64.b64encode(json.dumps(record).encode())
    line = b"@imgbuild account " + hashlib.sha256(text).hexdigest().encode() + b" " + text + b" @"
    for _ in range(2):
        # Opened late and anew: the getty hangs up whoever has the terminal open.
        with open("/dev/console", "wb", buffering=0) as console:
            console.write(b"\r\n" + line + b"\r\n")
        time.sleep(0.2)


if sys.argv[1:] == ["now"]:
    say(account())
    run("systemctl", "reboot", "--force", "--force")
else:
    os.execvp("systemd-run", ["systemd-run", "--no-block", "--collect", "--quiet", os.path.abspath(__file__), "now"])
