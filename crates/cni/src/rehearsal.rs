//! A call with all but the daemon, whose answers are made up: for those who try what can come from the environment and on
//! stdin (`fuzz`).

use crate::asked;
use crate::call::Call;
use crate::failure::{Failure, own};
use crate::result::result;
use crate::verb::Verb;
use crate::verbs;
use crate::version;
use client::inspection;
use client::network::{Attached, Dns, Mac, Route};
use serde_json::Value;
use std::ffi::OsString;
use std::net::IpAddr;

/// The address that everybody is given, and the gateway.
const GIVEN: [(&str, &str); 2] = [("10.77.0.5", "169.254.77.1"), ("fd77::5", "fe80::1")];
const HOST_LINK: &str = "wk0123456789abc";
const HOST_MAC: Mac = Mac([2, 0x9c, 0x52, 0xfe, 0x6d, 0x0a]);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 5]);

/// What would be printed where the daemon says yes to all, and its failure otherwise.
pub fn rehearse(
    variable: impl Fn(&str) -> Option<Result<String, OsString>>,
    input: &[u8],
) -> Result<Option<Value>, Value> {
    let played = Call::new(variable, input).and_then(|call| play(&call));
    played.map_err(|failure| failure.to_json(version::of_answer(version::of_input(input))))
}

fn play(call: &Call) -> Result<Option<Value>, Failure> {
    match (call.verb, call.config.version) {
        (Verb::Version, _) => Ok(Some(verbs::versions(call))),
        (Verb::Add, Some(version)) => {
            asked::options(call)?;
            Ok(Some(result(call, version, &attached())))
        }
        (Verb::Check, _) => {
            let before = verbs::checked_result(call)?;
            match verbs::differences(&found(), before, &call.attachment) {
                wrong if wrong.is_empty() => Ok(None),
                wrong => Err(Failure::new(own::DIFFERS, wrong.join("; "))),
            }
        }
        (Verb::Gc, _) => call.config.valid_attachments().map(|_| None),
        (Verb::Add, None) | (Verb::Del | Verb::Status, _) => Ok(None),
    }
}

fn parsed(text: &str) -> IpAddr {
    text.parse().expect("these are addresses")
}

fn attached() -> Attached {
    let route = |(_, gateway): &(&str, &str)| {
        let gateway = parsed(gateway);
        let all: IpAddr = if gateway.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        Route {
            destination: all,
            prefix_length: 0,
            gateway: Some(gateway),
        }
    };
    Attached {
        addresses: GIVEN.map(|(ip, gateway)| (parsed(ip), parsed(gateway))).to_vec(),
        host_link: HOST_LINK.to_owned(),
        host_mac: HOST_MAC,
        mac: MAC,
        mtu: 1500,
        routes: GIVEN.iter().map(route).collect(),
        dns: Dns::default(),
    }
}

fn found() -> inspection::Attachment {
    inspection::Attachment {
        ip: GIVEN.map(|(ip, _)| ip.to_owned()).to_vec(),
        host_link: HOST_LINK.to_owned(),
        host_mac: HOST_MAC.to_string(),
        workload_mac: MAC.to_string(),
        mtu: 1500,
        ..inspection::Attachment::default()
    }
}
