//! Whom we may speak to: credentials stay with the registry, and it may not send us everywhere.

use std::net::{IpAddr, ToSocketAddrs};

use reqwest::Url;

use super::Error;
use super::client::{Client, guard};
use super::http::{Call, agent};
use super::space::Space;

impl Client {
    /// Whether credentials for the registry may go to `url`.
    pub(super) fn is_home(&self, url: &Url, call: &Call<'_>) -> bool {
        // Before the registry has answered, what it is asked first is where it is.
        same_origin(url, self.base.get().unwrap_or(&call.url))
    }

    /// An agent for another host that the registry names, if it may.
    pub(super) fn other(&self, url: &Url) -> Result<reqwest::blocking::Client, Error> {
        let astray = |reason| Error::Astray { registry: self.host.to_string(), to: plain(url), reason };
        let host = url.host_str().ok_or_else(|| astray("which has no host"))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let key = format!("{}://{host}:{port}", url.scheme());
        if let Some(agent) = guard(&self.others).get(&key) {
            return Ok(agent.clone());
        }
        let name = host.trim_matches(['[', ']']);
        let found = addresses(name, port);
        let is_loopback =
            !found.is_empty() && found.iter().all(|address| Space::of(*address) == Space::Loopback);
        match url.scheme() {
            "https" => {}
            "http" if is_loopback || self.options.plain_http => {}
            _ => return Err(astray("which is not encrypted")),
        }
        let home =
            addresses(self.host.name(), port).into_iter().map(Space::of).next().unwrap_or(Space::Public);
        if !found.iter().all(|address| home.may_name(Space::of(*address))) {
            return Err(astray("an address that is not public"));
        }
        // What was checked is what is used, whatever the name resolves to by then. A name that does not resolve here is
        // left to the proxy.
        let sockets: Vec<_> = found.iter().map(|address| (*address, port).into()).collect();
        let agent =
            agent(
                |builder| {
                    if sockets.is_empty() { builder } else { builder.resolve_to_addrs(name, &sockets) }
                },
            )?;
        guard(&self.others).insert(key, agent.clone());
        Ok(agent)
    }
}

/// The addresses of a host; none if it has none.
fn addresses(name: &str, port: u16) -> Vec<IpAddr> {
    (name, port).to_socket_addrs().map(|found| found.map(|socket| socket.ip()).collect()).unwrap_or_default()
}

pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// An URL without what may be secret in it: user, password, query, fragment.
pub(super) fn plain(url: &Url) -> String {
    format!("{}://{}{}{}", url.scheme(), url.host_str().unwrap_or_default(), port(url), url.path())
}

fn port(url: &Url) -> String {
    url.port().map_or_else(String::new, |port| format!(":{port}"))
}

/// A message without the queries of the URLs in it: they may be signed.
pub(super) fn without_queries(text: &str) -> String {
    let word = |word: &str| match word.find("://").and_then(|_| word.find('?')) {
        Some(at) => format!("{}{}", &word[..at], if word.ends_with(')') { ")" } else { "" }),
        None => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_urls_are_cut_off() {
        for (text, shown) in [
            ("error for url (http://h/p?sig=1)", "error for url (http://h/p)"),
            ("http://h/p?sig=1 broke", "http://h/p broke"),
            ("what? nothing", "what? nothing"),
        ] {
            assert_eq!(without_queries(text), shown);
        }
        let url = Url::parse("https://u:p@h.example:5000/a?sig=1#x").unwrap();
        assert_eq!(plain(&url), "https://h.example:5000/a");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (a, b, same) in [
            ("https://h/a", "https://h:443/b", true),
            ("https://h/a", "http://h/a", false),
            ("http://h:1/a", "http://h:2/a", false),
            ("http://h/a", "http://h.example/a", false),
        ] {
            assert_eq!(same_origin(&Url::parse(a).unwrap(), &Url::parse(b).unwrap()), same, "{a} {b}");
        }
    }
}
