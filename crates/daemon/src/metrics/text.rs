//! The metrics as OpenMetrics text. Each one has its line in docs/operating.md, which a test compares.

use super::process;
use crate::desk::Desk;
use crate::desk::figures::{Figures, WAYS};
use crate::tally::{Answers, BOUNDS, Calls, Count, Counters, PutBack, Rounds, Times};
use model::address::Family;
use model::datapath::Datapath;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// `google.rpc.Code`, by number.
const CODES: [&str; crate::tally::CODES] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Everything, as it is now.
pub(super) fn render<D: Datapath>(desk: Arc<Desk<D>>, answers: Arc<Answers>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All { desk, answers }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

struct All<D: Datapath> {
    desk: Arc<Desk<D>>,
    answers: Arc<Answers>,
}

impl<D: Datapath> fmt::Debug for All<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("All")
    }
}

impl<D: Datapath> Collector for All<D> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let (figures, counters) = (self.desk.figures(), self.desk.counters());
        of_process(&mut page, counters)?;
        of_orders(&mut page, &figures, &self.answers, counters)?;
        of_prefixes(&mut page, &figures, counters)?;
        of_kernel(&mut page, &figures, counters)?;
        of_peers(&mut page, &figures, counters)
    }
}

fn of_process(page: &mut Page<'_>, counters: &Counters) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.head(
        "workloadnet_build",
        "The daemon's version",
        None,
        MetricType::Info,
    )?
    .encode_info(&version)?;
    let process = process::look();
    page.gauge_of(
        "process_start_time",
        "When the daemon began, since the Unix epoch",
        Unit::Seconds,
        &process.began,
    )?;
    page.gauge_of(
        "process_resident_memory",
        "Memory of the daemon that is not paged out",
        Unit::Bytes,
        &process.resident,
    )?;
    page.gauge(
        "process_open_fds",
        "File descriptors that the daemon has open",
        &process.descriptors,
    )?;
    let mut head = page.head(
        "workloadnet_confined",
        "1 where the daemon has given up what it does not need after its start",
        None,
        MetricType::Gauge,
    )?;
    let confined = counters.confined();
    for (what, is_confined) in [("calls", confined.calls), ("files", confined.files)] {
        head.encode_family(&[("what", what)])?
            .encode_gauge(&u64::from(is_confined))?;
    }
    Ok(())
}

fn of_orders(page: &mut Page<'_>, figures: &Figures, answers: &Answers, counters: &Counters) -> fmt::Result {
    page.gauge(
        "workloadnet_ready",
        "1 where an attach could succeed now",
        &u64::from(figures.is_ready),
    )?;
    page.gauge(
        "workloadnet_attachments",
        "Workloads that are attached",
        &figures.attachments,
    )?;
    page.calls(
        "workloadnet_attaches",
        "Attaches by their gRPC code",
        &answers.attaches,
    )?;
    page.calls(
        "workloadnet_detaches",
        "Detaches by their gRPC code",
        &answers.detaches,
    )?;
    page.times(
        "workloadnet_attach_duration",
        "From the call to the answer of attaches that succeeded",
        &[(None, &answers.attaches.times)],
    )?;
    page.times(
        "workloadnet_attach_phase_duration",
        "Phases of attaches: until the namespace is open, until nothing else is written, until the kernel has made it or refused",
        &[
            (Some("open"), &counters.attach_opens),
            (Some("wait"), &counters.attach_waits),
            (Some("kernel"), &counters.attach_wires),
        ],
    )?;
    page.times(
        "workloadnet_detach_duration",
        "From the call to the answer of detaches that succeeded",
        &[(None, &answers.detaches.times)],
    )?;
    page.times(
        "workloadnet_detach_phase_duration",
        "Phases of detaches: until a thread takes it, until the kernel announces the link's end",
        &[
            (Some("wait"), &counters.detach_waits),
            (Some("kernel"), &counters.detach_unwires),
        ],
    )?;
    page.gauge("workloadnet_orders", "Orders that run or wait", &figures.orders)?;
    page.gauge(
        "workloadnet_orders_limit",
        "Orders that may run or wait; any more are refused",
        &figures.max_queued,
    )?;
    let mut head = page.head(
        "workloadnet_orders_waiting",
        "Orders that wait, by what for",
        None,
        MetricType::Gauge,
    )?;
    for (what, waiting) in ["turn", "namespace", "writer", "deleter"]
        .iter()
        .zip(figures.waiting)
    {
        head.encode_family(&[("for", *what)])?.encode_gauge(&waiting)?;
    }
    page.gauge_of(
        "workloadnet_link_mtu",
        "MTU of workloads that ask for none",
        Unit::Bytes,
        &u32::from(figures.mtu),
    )
}

fn of_prefixes(page: &mut Page<'_>, figures: &Figures, counters: &Counters) -> fmt::Result {
    let names: Vec<String> = figures.prefixes.iter().map(|p| p.prefix.to_string()).collect();
    let all = || names.iter().zip(&figures.prefixes);
    let mut head = page.head(
        "workloadnet_prefix_addresses",
        "Addresses of a prefix by their state",
        None,
        MetricType::Gauge,
    )?;
    for (name, prefix) in all() {
        for (state, count) in [
            ("used", prefix.used),
            ("cooling", prefix.cooling),
            ("free", prefix.free),
        ] {
            head.encode_family(&[("prefix", name.as_str()), ("state", state)])?
                .encode_gauge(&(count as f64))?;
        }
    }
    let mut head = page.head(
        "workloadnet_prefix_capacity",
        "Addresses that a prefix has for workloads",
        None,
        MetricType::Gauge,
    )?;
    for (name, prefix) in all() {
        head.encode_family(&[("prefix", name.as_str())])?
            .encode_gauge(&(prefix.capacity as f64))?;
    }
    let mut head = page.head(
        "workloadnet_prefix_draining",
        "1 where a prefix gives out nothing more",
        None,
        MetricType::Gauge,
    )?;
    for (name, prefix) in all() {
        head.encode_family(&[("prefix", name.as_str())])?
            .encode_gauge(&u64::from(prefix.draining))?;
    }
    page.gauge(
        "workloadnet_source_generation",
        "How often the source has changed the prefixes",
        &figures.generation,
    )?;
    page.gauge_of(
        "workloadnet_source_last_good_timestamp",
        "When the source last told prefixes that can be served, since the Unix epoch; 0: not since the daemon began",
        Unit::Seconds,
        &figures.told.map_or(0.0, seconds),
    )?;
    page.gauge(
        "workloadnet_source_stale",
        "1 where the source has told nothing good since it last failed, or since the daemon began",
        &u64::from(figures.is_stale),
    )?;
    page.counter(
        "workloadnet_source_failures",
        "How often the source told nothing, or nothing that can be served",
        &counters.source_failures,
    )
}

fn of_kernel(page: &mut Page<'_>, figures: &Figures, counters: &Counters) -> fmt::Result {
    let mut sent = page.head(
        "workloadnet_netlink_messages",
        "Messages to the kernel",
        None,
        MetricType::Counter,
    )?;
    count(&mut sent, figures.messages)?;
    page.rounds(
        "workloadnet_sweeps",
        "Looks at all that the kernel holds of ours",
        &counters.sweeps,
    )?;
    let mut head = page.head(
        "workloadnet_put_backs",
        "What others had taken away or changed, by kind",
        None,
        MetricType::Counter,
    )?;
    for kind in PutBack::ALL {
        count(
            &mut head.encode_family(&[("what", kind.name())])?,
            counters.put_back_so_far(kind),
        )?;
    }
    page.counter(
        "workloadnet_pruned_links",
        "Half-made links that were taken away",
        &counters.pruned,
    )?;
    let mut head = page.head(
        "workloadnet_kernel_faults",
        "What the kernel refused and should not have, by errno(3); 0: no answer, or one that makes no sense",
        None,
        MetricType::Counter,
    )?;
    for (errno, times) in counters.faults() {
        count(&mut head.encode_family(&[("errno", errno)])?, times)?;
    }
    page.counter(
        "workloadnet_notifications_lost",
        "How often the kernel could not tell what happened, because too much did",
        &counters.lost,
    )
}

fn of_peers(page: &mut Page<'_>, figures: &Figures, counters: &Counters) -> fmt::Result {
    page.gauge("workloadnet_peers", "Other nodes that are known", &figures.peers)?;
    page.gauge(
        "workloadnet_peers_stale",
        "1 where Kubernetes cannot be asked for the other nodes",
        &u64::from(figures.peers_stale),
    )?;
    let mut dropped = page.head(
        "workloadnet_kubernetes_events_dropped",
        "Events that were not written to Kubernetes",
        None,
        MetricType::Counter,
    )?;
    count(&mut dropped, counters.events_dropped())?;
    let mut head = page.head(
        "workloadnet_peer_routes",
        "Peers by family and the way that their workloads are reached",
        None,
        MetricType::Gauge,
    )?;
    for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        for (way, peers) in WAYS.into_iter().zip(figures.ways(family)) {
            head.encode_family(&[("family", name), ("way", way)])?
                .encode_gauge(&peers)?;
        }
    }
    page.rounds(
        "workloadnet_routings",
        "Comparisons of the routes to other nodes with what they are to be",
        &counters.routings,
    )?;
    page.counter(
        "workloadnet_routing_steps",
        "Single changes of routes to other nodes and of what belongs to them",
        &counters.routing_steps,
    )?;
    page.times(
        "workloadnet_routing_duration",
        "How long those comparisons took",
        &[(None, &counters.routing_times)],
    )
}

fn seconds(moment: SystemTime) -> f64 {
    moment
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn count(place: &mut MetricEncoder<'_>, times: u64) -> fmt::Result {
    place.encode_counter::<NoLabelSet, _, u64>(&times, None)
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn head<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.head(name, help, None, MetricType::Gauge)?
            .encode_gauge(value)
    }

    fn gauge_of(&mut self, name: &str, help: &str, unit: Unit, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.head(name, help, Some(&unit), MetricType::Gauge)?
            .encode_gauge(value)
    }

    fn counter(&mut self, name: &str, help: &str, times: &Count) -> fmt::Result {
        count(
            &mut self.head(name, help, None, MetricType::Counter)?,
            times.so_far(),
        )
    }

    /// Every code is there from the beginning: a rate needs a value to begin with.
    fn calls(&mut self, name: &str, help: &str, calls: &Calls) -> fmt::Result {
        let mut head = self.head(name, help, None, MetricType::Counter)?;
        for (code, times) in CODES.iter().zip(&calls.codes) {
            count(&mut head.encode_family(&[("code", *code)])?, times.so_far())?;
        }
        Ok(())
    }

    fn rounds(&mut self, name: &str, help: &str, rounds: &Rounds) -> fmt::Result {
        let mut head = self.head(name, help, None, MetricType::Counter)?;
        for (outcome, times) in [("good", &rounds.good), ("faulty", &rounds.faulty)] {
            count(&mut head.encode_family(&[("outcome", outcome)])?, times.so_far())?;
        }
        Ok(())
    }

    /// Each with its phase, where there are several.
    fn times(&mut self, name: &str, help: &str, all: &[(Option<&str>, &Times)]) -> fmt::Result {
        let mut head = self.head(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (phase, times) in all {
            let counts = times.buckets();
            // The last bound is written as +Inf.
            let bounds = BOUNDS
                .iter()
                .map(|micros| *micros as f64 / 1e6)
                .chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let total = counts.iter().sum();
            let seconds = times.seconds();
            match phase {
                Some(phase) => head
                    .encode_family(&[("phase", *phase)])?
                    .encode_histogram::<NoLabelSet>(seconds, total, &buckets, None)?,
                None => head.encode_histogram::<NoLabelSet>(seconds, total, &buckets, None)?,
            }
        }
        Ok(())
    }
}
