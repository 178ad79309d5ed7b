//! Fields of requests, each checked once: a good value, or the field's name, its value and what is wrong with it.

mod ports;

use crate::desk::order::{AdoptOrder, AttachOrder, DetachOrder, Labels, Step};
use api::inspection as inspect;
use api::inspection::adopt_request::Step as Asked;
use api::workload::{AttachRequest, DetachRequest, NetNsAttachment};
use model::address::{Addresses, Mac};
use model::key::{InterfaceName, Key, KeyError, Owner, WorkloadId};
use model::prefix::{MOST, Prefix, PrefixError};
use model::record::hex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

/// Labels that a request may have.
pub const LABELS: usize = 64;
const LABEL_KEY_BYTES: usize = 128;
const LABEL_VALUE_BYTES: usize = 256;
/// `PATH_MAX` without the NUL, linux/limits.h.
const PATH_BYTES: usize = 4095;
/// The smallest MTU of IPv4 (RFC 791).
const SMALLEST_MTU: u32 = 68;
/// Characters of a value that an error shows.
const SHOWN: usize = 64;

/// A field's value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Its path, e.g. `netns.if_name`.
    pub field: String,
    /// The value, shortened.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl FieldError {
    /// The field is one of a message, which is this field of another.
    fn inside(self, of: &str) -> Self {
        Self {
            field: format!("{of}.{}", self.field),
            ..self
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.field, self.value, self.why)
    }
}

fn error(field: &str, value: &str, why: impl fmt::Display) -> FieldError {
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    FieldError {
        field: field.to_owned(),
        value: format!("{shown:?}"),
        why: why.to_string(),
    }
}

fn key_parts(owner: &str, workload_id: &str, if_name: &str, names: [&str; 3]) -> Result<Key, FieldError> {
    let [owner_field, workload_field, interface_field] = names;
    let owner_value = Owner::new(owner).map_err(|why| error(owner_field, owner, why))?;
    let workload = WorkloadId::new(workload_id).map_err(|why| error(workload_field, workload_id, why))?;
    let interface = InterfaceName::new(if_name).map_err(|why| error(interface_field, if_name, why))?;
    Key::new(owner_value, workload, interface)
        .map_err(|why: KeyError| error(workload_field, workload_id, why))
}

const REQUEST: [&str; 3] = ["owner", "workload_id", "netns.if_name"];

/// An attach request as an order.
pub fn attach(request: AttachRequest, deadline: Option<Instant>) -> Result<AttachOrder, FieldError> {
    let AttachRequest {
        workload_id,
        netns,
        owner,
        mtu,
        labels,
        requested_ip,
        requested_mac,
        port_mapping,
        // `unsupported` looks at the rest.
        ..
    } = request;
    let Some(NetNsAttachment { netns_path, if_name }) = netns else {
        return Err(error("netns", "", "must be set"));
    };
    let key = key_parts(&owner, &workload_id, &if_name, REQUEST)?;
    if netns_path.is_empty() {
        return Err(error("netns.netns_path", "", "must not be empty"));
    }
    let path = path(netns_path).map_err(|error| error.inside("netns"))?;
    let mtu = match mtu {
        0 => None,
        SMALLEST_MTU..=0xffff => u16::try_from(mtu).ok(),
        _ => {
            return Err(error(
                "mtu",
                &mtu.to_string(),
                format!("must be 0, or {SMALLEST_MTU} to 65535"),
            ));
        }
    };
    let (v4, v6) = requested(&requested_ip)?;
    let mac = mac(&requested_mac)?;
    let ports = ports::ports(&port_mapping)?;
    Ok(AttachOrder {
        key,
        path,
        mtu,
        v4,
        v6,
        mac,
        ports,
        labels: checked_labels(labels)?,
        deadline,
    })
}

/// What a request asks for that this daemon cannot do: the first such field.
pub fn unsupported(request: &AttachRequest) -> Option<&'static str> {
    let asked = [
        ("bandwidth", request.bandwidth.is_some()),
        ("alias", !request.alias.is_empty()),
    ];
    asked
        .into_iter()
        .find_map(|(field, is_asked)| is_asked.then_some(field))
}

/// Prefixes that are to serve.
pub fn prefixes(texts: &[String]) -> Result<Vec<Prefix>, FieldError> {
    if texts.is_empty() {
        return Err(error(
            "prefix",
            "",
            "must name at least one: nothing would be left",
        ));
    }
    if texts.len() > MOST {
        return Err(error("prefix", "", PrefixError::TooMany(texts.len())));
    }
    let parse = |(n, text): (usize, &String)| {
        let prefix = text.parse();
        prefix.map_err(|why: PrefixError| error(&format!("prefix[{n}]"), text, why))
    };
    let prefixes: Vec<Prefix> = texts.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Prefix::disjoint(&prefixes).map_err(|why| error("prefix", &texts.join(" "), why))?;
    Ok(prefixes)
}

/// A key in a message.
pub fn key_of(key: &Key) -> inspect::Key {
    inspect::Key {
        owner: key.owner().as_str().to_owned(),
        workload_id: key.workload().as_str().to_owned(),
        if_name: key.interface().as_str().to_owned(),
    }
}

/// Keys of one owner, as the collection of garbage gets them.
pub fn valid(owner: &Owner, keys: Vec<inspect::Key>) -> Result<HashSet<Key>, FieldError> {
    const NAMES: [&str; 3] = ["owner", "valid.workload_id", "valid.if_name"];
    keys.iter()
        .map(|key| key_parts(owner.as_str(), &key.workload_id, &key.if_name, NAMES))
        .collect()
}

/// A detach request as an order.
pub fn detach(request: DetachRequest) -> Result<DetachOrder, FieldError> {
    let DetachRequest {
        workload_id,
        netns,
        owner,
    } = request;
    let Some(NetNsAttachment { netns_path, if_name }) = netns else {
        return Err(error("netns", "", "must be set: if_name is a part of the key"));
    };
    let key = key_parts(&owner, &workload_id, &if_name, REQUEST)?;
    let path = if netns_path.is_empty() {
        None
    } else {
        Some(path(netns_path).map_err(|error| error.inside("netns"))?)
    };
    Ok(DetachOrder {
        key,
        path,
        before: None,
    })
}

/// An adoption as orders: of candidates to be looked at or taken over, of keys to be given back or kept.
pub fn adopt(request: inspect::AdoptRequest) -> Result<Vec<AdoptOrder>, FieldError> {
    let asked = request.step();
    let inspect::AdoptRequest {
        step: number,
        candidate,
        key: keys,
        partial,
    } = request;
    let takes = matches!(asked, Asked::Check | Asked::Take);
    let unused = [
        (
            "step",
            asked == Asked::Unspecified,
            number.to_string(),
            "is no step",
        ),
        (
            "key",
            takes && !keys.is_empty(),
            String::new(),
            "is not for this step",
        ),
        (
            "candidate",
            !takes && !candidate.is_empty(),
            String::new(),
            "is not for this step",
        ),
        (
            "partial",
            asked != Asked::Take && partial,
            "true".to_owned(),
            "is not for this step",
        ),
    ];
    if let Some((field, _, value, why)) = unused.into_iter().find(|(_, is_wrong, ..)| *is_wrong) {
        return Err(error(field, &value, why));
    }
    let step = match asked {
        Asked::Undo => Step::Undo,
        _ => Step::Commit,
    };
    let named = keys.into_iter().map(|of| {
        Ok(AdoptOrder {
            key: key(Some(of))?,
            step: step.clone(),
        })
    });
    let candidates = candidate
        .into_iter()
        .map(|of| taken(of, asked).map_err(|error| error.inside("candidate")));
    let orders: Vec<AdoptOrder> = named.chain(candidates).collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    let field = if takes { "candidate.key" } else { "key" };
    match orders.iter().find(|order| !seen.insert(&order.key)) {
        Some(twice) => Err(error(field, &twice.key.to_string(), "is named twice")),
        None => Ok(orders),
    }
}

fn taken(of: inspect::Candidate, asked: Asked) -> Result<AdoptOrder, FieldError> {
    let key = key(of.key)?;
    let path = path(of.netns_path)?;
    let listed = of.ip.join(", ");
    let all: Result<Vec<IpAddr>, _> = of.ip.iter().map(|text| text.parse()).collect();
    let all = all.map_err(|why| error("ip", &listed, why))?;
    let addresses = Addresses::from_list(all).ok_or_else(|| {
        error(
            "ip",
            &listed,
            "must be one address for each family, and at least one",
        )
    })?;
    let step = match asked {
        Asked::Check => Step::Check { path, addresses },
        _ => Step::Take { path, addresses },
    };
    Ok(AdoptOrder { key, step })
}

/// A key of the inspection service.
pub fn key(key: Option<inspect::Key>) -> Result<Key, FieldError> {
    let Some(inspect::Key {
        owner,
        workload_id,
        if_name,
    }) = key
    else {
        return Err(error("key", "", "must be set"));
    };
    key_parts(
        &owner,
        &workload_id,
        &if_name,
        ["key.owner", "key.workload_id", "key.if_name"],
    )
}

/// A message that is none, by the decoder's words: `NetNsAttachment.netns_path: AttachRequest.netns: invalid string
/// value ...`, innermost first.
pub fn undecodable(message: &[u8], why: &str) -> FieldError {
    let why = why
        .strip_prefix("failed to decode Protobuf message: ")
        .unwrap_or(why);
    let mut path = Vec::new();
    let mut rest = why;
    while let Some((place, after)) = rest.split_once(": ")
        && let Some((_, field)) = place.split_once('.')
    {
        path.insert(0, field);
        rest = after;
    }
    let field = match path.is_empty() {
        true => "message".to_owned(),
        false => path.join("."),
    };
    error(&field, &hex(message), rest)
}

/// An owner of the inspection service.
pub fn owner(text: &str) -> Result<Owner, FieldError> {
    Owner::new(text).map_err(|why| error("owner", text, why))
}

fn path(path: String) -> Result<String, FieldError> {
    let why = if path.len() > PATH_BYTES {
        format!("has {} bytes, {PATH_BYTES} is the most", path.len())
    } else if path.contains('\0') {
        "has a NUL".to_owned()
    } else if !path.starts_with('/') {
        "must be absolute".to_owned()
    } else {
        return Ok(path);
    };
    Err(error("netns_path", &path, why))
}

fn requested(all: &[Vec<u8>]) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), FieldError> {
    let (mut v4, mut v6) = (None, None);
    for bytes in all {
        let wrong = |why: &str| error("requested_ip", &hex(bytes), why);
        let twice = if let Ok(octets) = <[u8; 4]>::try_from(&**bytes) {
            let address = Ipv4Addr::from(octets);
            if address.is_unspecified() || address.is_broadcast() || address.is_multicast() {
                return Err(wrong(&format!("{address} is no host's address")));
            }
            v4.replace(address).is_some()
        } else if let Ok(octets) = <[u8; 16]>::try_from(&**bytes) {
            let address = Ipv6Addr::from(octets);
            if address.to_ipv4_mapped().is_some() {
                return Err(wrong(&format!("{address} is an IPv4 address, which has 4 bytes")));
            }
            if address.is_unspecified() || address.is_multicast() {
                return Err(wrong(&format!("{address} is no host's address")));
            }
            v6.replace(address).is_some()
        } else {
            return Err(wrong(&format!(
                "has {} bytes, an address has 4 or 16",
                bytes.len()
            )));
        };
        if twice {
            return Err(wrong("is the second of its family"));
        }
    }
    Ok((v4, v6))
}

fn mac(bytes: &[u8]) -> Result<Option<Mac>, FieldError> {
    let wrong = |why: &str| error("requested_mac", &hex(bytes), why);
    if bytes.is_empty() {
        return Ok(None);
    }
    let octets =
        <[u8; 6]>::try_from(bytes).map_err(|_| wrong(&format!("has {} bytes, a MAC has 6", bytes.len())))?;
    let mac = Mac(octets).of_a_workload();
    mac.map(Some).map_err(|why| wrong(&why.to_string()))
}

fn checked_labels(labels: HashMap<String, String>) -> Result<Labels, FieldError> {
    if labels.len() > LABELS {
        return Err(error(
            "labels",
            "",
            format!("there are {}, {LABELS} is the most", labels.len()),
        ));
    }
    let labels: Labels = labels.into_iter().collect();
    for (key, value) in &labels {
        if key.is_empty() {
            return Err(error("labels", key, "a key must not be empty"));
        }
        for (what, text, limit) in [("key", key, LABEL_KEY_BYTES), ("value", value, LABEL_VALUE_BYTES)] {
            if text.len() > limit {
                return Err(error(
                    "labels",
                    text,
                    format!("a {what} has {} bytes, {limit} is the most", text.len()),
                ));
            }
            if let Some(c) = text.chars().find(|c| c.is_control()) {
                return Err(error(
                    "labels",
                    text,
                    format!("a {what} has the control character {c:?}"),
                ));
            }
        }
    }
    Ok(labels)
}
