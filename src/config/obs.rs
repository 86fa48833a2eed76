//! The listener for obs-sign's clients.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::from_text;

/// The first port that is not reserved to root by custom.
const FIRST_OPEN_PORT: u16 = 1024;

/// The listener for obs-sign's clients, which the network's addresses alone authenticate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obs {
    /// The address that is listened on; signd's port is 5167.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// The addresses that may ask. Default: this machine.
    #[serde(default = "this_machine")]
    pub allow: Vec<Network>,
    /// Which of their ports may. Default: those below 1024, which only root can use.
    #[serde(default)]
    pub ports: Ports,
}

/// The ports that a client may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// Those below 1024, so that whoever asks is root on the client's machine.
    #[default]
    Reserved,
    /// All.
    Any,
}

impl Ports {
    /// The first port that clients on this machine may come from without being root, where only root was meant to.
    ///
    /// Source: ip-sysctl of the kernel's documentation, `ip_unprivileged_port_start`, which counts for IPv6 as well.
    pub fn unprivileged(self) -> Option<u16> {
        let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
        let first = first.trim().parse().ok()?;
        (self == Self::Reserved && first < FIRST_OPEN_PORT).then_some(first)
    }
}

/// An address, or all that begin as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse()
            .or_else(|_| single())
            .map(Self)
            .map_err(|_| format!("{text:?} is neither an address nor a network such as 10.0.0.0/8"))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl Obs {
    /// Whether a client may ask from there.
    pub fn allows(&self, peer: SocketAddr) -> bool {
        // An IPv4 client of a listener for both kinds has an address of IPv6's form.
        let address = peer.ip().to_canonical();
        let port = match self.ports {
            Ports::Reserved => peer.port() < FIRST_OPEN_PORT,
            Ports::Any => true,
        };
        port && self
            .allow
            .iter()
            .any(|network| network.0.contains(&address))
    }
}

fn this_machine() -> Vec<Network> {
    [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ]
    .map(|address| Network(address.into()))
    .to_vec()
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.strip_prefix("tcp:")
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not \"tcp:ADDRESS:PORT\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_addresses_and_ports_are_let_in() {
        let obs = |allow: &str, ports: &str| -> Obs {
            toml::from_str(&format!(
                "listen = \"tcp:127.0.0.1:5167\"\nallow = {allow}\nports = {ports:?}"
            ))
            .unwrap()
        };
        let listed = obs(
            r#"["10.1.0.0/16", "192.0.2.7", "2001:db8::/32"]"#,
            "reserved",
        );
        for (peer, allowed) in [
            ("10.1.2.3:1023", true),
            ("10.1.2.3:1024", false),
            ("10.1.2.3:0", true),
            ("10.2.2.3:1023", false),
            ("192.0.2.7:600", true),
            ("192.0.2.8:600", false),
            ("127.0.0.1:600", false),
            ("[::ffff:10.1.2.3]:600", true),
            ("[::ffff:10.2.2.3]:600", false),
            ("[2001:db8::1]:600", true),
            ("[2001:db9::1]:600", false),
        ] {
            assert_eq!(listed.allows(peer.parse().unwrap()), allowed, "{peer}");
        }
        let any = obs(r#"["10.1.0.0/16"]"#, "any");
        assert!(any.allows("10.1.2.3:40000".parse().unwrap()));
        assert!(!any.allows("10.2.2.3:40000".parse().unwrap()));
        assert!(!obs("[]", "any").allows("127.0.0.1:1".parse().unwrap()));
        let default: Obs = toml::from_str("listen = \"tcp:127.0.0.1:5167\"").unwrap();
        assert!(default.allows("127.0.0.1:600".parse().unwrap()));
        assert!(default.allows("[::1]:600".parse().unwrap()));
        assert!(!default.allows("127.0.0.2:600".parse().unwrap()));
    }
}
