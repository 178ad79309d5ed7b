//! The result of an ADD, in the shape of the version that was asked for, behind that of the plugins before.

use crate::call::Call;
use crate::version::Version;
use client::network::{Attached, Dns};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// `RT_SCOPE_LINK`, linux/rtnetlink.h.
const SCOPE_LINK: u8 = 253;

/// What the runtime and the plugins behind are told.
pub(crate) fn result(call: &Call, version: Version, attached: &Attached) -> Value {
    let none = Map::new();
    let before = call.config.prev_result().unwrap_or(&none);
    let list = |key: &str| {
        before
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut interfaces = list("interfaces");
    // Addresses name their interface by its place.
    let inside = interfaces.len() + 1;
    interfaces.push(interface(
        &attached.host_link,
        &attached.host_mac.to_string(),
        attached,
        version,
    ));
    let mut own = interface(
        &call.attachment.if_name,
        &attached.mac.to_string(),
        attached,
        version,
    );
    own["sandbox"] = json!(call.attachment.netns);
    interfaces.push(own);
    let mut ips = list("ips");
    ips.extend(attached.addresses.iter().map(|(address, gateway)| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut ip = json!({
            "interface": inside, "address": format!("{address}/{length}"), "gateway": gateway.to_string(),
        });
        if version < Version::HAS_PLAIN_ADDRESSES {
            ip["version"] = json!(family(address));
        }
        ip
    }));
    let mut routes = list("routes");
    routes.extend(attached.routes.iter().map(|route| {
        let mut shown = json!({ "dst": route.to_string() });
        match route.gateway {
            Some(gateway) => shown["gw"] = json!(gateway.to_string()),
            None if version >= Version::HAS_STATUS => shown["scope"] = json!(SCOPE_LINK),
            None => {}
        }
        shown
    }));
    let mut result = before.clone();
    result.insert("cniVersion".to_owned(), json!(version.as_str()));
    result.insert("interfaces".to_owned(), Value::Array(interfaces));
    result.insert("ips".to_owned(), Value::Array(ips));
    result.insert("routes".to_owned(), Value::Array(routes));
    let dns = match dns(&attached.dns) {
        own if own.is_empty() => before.get("dns").cloned().unwrap_or_else(|| json!({})),
        own => Value::Object(own),
    };
    result.insert("dns".to_owned(), dns);
    Value::Object(result)
}

fn interface(name: &str, mac: &str, attached: &Attached, version: Version) -> Value {
    let mut shown = json!({ "name": name, "mac": mac });
    if version >= Version::HAS_STATUS {
        shown["mtu"] = json!(attached.mtu);
    }
    shown
}

fn family(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "4",
        IpAddr::V6(_) => "6",
    }
}

fn dns(dns: &Dns) -> Map<String, Value> {
    let mut shown = Map::new();
    for (name, list) in [
        ("nameservers", &dns.nameservers),
        ("search", &dns.search),
        ("options", &dns.options),
    ] {
        if !list.is_empty() {
            shown.insert(name.to_owned(), json!(list));
        }
    }
    if !dns.domain.is_empty() {
        shown.insert("domain".to_owned(), json!(dns.domain));
    }
    shown
}
