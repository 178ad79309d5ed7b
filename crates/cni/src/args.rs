//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`, from runtimes that know no capabilities.

use crate::failure::Failure;
use client::network::{Mac, Options};
use std::net::IpAddr;

/// What it asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    /// `K8S_...`, which are for people.
    pub(crate) labels: Vec<(String, String)>,
}

impl Args {
    /// Unknown keys are refused, unless `IgnoreUnknown` says otherwise.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let mut args = Self::default();
        let (mut unknown, mut ignores) = (None, false);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let wrong = |why: &str| Failure::environment(format!("CNI_ARGS {pair:?}: {why}"));
            let (key, value) = pair.split_once('=').ok_or_else(|| wrong("has no '='"))?;
            match key {
                "IgnoreUnknown" => {
                    // As libcni's UnmarshallableBool reads it.
                    ignores = match value.to_ascii_lowercase().as_str() {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(wrong("is neither true nor false")),
                    }
                }
                "IP" if !value.is_empty() => {
                    for one in value.split(',') {
                        args.addresses
                            .push(address(one).ok_or_else(|| wrong("is not an address"))?);
                    }
                }
                "MAC" if !value.is_empty() => {
                    args.mac = Some(value.parse().map_err(|_| wrong("is not a MAC"))?)
                }
                "IP" | "MAC" => {}
                _ if key.starts_with("K8S_") => args.labels.push((key.to_owned(), value.to_owned())),
                _ => {
                    unknown.get_or_insert(pair);
                }
            }
        }
        match unknown {
            Some(pair) if !ignores => Err(Failure::environment(format!(
                "CNI_ARGS {pair:?}: is unknown, and IgnoreUnknown is not set"
            ))),
            _ => Ok(args),
        }
    }

    /// Adds what was asked for here.
    pub(crate) fn put_into(self, mut options: Options) -> Options {
        for (key, value) in self.labels {
            options = options.label(key, value);
        }
        for address in self.addresses {
            options = options.address(address);
        }
        match self.mac {
            Some(mac) => options.mac(mac),
            None => options,
        }
    }
}

/// An address, with or without the length of a prefix, which the network decides.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_good = length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most));
    is_good.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_send_is_read() {
        let podman =
            Args::read("IgnoreUnknown=1;K8S_POD_NAME=rec1;MAC=02:00:00:00:00:77;IP=10.88.80.77").unwrap();
        assert_eq!(podman.addresses, [IpAddr::from([10, 88, 80, 77])]);
        assert_eq!(podman.mac, Some(Mac([2, 0, 0, 0, 0, 0x77])));
        assert_eq!(podman.labels, [("K8S_POD_NAME".to_owned(), "rec1".to_owned())]);
        assert_eq!(Args::read("").unwrap(), Args::default());
        assert_eq!(
            Args::read("NERDCTL_CNI_DHCP_HOSTNAME=a;IgnoreUnknown=True").unwrap(),
            Args::default()
        );
        assert_eq!(Args::read("IP=10.0.0.2/24,fd00::2").unwrap().addresses.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, expected) in [
            ("A=b", "\"A=b\": is unknown, and IgnoreUnknown is not set"),
            ("A=b;IgnoreUnknown=0", "\"A=b\": is unknown"),
            ("IgnoreUnknown=maybe", "is neither true nor false"),
            ("IP", "\"IP\": has no '='"),
            ("IP=10.0.0.256", "\"IP=10.0.0.256\": is not an address"),
            ("IP=10.0.0.1/33", "is not an address"),
            ("MAC=1", "\"MAC=1\": is not a MAC"),
        ] {
            let failure = Args::read(text).unwrap_err();
            assert_eq!(failure.code, 4);
            assert!(failure.msg.contains(expected), "{text}: {}", failure.msg);
        }
    }
}
