//! What a runtime asks for beside a link: the conventions' capabilities in `runtimeConfig`, `args.cni`, and `CNI_ARGS`.
//!
//! containerd sends keys as Go names them, with capitals, and podman as the conventions write them; so case does not count.

use crate::args::{Args, address};
use crate::call::Call;
use crate::config::is_nothing;
use crate::failure::Failure;
use client::network::{Bandwidth, Dns, HostPort, Options, Protocol};
use serde_json::{Map, Value};

/// Everything that a call asks for. What nobody can act on is refused by name.
pub(crate) fn options(call: &Call) -> Result<Options, Failure> {
    let json = &call.config.json;
    let mut options = Options::default().mtu(call.config.mtu).dns(dns(json)?);
    let none = Map::new();
    if let Some(args) = json.get("args").and_then(|args| args.get("cni")) {
        options = of_network(args.as_object().unwrap_or(&none), options)?;
    }
    let args = Args::read(&call.args)?;
    let asked = match json.get("runtimeConfig") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(asked)) => asked,
        Some(value) => return Err(Failure::config("runtimeConfig", value, "is not an object")),
    };
    for (key, value) in asked.iter().filter(|(_, value)| !is_nothing(value)) {
        options = one(&key.to_ascii_lowercase(), key, value, options, &call.config.name)?;
    }
    let mac = field(asked, "mac").filter(|mac| !is_nothing(mac));
    if let (Some(mac), Some(other)) = (mac.and_then(Value::as_str), args.mac)
        && mac.parse() != Ok(other)
    {
        let why = format!("CNI_ARGS ask for {other}");
        return Err(Failure::config("runtimeConfig.mac", &mac.into(), &why));
    }
    Ok(args.put_into(options))
}

/// One capability, by its name in lower case.
fn one(name: &str, key: &str, value: &Value, options: Options, network: &str) -> Result<Options, Failure> {
    let shown = format!("runtimeConfig.{key}");
    let wrong = |why: &str| Failure::config(&shown, value, why);
    Ok(match name {
        "portmappings" => {
            let all = value.as_array().ok_or_else(|| wrong("is not a list"))?;
            let mut options = options;
            for port in all {
                options = options.host_port(host_port(&shown, port)?);
            }
            options
        }
        "bandwidth" => options.bandwidth(bandwidth(&shown, value)?),
        "ips" => {
            let mut options = options;
            for text in texts(value).ok_or_else(|| wrong("is not a list of texts"))? {
                options = options.address(address(&text).ok_or_else(|| wrong("has what is not an address"))?);
            }
            options
        }
        "mac" => {
            let mac = value.as_str().and_then(|text| text.parse().ok());
            options.mac(mac.ok_or_else(|| wrong("is not a MAC"))?)
        }
        // podman: a list for each network.
        "aliases" => {
            let list = value.get(network).unwrap_or(value);
            let names = match list.is_object() {
                true => Vec::new(),
                false => texts(list).ok_or_else(|| wrong("is not a list of texts"))?,
            };
            names.into_iter().fold(options, Options::alias)
        }
        "dns" => options,
        // They ask for nothing by themselves.
        "cgrouppath" => options.cgroup_path(value.as_str().ok_or_else(|| wrong("is not a text"))?),
        "io.kubernetes.cri.pod-annotations" => options,
        _ => return Err(Failure::unsupported(&shown, value, "this plugin cannot do that")),
    })
}

fn host_port(shown: &str, value: &Value) -> Result<HostPort, Failure> {
    let wrong = |why: &str| Failure::config(shown, value, why);
    let object = value.as_object().ok_or_else(|| wrong("is not an object"))?;
    let port = |name: &str| {
        let port = field(object, name).and_then(Value::as_u64);
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0);
        port.ok_or_else(|| wrong(&format!("{name} is not 1 to 65535")))
    };
    let text = |name: &str| match field(object, name) {
        None => Ok(""),
        Some(value) => value
            .as_str()
            .ok_or_else(|| wrong(&format!("{name} is not a text"))),
    };
    Ok(HostPort {
        host_port: port("hostPort")?,
        container_port: port("containerPort")?,
        protocol: match text("protocol")?.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(wrong("protocol is none of tcp, udp and sctp")),
        },
        host_ip: match text("hostIP")? {
            "" => None,
            ip => Some(ip.parse().map_err(|_| wrong("hostIP is not an address"))?),
        },
    })
}

fn bandwidth(shown: &str, value: &Value) -> Result<Bandwidth, Failure> {
    let object = value.as_object();
    let object = object.ok_or_else(|| Failure::config(shown, value, "is not an object"))?;
    let number = |name: &str| match field(object, name) {
        None => Ok(0),
        Some(number) => number
            .as_u64()
            .ok_or_else(|| Failure::config(shown, value, &format!("{name} is not a number of bits"))),
    };
    Ok(Bandwidth {
        ingress_rate: number("ingressRate")?,
        ingress_burst: number("ingressBurst")?,
        egress_rate: number("egressRate")?,
        egress_burst: number("egressBurst")?,
    })
}

/// `args.cni`: labels and addresses, which the network's author or the runtime puts in. Other keys are others' (conventions).
fn of_network(args: &Map<String, Value>, mut options: Options) -> Result<Options, Failure> {
    if let Some(labels) = field(args, "labels") {
        let wrong = || Failure::config("args.cni.labels", labels, "is not a list of key and value");
        for label in labels.as_array().ok_or_else(wrong)? {
            let part = |name| label.get(name).and_then(Value::as_str);
            let (key, value) = part("key").zip(part("value")).ok_or_else(wrong)?;
            options = options.label(key, value);
        }
    }
    if let Some(ips) = field(args, "ips") {
        let wrong = || Failure::config("args.cni.ips", ips, "is not a list of addresses");
        for text in texts(ips).ok_or_else(wrong)? {
            options = options.address(address(&text).ok_or_else(wrong)?);
        }
    }
    Ok(options)
}

/// How to resolve names: the runtime's word, else the network's. It comes back with the result.
fn dns(json: &Map<String, Value>) -> Result<Dns, Failure> {
    let asked = json
        .get("runtimeConfig")
        .and_then(Value::as_object)
        .and_then(|asked| field(asked, "dns"));
    let (shown, value) = match (asked.filter(|value| !is_nothing(value)), json.get("dns")) {
        (Some(value), _) => ("runtimeConfig.dns", value),
        (None, Some(value)) if !is_nothing(value) => ("dns", value),
        _ => return Ok(Dns::default()),
    };
    let wrong = |name: &str| Failure::config(shown, value, &format!("{name} is not as the conventions say"));
    let object = value.as_object().ok_or_else(|| wrong("dns"))?;
    let list = |names: [&str; 2]| match names.iter().find_map(|name| field(object, name)) {
        None => Ok(Vec::new()),
        Some(value) => texts(value).ok_or_else(|| wrong(names[0])),
    };
    Ok(Dns {
        nameservers: list(["nameservers", "servers"])?,
        domain: match field(object, "domain") {
            None => String::new(),
            Some(value) => value.as_str().ok_or_else(|| wrong("domain"))?.to_owned(),
        },
        search: list(["search", "searches"])?,
        options: list(["options", "options"])?,
    })
}

/// A field, whatever the case of its name's letters; `None` where it is null.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let any_case = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    let found = object.get(name).or_else(|| any_case().map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let all = value.as_array()?.iter();
    all.map(|text| text.as_str().map(str::to_owned)).collect()
}
