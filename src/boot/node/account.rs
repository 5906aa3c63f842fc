//! What a booted root volume says of itself: `report.py`'s record.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::step::hex;

/// All that `report.py` tells. That it came at all is the proof that user data was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// The distribution, as it calls itself.
    pub system: String,
    /// From the kernel's start to init's, by the guest's clock.
    pub userspace_seconds: Option<f64>,
    /// From the kernel's start to multi-user.target.
    pub multi_user_seconds: Option<f64>,
    /// What `systemctl is-system-running` answers.
    pub state: String,
    /// The units that failed.
    pub failed_units: Vec<FailedUnit>,
    /// The file system type of the modules volume, if one is mounted.
    pub volume_fs: Option<String>,
    /// The modules asked for, in that order.
    pub modules: Vec<Asked>,
    /// What every node needs: `loaded`, `already_there` or `built_in`; none where the kernel does not have it.
    pub node_modules: BTreeMap<String, Option<String>>,
    /// What `ctr version` answers, where there is a `ctr`.
    pub containerd: Option<Containerd>,
    /// The ssh host keys.
    pub ssh_host_keys: HostKeys,
    /// How cloud-init fared.
    pub cloud_init: CloudInit,
    /// Whether vendor data was applied.
    pub vendor_data: bool,
    /// Whether `/proc/config.gz` is there, which kubeadm asks for.
    pub config_readable: bool,
}

/// A unit that systemd counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// Its name.
    pub name: String,
    /// The last lines of its journal.
    pub said: String,
}

/// A module that was to be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its name, with `_`.
    pub name: String,
    /// How that went: `loaded`, `already_there`, `built_in`, or `failed WHY`.
    pub outcome: String,
}

/// What answered `ctr version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containerd {
    /// The daemon's version.
    pub version: Option<String>,
    /// What was printed instead of one.
    pub complaint: Option<String>,
}

/// The ssh host keys of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeys {
    /// Their paths.
    pub files: Vec<String>,
    /// Whether every one was made since this boot began.
    pub new: bool,
}

/// What cloud-init says of its run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInit {
    /// `done`, `error`, `disabled` and the like.
    pub status: String,
    /// Where the metadata came from.
    pub datasource: Option<String>,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl Account {
    /// What is not as it should be on a node, each in a few words.
    pub(super) fn faults(&self, has_volume: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |is_so: bool, fault: String| {
            if !is_so {
                faults.push(fault);
            }
        };
        for FailedUnit { name, .. } in &self.failed_units {
            expect(false, format!("`{name}` failed"));
        }
        let is_running = self.state == "running" || !self.failed_units.is_empty();
        expect(is_running, format!("systemd says `{}`", self.state));
        expect(self.vendor_data, "vendor data was not applied".into());
        let is_mounted = self.volume_fs.is_some() || !has_volume;
        expect(is_mounted, format!("the modules volume is not mounted at /lib/modules/{}", self.release));
        for Asked { name, outcome } in &self.modules {
            if let Some(why) = outcome.strip_prefix("failed ") {
                expect(false, format!("`{name}` could not be loaded: {why}"));
            }
        }
        for (name, how) in &self.node_modules {
            expect(how.is_some(), format!("`{name}` is not in the kernel, which every node needs"));
        }
        if let Some(Containerd { version: None, .. }) = &self.containerd {
            expect(false, "containerd does not answer `ctr version`".into());
        }
        let keys = &self.ssh_host_keys;
        expect(
            keys.new,
            "the ssh host keys are older than this boot: every machine would have the same".into(),
        );
        let CloudInit { status, errors, .. } = &self.cloud_init;
        let said: Vec<&str> =
            [status.as_str()].into_iter().chain(errors.iter().map(String::as_str)).collect();
        expect(said == ["done"], format!("cloud-init says `{}`", said.join(", ")));
        faults
    }

    /// Reads `CHECKSUM BASE64`; none where anything printed into it.
    pub(in crate::boot) fn parse(record: &str) -> Option<Self> {
        let (sum, text) = record.split_once(' ')?;
        if hex(&Sha256::digest(text)) != sum {
            return None;
        }
        let mut account = serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?;
        clean(&mut account);
        serde_json::from_value(account).ok()
    }
}

/// Takes away what would do more to a terminal than be seen: an image need not mean well.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|c| c == '\n' || !c.is_control()),
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(fields) => fields.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
pub(in crate::boot) mod tests {
    use super::*;

    /// What a Debian 12 node said.
    pub(crate) const GOOD: &str = r#"{"release": "5.10.262", "machine": "x86_64",
        "system": "Debian GNU/Linux 12 (bookworm)", "userspace_seconds": 1.5, "multi_user_seconds": 30.25,
        "state": "running", "failed_units": [], "volume_fs": "ext4",
        "modules": [{"name": "ip_vs", "outcome": "loaded"}, {"name": "overlay", "outcome": "built_in"}],
        "node_modules": {"br_netfilter": "built_in", "overlay": "built_in"},
        "containerd": {"version": "1.6.20", "complaint": null},
        "ssh_host_keys": {"files": ["/etc/ssh/ssh_host_ed25519_key"], "new": true},
        "cloud_init": {"status": "done", "datasource": "DataSourceNoCloudNet", "errors": []},
        "vendor_data": true, "config_readable": true}"#;

    /// The record that tells this JSON.
    pub(crate) fn record(json: &str) -> String {
        let text = STANDARD.encode(json);
        format!("{} {text}", hex(&Sha256::digest(&text)))
    }

    #[test]
    fn a_whole_record_is_read_and_a_spoilt_one_is_not() {
        let record = record(GOOD);
        let account = Account::parse(&record).unwrap();
        assert_eq!((account.release.as_str(), account.multi_user_seconds), ("5.10.262", Some(30.25)));
        assert_eq!(account.node_modules["overlay"].as_deref(), Some("built_in"));
        for place in [0, 63, 70, record.len() - 1] {
            let mut spoilt = record.clone().into_bytes();
            spoilt[place] = if spoilt[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(Account::parse(&String::from_utf8(spoilt).unwrap()), None, "{place}");
        }
        assert_eq!(Account::parse(&self::record("{}")), None);
        let colours = self::record(&GOOD.replace("\"running\"", "\"run\\u001b[2Jning\\n\""));
        assert_eq!(Account::parse(&colours).unwrap().state, "run[2Jning\n");
        assert_eq!(Account::parse("no record"), None);
    }

    #[test]
    fn a_sound_node_has_no_faults_and_each_fault_is_told() {
        let faults = |from: &str, to: &str| {
            let json = GOOD.replace(from, to);
            assert!(from.is_empty() || json != GOOD, "{from}");
            Account::parse(&record(&json)).unwrap().faults(true)
        };
        assert_eq!(faults("", ""), [""; 0]);
        for (from, to, told) in [
            ("running", "degraded", "systemd says `degraded`"),
            (
                "\"failed_units\": []",
                "\"failed_units\": [{\"name\": \"a.service\", \"said\": \"\"}]",
                "`a.service` failed",
            ),
            ("\"ext4\"", "null", "the modules volume is not mounted at /lib/modules/5.10.262"),
            ("\"loaded\"", "\"failed no such module\"", "`ip_vs` could not be loaded: no such module"),
            (
                "\"br_netfilter\": \"built_in\"",
                "\"br_netfilter\": null",
                "`br_netfilter` is not in the kernel, which every node needs",
            ),
            ("\"1.6.20\"", "null", "containerd does not answer `ctr version`"),
            (
                "\"new\": true",
                "\"new\": false",
                "the ssh host keys are older than this boot: every machine would have the same",
            ),
            ("\"done\"", "\"error\"", "cloud-init says `error`"),
            ("\"errors\": []", "\"errors\": [\"no disk\"]", "cloud-init says `done, no disk`"),
            ("\"vendor_data\": true", "\"vendor_data\": false", "vendor data was not applied"),
        ] {
            assert_eq!(faults(from, to), [told]);
        }
    }

    #[test]
    fn the_guests_program_tells_exactly_these_fields() {
        let fields: serde_json::Map<_, _> = serde_json::from_str(GOOD).unwrap();
        let program = include_str!("report.py");
        let told = program.split("def account():").nth(1).unwrap().split("def say").next().unwrap();
        for name in fields.keys() {
            assert!(told.contains(&format!("\"{name}\": ")), "{name}");
        }
        assert_eq!(told.matches("\": ").count(), fields.len());
    }
}
