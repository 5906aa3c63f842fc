//! What a list of fragments asks of one kernel.

use std::collections::BTreeMap;
use std::fmt;

use super::fragment::{Request, line};
use crate::arch::Arch;
use crate::version::Version;

/// A later request that took the place of an earlier one with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The request that no longer counts.
    pub earlier: Request,
    /// The request that does.
    pub later: Request,
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { earlier, later } = self;
        let (was, is) = (earlier.value.told(), later.value.told());
        write!(f, "{}: CONFIG_{} {is} overrides {was} of {}", later.origin, later.symbol, earlier.origin)
    }
}

/// What a list of fragments asks of one kernel: the last applicable request for each symbol.
#[derive(Clone, Debug)]
pub struct Requested {
    pub(super) version: Version,
    pub(super) arch: Arch,
    requests: Vec<Request>,
    overrides: Vec<Override>,
}

impl Requested {
    /// Keeps the last of the requests that apply to `version` on `arch`; the order is that of the fragments.
    pub fn merge(requests: impl IntoIterator<Item = Request>, version: &Version, arch: Arch) -> Self {
        let mut last = BTreeMap::<String, (usize, Request)>::new();
        let mut overrides = Vec::new();
        let applicable = requests.into_iter().filter(|request| request.condition.holds(version, arch));
        for (place, later) in applicable.enumerate() {
            let earlier = last.insert(later.symbol.clone(), (place, later.clone()));
            if let Some((_, earlier)) = earlier.filter(|(_, earlier)| earlier.value != later.value) {
                overrides.push(Override { earlier, later });
            }
        }
        let mut requests: Vec<_> = last.into_values().collect();
        requests.sort_by_key(|(place, _)| *place);
        let requests = requests.into_iter().map(|(_, request)| request).collect();
        Self { version: version.clone(), arch, requests, overrides }
    }

    /// The requests that count, in the order of the fragments.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The request for `symbol`.
    pub fn get(&self, symbol: &str) -> Option<&Request> {
        self.requests.iter().find(|request| request.symbol == symbol)
    }

    /// Where a later fragment changed its mind about an earlier one.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// What a step's key is made of: values by symbol, without comments and origins.
    pub fn canonical(&self) -> BTreeMap<String, String> {
        let mark = |request: &Request| if request.condition.if_known { " if-known" } else { "" };
        let told = |request: &Request| format!("{}{}", request.value, mark(request));
        self.requests.iter().map(|request| (request.symbol.clone(), told(request))).collect()
    }

    /// The text for `KCONFIG_ALLCONFIG`, without the `if-known` requests for symbols that are not `known`.
    pub fn text(&self, known: impl Fn(&str) -> bool) -> String {
        let asked =
            self.requests.iter().filter(|request| !request.condition.if_known || known(&request.symbol));
        asked.map(|request| line(&request.symbol, &request.value) + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragment::parse;
    use super::*;

    #[test]
    fn the_last_applicable_request_counts() {
        let text = "CONFIG_A=y\nCONFIG_B=m\nCONFIG_A=m # [<5.0]\nCONFIG_A=n # [arm64]\nCONFIG_B=m\nCONFIG_C=1 # [if-known]\n";
        let version = "5.10.262".parse().unwrap();
        let merged = |arch| Requested::merge(parse("f", text).unwrap(), &version, arch);
        let x86 = merged(Arch::X86_64);
        let told = |(symbol, value): (&str, &str)| (symbol.to_owned(), value.to_owned());
        assert_eq!(x86.canonical(), [("A", "y"), ("B", "m"), ("C", "1 if-known")].map(told).into());
        assert_eq!(x86.overrides(), []);
        let arm64 = merged(Arch::Arm64);
        assert_eq!(arm64.text(|_| false), "# CONFIG_A is not set\nCONFIG_B=m\n");
        assert_eq!(arm64.text(|_| true), "# CONFIG_A is not set\nCONFIG_B=m\nCONFIG_C=1\n");
        let told: Vec<_> = arm64.overrides().iter().map(ToString::to_string).collect();
        assert_eq!(told, ["f:4: CONFIG_A off overrides =y of f:1"]);
    }

    #[test]
    fn comments_origins_and_order_do_not_change_what_the_key_is_made_of() {
        let version = "5.10".parse().unwrap();
        let canonical =
            |text| Requested::merge(parse("f", text).unwrap(), &version, Arch::X86_64).canonical();
        assert_eq!(
            canonical("CONFIG_A=y\nCONFIG_B=y"),
            canonical("# why\n\nCONFIG_B=y # [x86_64] so\nCONFIG_A=y")
        );
    }
}
