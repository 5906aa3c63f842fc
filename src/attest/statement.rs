//! in-toto statements (v1) with SLSA provenance (v1): what made an image, and out of what.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Error;
use crate::oci::image::rfc3339;
use crate::step::hex;

/// What a statement says it is.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// What its predicate is.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// A statement: these things were made so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What was made.
    pub subject: Vec<Resource>,
    /// [`PREDICATE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// How.
    pub predicate: Provenance,
}

/// How something was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// From what: the same for every build of it.
    pub build_definition: Definition,
    /// When and by whom: of this build alone.
    pub run_details: RunDetails,
}

/// From what something is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// What the parameters mean: a URI.
    pub build_type: String,
    /// What was asked for, with all that was asked in: recipe, fragments, lock.
    pub external_parameters: Value,
    /// What the builder itself added.
    #[serde(default)]
    pub internal_parameters: Value,
    /// Everything that was brought, with its hash.
    #[serde(default)]
    pub resolved_dependencies: Vec<Resource>,
}

/// A thing with a hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What people call it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it is, or what it is: a URL or a package URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Its digests by algorithm, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Resource {
    /// A thing that is known by its sha256, 64 digits.
    pub fn new(name: impl Into<String>, uri: impl Into<String>, sha256: &str) -> Self {
        let digest = [("sha256".to_owned(), sha256.to_owned())].into();
        Self { name: name.into(), uri: uri.into(), digest, annotations: BTreeMap::new() }
    }

    /// With something more that is known of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.annotations.insert(name.to_owned(), value.into());
        self
    }

    /// Its sha256, 64 digits; nothing where it has none.
    pub fn sha256(&self) -> &str {
        self.digest.get("sha256").map_or("", String::as_str)
    }

    /// A text that is known of it.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)?.as_str()
    }
}

/// When something was made, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetails {
    /// By whom.
    pub builder: Builder,
    /// When.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Who makes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// A URI that stands for the machine and whoever runs it.
    pub id: String,
    /// The versions of its programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// One run of a builder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Which run it was.
    pub invocation_id: String,
    /// When it began: RFC 3339, UTC.
    pub started_on: String,
    /// When it ended.
    pub finished_on: String,
}

/// A run that has begun.
#[derive(Debug, Clone)]
pub struct Run {
    builder: String,
    invocation: String,
    started: jiff::Timestamp,
}

impl Run {
    /// Begins now. In a workflow of GitHub's the builder is the workflow and the run is its run; elsewhere the builder is
    /// nobody in particular, and the run has an id that no other has.
    pub fn begin() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let started = jiff::Timestamp::now();
        let github = || {
            let (server, repository) = (set("GITHUB_SERVER_URL")?, set("GITHUB_REPOSITORY")?);
            let (workflow, run) = (set("GITHUB_WORKFLOW_REF")?, set("GITHUB_RUN_ID")?);
            let attempt = set("GITHUB_RUN_ATTEMPT").unwrap_or_else(|| "1".into());
            let run = format!("{server}/{repository}/actions/runs/{run}/attempts/{attempt}");
            Some((format!("{server}/{workflow}"), run))
        };
        let (builder, invocation) = github().unwrap_or_else(|| {
            let seed = format!("{} {}", started.as_nanosecond(), std::process::id());
            let id = hex(&Sha256::digest(seed)[..16]);
            ("https://imgbuild.io/builder/local".to_owned(), format!("urn:imgbuild:run:{id}"))
        });
        Self { builder, invocation, started }
    }

    /// Ends now.
    pub fn end(&self) -> RunDetails {
        let time = |time: jiff::Timestamp| rfc3339(u64::try_from(time.as_second()).unwrap_or(0));
        let version = [("imgbuild".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into();
        RunDetails {
            builder: Builder { id: self.builder.clone(), version },
            metadata: Metadata {
                invocation_id: self.invocation.clone(),
                started_on: time(self.started),
                finished_on: time(jiff::Timestamp::now()),
            },
        }
    }
}

impl Statement {
    /// That the thing of this name and digest (`sha256:…`) was made so.
    pub fn new(name: &str, digest: &str, definition: Definition, run: RunDetails) -> Self {
        let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
        Self {
            kind: STATEMENT.to_owned(),
            subject: vec![Resource::new(name, "", digits)],
            predicate_type: PREDICATE.to_owned(),
            predicate: Provenance { build_definition: definition, run_details: run },
        }
    }

    /// Reads a statement that should be about `subject`, a digest (`sha256:…`), and holds it to that.
    pub fn parse(bytes: &[u8], subject: &str) -> Result<Self, Error> {
        let none = |reason: String| Error::NoProvenance { subject: subject.to_owned(), reason };
        let statement: Self = serde_json::from_slice(bytes).map_err(|error| none(error.to_string()))?;
        for (name, found, expected) in
            [("_type", &statement.kind, STATEMENT), ("predicateType", &statement.predicate_type, PREDICATE)]
        {
            if found != expected {
                return Err(none(format!("its {name} is `{found}`, not `{expected}`")));
            }
        }
        let digits = subject.strip_prefix("sha256:").unwrap_or(subject);
        if !statement.subject.iter().any(|it| it.sha256() == digits) {
            let about: Vec<_> =
                statement.subject.iter().map(|it| format!("sha256:{}", it.sha256())).collect();
            let about = if about.is_empty() { "nothing".to_owned() } else { about.join(" and ") };
            return Err(Error::OtherSubject { subject: subject.to_owned(), about });
        }
        Ok(statement)
    }

    /// What was asked for, as the build type has it.
    pub fn parameters<T: DeserializeOwned>(&self, subject: &str) -> Result<T, Error> {
        let parameters = &self.predicate.build_definition.external_parameters;
        T::deserialize(parameters).map_err(|error| {
            let reason = format!("its externalParameters do not tell how to build it: {error}");
            Error::NoProvenance { subject: subject.to_owned(), reason }
        })
    }

    /// As bytes: JSON with sorted keys.
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("a statement has string keys");
        value.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Diagnose;
    use serde_json::json;

    fn statement() -> Statement {
        let definition = Definition {
            build_type: "https://imgbuild.io/kernel/v1".into(),
            external_parameters: json!({ "version": "5.10.1" }),
            internal_parameters: json!({ "hermetic": true }),
            resolved_dependencies: vec![
                Resource::new("linux.tar.xz", "https://k.test/linux.tar.xz", &"b".repeat(64))
                    .with("role", "source"),
            ],
        };
        let run = RunDetails {
            builder: Builder { id: "https://b.test".into(), version: BTreeMap::new() },
            metadata: Metadata {
                invocation_id: "urn:1".into(),
                started_on: "2026-07-30T10:56:00Z".into(),
                finished_on: "2026-07-30T10:57:00Z".into(),
            },
        };
        Statement::new("kernel-bin:5.10.1", &format!("sha256:{}", "a".repeat(64)), definition, run)
    }

    #[test]
    fn a_statement_is_written_as_the_specification_has_it() {
        let text = String::from_utf8(statement().to_bytes()).unwrap();
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let expected = [
            r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"buildDefinition":{"#,
            r#""buildType":"https://imgbuild.io/kernel/v1","externalParameters":{"version":"5.10.1"},"#,
            r#""internalParameters":{"hermetic":true},"resolvedDependencies":[{"annotations":{"role":"source"},"#,
            &format!(
                r#""digest":{{"sha256":"{b}"}},"name":"linux.tar.xz","uri":"https://k.test/linux.tar.xz"}}]}},"#
            ),
            r#""runDetails":{"builder":{"id":"https://b.test"},"metadata":{"finishedOn":"2026-07-30T10:57:00Z","#,
            r#""invocationId":"urn:1","startedOn":"2026-07-30T10:56:00Z"}}},"#,
            r#""predicateType":"https://slsa.dev/provenance/v1","#,
            &format!(r#""subject":[{{"digest":{{"sha256":"{a}"}},"name":"kernel-bin:5.10.1"}}]}}"#),
        ];
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn a_statement_is_held_to_its_subject_and_its_types() {
        let subject = format!("sha256:{}", "a".repeat(64));
        let whole = statement();
        assert_eq!(Statement::parse(&whole.to_bytes(), &subject).unwrap(), whole);
        let other = format!("sha256:{}", "c".repeat(64));
        let error = Statement::parse(&whole.to_bytes(), &other).unwrap_err();
        assert_eq!(error.to_string(), format!("the provenance of `{other}` is about {subject}"));
        assert!(error.hint().unwrap().contains("deceive"));
        let refused = |change: fn(&mut Statement)| {
            let mut statement = statement();
            change(&mut statement);
            Statement::parse(&statement.to_bytes(), &subject).unwrap_err().to_string()
        };
        assert!(refused(|it| it.kind = "x".into()).contains("its _type is `x`"));
        assert!(refused(|it| it.predicate_type = "y".into()).contains("its predicateType is `y`"));
        assert!(refused(|it| it.subject.clear()).contains("is about nothing"));
        for garbled in [&b"{}"[..], b"not JSON", b"[]", b""] {
            let error = Statement::parse(garbled, &subject).unwrap_err();
            assert!(matches!(error, Error::NoProvenance { .. }), "{error}");
        }
    }
}
