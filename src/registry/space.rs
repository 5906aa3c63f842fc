//! Which part of the Internet an address is in: a registry may not send us into somebody's private network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A part of the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Reachable by everybody.
    Public,
    /// A site's own: RFC 1918, shared (RFC 6598), unique local.
    Private,
    /// This machine.
    Loopback,
    /// This link, where clouds keep their machines' secrets; and what no registry is at: multicast, unspecified, reserved.
    Special,
}

impl Space {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_private() || (first == 100 && second & 0xc0 == 64) {
            Self::Private
        } else if address.is_link_local() || first == 0 || first >= 224 {
            Self::Special
        } else {
            Self::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if address.is_loopback() {
            Self::Loopback
        } else if address.is_unique_local() {
            Self::Private
        } else if address.is_unicast_link_local() || address.is_multicast() || address.is_unspecified() {
            Self::Special
        } else {
            Self::Public
        }
    }

    /// Whether a registry in this space may send us to `other`.
    pub(super) fn may_name(self, other: Self) -> bool {
        match other {
            Self::Public => true,
            Self::Private | Self::Loopback => self == other,
            Self::Special => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_told_apart() {
        for (address, space) in [
            ("93.184.215.14", Space::Public),
            ("10.1.2.3", Space::Private),
            ("172.31.0.1", Space::Private),
            ("172.32.0.1", Space::Public),
            ("100.64.0.1", Space::Private),
            ("100.128.0.1", Space::Public),
            ("127.3.2.1", Space::Loopback),
            ("169.254.169.254", Space::Special),
            ("0.0.0.0", Space::Special),
            ("255.255.255.255", Space::Special),
            ("::1", Space::Loopback),
            ("::ffff:169.254.169.254", Space::Special),
            ("::ffff:10.0.0.1", Space::Private),
            ("fd00::1", Space::Private),
            ("fe80::1", Space::Special),
            ("2606:2800::1", Space::Public),
        ] {
            assert_eq!(Space::of(address.parse().unwrap()), space, "{address}");
        }
    }

    #[test]
    fn a_registry_may_name_the_public_and_its_own_kind() {
        for (from, to, may) in [
            (Space::Public, Space::Public, true),
            (Space::Public, Space::Private, false),
            (Space::Public, Space::Loopback, false),
            (Space::Loopback, Space::Loopback, true),
            (Space::Loopback, Space::Private, false),
            (Space::Private, Space::Private, true),
            (Space::Private, Space::Loopback, false),
            (Space::Private, Space::Special, false),
            (Space::Special, Space::Special, false),
        ] {
            assert_eq!(from.may_name(to), may, "{from:?} to {to:?}");
        }
    }
}
