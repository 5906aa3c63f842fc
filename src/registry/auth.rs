//! Who we are to a registry: `Basic`, or tokens (`Bearer`) as narrow as the work, renewed when they run out.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::client::{Client, guard};
use super::credentials::{self, Credential, Found};
use super::http::{Answer, Body, Call, Scope, Stumble};

/// How long a token lasts at least, by the specification of tokens; who says less means it no better.
const SHORTEST: Duration = Duration::from_secs(60);
/// A token is renewed so long before it runs out.
const MARGIN: Duration = Duration::from_secs(10);
/// Shorter words are no secrets, and cutting them out of messages would tear these apart.
const SECRET_LENGTH: usize = 4;

/// What a registry has asked for, and what we have to answer.
#[derive(Default)]
pub(super) struct Auth {
    state: Mutex<State>,
    /// Credentials to use instead of those the user keeps.
    given: Mutex<Option<Found>>,
    /// What must not appear in messages.
    secrets: Mutex<Vec<String>>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    tokens: BTreeMap<String, Token>,
    /// By repository: credentials may be for a part of a registry alone.
    found: BTreeMap<String, Option<Found>>,
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

/// How a registry wants to be told who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

impl Auth {
    /// A message without our secrets, which a registry may repeat.
    pub(super) fn scrub(&self, text: &str) -> String {
        guard(&self.secrets).iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }

    fn keep_secret(&self, secret: &str) {
        let mut secrets = guard(&self.secrets);
        if secret.len() >= SECRET_LENGTH && !secrets.iter().any(|other| other == secret) {
            secrets.push(secret.to_owned());
        }
    }

    fn basic(&self, username: &str, password: &str) -> Option<HeaderValue> {
        let word = STANDARD.encode(format!("{username}:{password}"));
        [password, &word].into_iter().for_each(|secret| self.keep_secret(secret));
        HeaderValue::from_str(&format!("Basic {word}")).ok()
    }
}

impl Client {
    /// Asks the registry whether it takes a password. One that asks for none takes any.
    pub fn log_in(&self, username: &str, password: &str) -> Result<(), Error> {
        let credential =
            Credential::Password { username: username.to_owned(), password: password.to_owned() };
        *guard(&self.auth.given) = Some(Found { credential, source: "the command line".into() });
        let url = self.url("")?;
        // No right at all is asked for: who we are is enough.
        let call = Call::new(Method::GET, url, Scope("registry".into()), "log in");
        let answer = self.send(&call)?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(self.unexpected(&call.what, &answer)) }
    }

    /// The `Authorization` for a request, if the registry has asked for one.
    pub(super) fn authorization(&self, scope: &Scope) -> Result<Option<HeaderValue>, Stumble> {
        // Held while a token is fetched: the other threads want the same one.
        let mut state = guard(&self.auth.state);
        match state.challenge.clone() {
            None => Ok(None),
            Some(Challenge::Basic) => match self.credential(&mut state, scope)?.map(|found| found.credential)
            {
                Some(Credential::Password { username, password }) => {
                    Ok(self.auth.basic(&username, &password))
                }
                _ => Ok(None),
            },
            Some(Challenge::Bearer { realm, service }) => {
                if let Some(token) = state.tokens.get(&scope.0).filter(|token| Instant::now() < token.until) {
                    return Ok(Some(token.header.clone()));
                }
                let found = self.credential(&mut state, scope)?;
                let token = self.token(&realm, service.as_deref(), scope, found)?;
                let header = token.header.clone();
                state.tokens.insert(scope.0.clone(), token);
                Ok(Some(header))
            }
        }
    }

    /// Takes note of a 401, so that the next request can do better.
    pub(super) fn renew(
        &self,
        answer: &Answer,
        call: &Call<'_>,
        used: Option<&HeaderValue>,
    ) -> Result<(), Stumble> {
        let scope = &call.scope;
        let challenge = self.challenge(&answer.headers)?;
        let mut state = guard(&self.auth.state);
        if challenge == Some(Challenge::Basic) && self.credential(&mut state, scope)?.is_none() {
            drop(state);
            return Err(self.denied(&call.what, self.said(answer)).into());
        }
        state.challenge = challenge.or(state.challenge.take());
        // Another thread may have a new one already.
        if state.tokens.get(&scope.0).is_some_and(|token| Some(&token.header) == used) {
            state.tokens.remove(&scope.0);
        }
        Ok(())
    }

    /// Takes note of how the registry answered when it was first asked.
    pub(super) fn adopt(&self, answer: &Answer) -> Result<(), Error> {
        let challenge = self.challenge(&answer.headers)?;
        guard(&self.auth.state).challenge = challenge;
        Ok(())
    }

    /// The error for who is not let in.
    pub(super) fn denied(&self, what: &str, reason: String) -> Error {
        let state = guard(&self.auth.state);
        let given = guard(&self.auth.given).clone();
        let found = given.or_else(|| state.found.values().flatten().next().cloned());
        let who = match &found {
            Some(Found { credential: Credential::Password { username, .. }, source }) => {
                format!("as `{username}` from {source}")
            }
            Some(Found { source, .. }) => format!("with a token from {source}"),
            None => "without credentials".into(),
        };
        let (registry, what) = (self.host.to_string(), what.to_owned());
        Error::Denied { registry, what, reason, who, known: found.is_some() }
    }

    /// What the user keeps for this registry, looked for once per repository.
    fn credential(&self, state: &mut State, scope: &Scope) -> Result<Option<Found>, Error> {
        if let Some(given) = guard(&self.auth.given).clone() {
            return Ok(Some(given));
        }
        let repository = scope.0.split(':').nth(1).unwrap_or_default();
        if let Some(found) = state.found.get(repository) {
            return Ok(found.clone());
        }
        let found = credentials::find(&self.host, repository)?;
        state.found.insert(repository.to_owned(), found.clone());
        Ok(found)
    }

    fn challenge(&self, headers: &HeaderMap) -> Result<Option<Challenge>, Error> {
        let values = headers.get_all(WWW_AUTHENTICATE);
        let offers: Vec<_> = values.iter().filter_map(|value| value.to_str().ok()).flat_map(offers).collect();
        let of = |scheme: &str| offers.iter().find(|(other, _)| other.eq_ignore_ascii_case(scheme));
        let Some((_, fields)) = of("bearer") else { return Ok(of("basic").map(|_| Challenge::Basic)) };
        let realm = fields.get("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.ok_or_else(|| self.refused("get a token", "it does not say where"))?;
        Ok(Some(Challenge::Bearer { realm, service: fields.get("service").cloned() }))
    }

    /// Fetches a token.
    fn token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &Scope,
        found: Option<Found>,
    ) -> Result<Token, Stumble> {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scope.0.split(' ').filter(|scope| scope.contains(':')) {
                query.append_pair("scope", scope);
            }
        }
        let what = format!("get a token from `{}`", super::hosts::plain(realm));
        let mut call = Call::new(Method::GET, url.clone(), Scope::default(), what.clone());
        call.limit = 1 << 20;
        let form;
        match found.map(|found| found.credential) {
            None => {}
            Some(Credential::Password { username, password }) => {
                call.authorization = self.auth.basic(&username, &password);
            }
            Some(Credential::IdentityToken(refresh)) => {
                self.auth.keep_secret(&refresh);
                url.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("refresh_token", &refresh)
                    .append_pair("client_id", "imgbuild");
                form = url.query().unwrap_or_default().to_owned();
                call = Call::new(Method::POST, realm.clone(), Scope::default(), what.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                (call.body, call.limit) = (Body::Bytes(form.as_bytes()), 1 << 20);
            }
        }
        let answer = self.attempt(&call, None)?;
        let asked = Instant::now();
        match answer.status {
            StatusCode::OK => {}
            // `denied` needs the state that our caller holds.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let (registry, reason) = (self.host.to_string(), self.said(&answer));
                let known = call.authorization.is_some() || call.method == Method::POST;
                let who = if known { "with the credentials kept for it" } else { "without credentials" };
                return Err(Error::Denied { registry, what, reason, who: who.into(), known }.into());
            }
            _ => return Err(self.unexpected(&what, &answer).into()),
        }
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let token = ["token", "access_token"].into_iter().find_map(|name| document[name].as_str());
        let token = token.ok_or_else(|| self.refused(&what, "there is none in the answer"))?;
        self.auth.keep_secret(token);
        let lasts = document["expires_in"].as_u64().map_or(SHORTEST, Duration::from_secs).max(SHORTEST);
        let header = HeaderValue::from_str(&format!("Bearer {token}"));
        let header = header.map_err(|_| self.refused(&what, "it is no token"))?;
        // An absurd time is as good as a day.
        let lasts = lasts.min(Duration::from_secs(86_400)).saturating_sub(MARGIN);
        Ok(Token { header, until: asked + lasts })
    }
}

/// The schemes that a `WWW-Authenticate` offers, each with its fields: `Bearer realm="…",service="…"`.
fn offers(text: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut offers: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let Some(value) = after.trim_start().strip_prefix('=') else {
            offers.push((word.to_owned(), BTreeMap::new()));
            rest = after.trim_start_matches([' ', ',']);
            continue;
        };
        let (value, after) = field(value.trim_start());
        if let Some((_, fields)) = offers.last_mut() {
            fields.insert(word.to_ascii_lowercase(), value);
        }
        rest = after.trim_start_matches([' ', ',']);
        if end == 0 && rest == text {
            break;
        }
    }
    offers
}

/// A field's value, quoted or not, and what follows.
fn field(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return (value, &quoted[at + 1..]),
            '\\' if !escaped => escaped = true,
            _ => {
                value.push(c);
                escaped = false;
            }
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_as_servers_write_them() {
        for (text, schemes, realm) in [
            (
                r#"Bearer realm="https://a.example/token",service="r",scope="x:y:pull,push""#,
                "Bearer",
                "https://a.example/token",
            ),
            (r#"Basic realm="a \"quoted\", word""#, "Basic", r#"a "quoted", word"#),
            (r#"Basic realm=plain, Bearer realm="b""#, "Basic Bearer", "plain"),
            (r#"Negotiate, Basic realm = "spaced""#, "Negotiate Basic", ""),
            ("Basic", "Basic", ""),
            ("", "", ""),
            (r#"Bearer realm="never closed"#, "Bearer", "never closed"),
            ("=,= ,", "", ""),
        ] {
            let offers = offers(text);
            let names: Vec<_> = offers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names.join(" "), schemes, "{text}");
            let found = offers.first().and_then(|(_, fields)| fields.get("realm").cloned());
            assert_eq!(found.unwrap_or_default(), realm, "{text}");
        }
    }
}
