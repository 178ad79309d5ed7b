//! One who calls: carries out operations one after the other, by gRPC and by the plugin, and writes down what came of them.

mod plugin;

use crate::daemon::{Daemon, locked};
use crate::history::{Answer, Attached, Call, Refused};
use crate::plan::{Act, Ask, FIRST_OF_PLUGIN, KEYS, Operation, World, Wrong};
use crate::room::Room;
use crate::steady::OWNER;
use anyhow::Result;
use client::workload::{AttachRequest, Bandwidth, DetachRequest, NetNsAttachment, PortMapping};
use client::{Client, Deadlines, Error, inspection};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::runtime::Runtime;

/// The link inside, in every namespace.
pub const INTERFACE: &str = "eth0";

/// What all callers share.
#[derive(Debug)]
pub struct Office {
    /// The node.
    pub room: Arc<Room>,
    /// The daemon.
    pub daemon: Arc<Daemon>,
    /// The plugin's program.
    pub plugin: PathBuf,
    /// The node's settings.
    pub world: World,
    /// How many operations of the round have begun.
    pub begun: AtomicUsize,
    /// Keys by the names of their links, as far as they are known.
    pub links: Mutex<BTreeMap<String, usize>>,
    /// The results of ADD, for CHECK.
    results: Mutex<HashMap<usize, Value>>,
    /// A runtime calls a plugin for a container one after the other, and GC alone (CNI specification, section 2).
    turns: Vec<Mutex<()>>,
    collecting: RwLock<()>,
    /// What came of the round's calls.
    calls: Mutex<Vec<Call>>,
}

impl Office {
    /// With nothing called yet.
    pub fn new(room: Arc<Room>, daemon: Arc<Daemon>, plugin: PathBuf, world: World) -> Self {
        Self {
            room,
            daemon,
            plugin,
            world,
            begun: AtomicUsize::new(0),
            links: Mutex::default(),
            results: Mutex::default(),
            turns: (0..KEYS).map(|_| Mutex::default()).collect(),
            collecting: RwLock::default(),
            calls: Mutex::default(),
        }
    }

    /// Waits until a call may be made.
    fn turn(&self, act: &Act) -> Turn<'_> {
        let reading = || self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        match act {
            Act::Attach { key, .. }
            | Act::AttachWrongly { key, .. }
            | Act::Detach { key, .. }
            | Act::PluginCheck { key }
                if *key >= FIRST_OF_PLUGIN =>
            {
                Turn::Of(reading(), locked(&self.turns[*key]))
            }
            Act::Collect { .. } => {
                Turn::Alone(self.collecting.write().unwrap_or_else(PoisonError::into_inner))
            }
            _ => Turn::Free,
        }
    }

    /// What was called since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        self.begun.store(0, Ordering::Relaxed);
        std::mem::take(&mut *locked(&self.calls))
    }

    /// Writes down a call that was made by somebody else.
    pub fn note(&self, call: Call) {
        locked(&self.calls).push(call);
    }
}

/// For as long as it lives, nobody else makes a call that excludes this one.
#[expect(dead_code, reason = "the guards are held, and not looked at")]
enum Turn<'a> {
    Free,
    Of(RwLockReadGuard<'a, ()>, MutexGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

/// Owner and id of a key.
pub fn name_of(key: usize) -> (&'static str, String) {
    let owner = if key < FIRST_OF_PLUGIN { "grpc" } else { "plugin" };
    (owner, format!("workload-{key}"))
}

/// The number of a key, where it is one of ours.
pub fn number_of(owner: &str, id: &str) -> Option<usize> {
    let number = id.strip_prefix("workload-")?.parse().ok()?;
    (number < KEYS && name_of(number).0 == owner).then_some(number)
}

/// One thread's means.
#[derive(Debug)]
pub struct Caller {
    number: usize,
    office: Arc<Office>,
    runtime: Runtime,
    client: Client,
}

impl Caller {
    /// With a connection of its own.
    pub fn new(number: usize, office: Arc<Office>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(async { Client::new(office.room.socket()) })?;
        Ok(Self {
            number,
            office,
            runtime,
            client,
        })
    }

    /// Takes operations, until none is left.
    pub fn work(&self, operations: &[Operation]) {
        loop {
            let number = self.office.begun.fetch_add(1, Ordering::Relaxed);
            let Some(operation) = operations.get(number) else {
                return;
            };
            self.call(number, operation);
        }
    }

    /// Carries one out, and writes it down.
    pub fn call(&self, number: usize, operation: &Operation) -> Answer {
        let room = &self.office.room;
        let _turn = self.office.turn(&operation.act);
        let begin = room.now();
        let answer = match is_of_plugin(&operation.act) {
            true => plugin::call(&self.office, operation),
            false => self.by_grpc(operation),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Strange(format!("{error:#}")));
        let end = room.now();
        if let (Act::Attach { key, .. }, Answer::Attached(attached)) = (&operation.act, &answer) {
            locked(&self.office.links).insert(attached.link.clone(), *key);
        }
        self.office.note(Call {
            number,
            caller: self.number,
            begin,
            end,
            operation: operation.clone(),
            answer: answer.clone(),
        });
        answer
    }

    fn by_grpc(&self, operation: &Operation) -> Result<Answer> {
        let deadline = Duration::from_millis(operation.deadline);
        let client = self.client.clone().with_deadlines(Deadlines {
            orders: deadline,
            questions: deadline,
        });
        let client = client.with_patience(Duration::from_millis(operation.patience));
        let asked = self.ask(&client, &operation.act);
        self.runtime.block_on(async {
            let Some(after) = operation.hangs_up else {
                return asked.await;
            };
            let hangs_up = tokio::time::timeout(Duration::from_micros(after), asked).await;
            hangs_up.unwrap_or_else(|_| Ok(Answer::Unknown("the caller hung up".to_owned())))
        })
    }

    async fn ask(&self, client: &Client, act: &Act) -> Result<Answer> {
        let room = &self.office.room;
        Ok(match act {
            Act::Attach { key, slot, ask } => {
                let path = room.path(*slot).display().to_string();
                let attached = client.attach(attach(*key, path, *ask)).await;
                of(attached, |answer| Answer::Attached(attached_by(&answer)))
            }
            Act::AttachWrongly { key, wrong } => {
                let request = wrongly(room, *key, *wrong);
                of(client.attach(request).await, |answer| {
                    Answer::Attached(attached_by(&answer))
                })
            }
            Act::Detach { key, slot } => {
                let (owner, workload_id) = name_of(*key);
                let netns_path = slot.map(|slot| room.path(slot).display().to_string());
                let request = DetachRequest {
                    workload_id,
                    owner: owner.to_owned(),
                    netns: Some(NetNsAttachment {
                        netns_path: netns_path.unwrap_or_default(),
                        if_name: INTERFACE.to_owned(),
                    }),
                };
                of(client.detach(request).await, |()| Answer::Done)
            }
            Act::Status { .. } => of(client.status().await, |()| Answer::Done),
            Act::List => of(client.list(None).await, |all| listed(&all)),
            Act::Get { key } => {
                let found = client.get(key_of(*key)).await;
                of(found, |found| listed(found.as_slice()))
            }
            Act::Node => of(client.node().await, |_| Answer::Done),
            Act::Check { key } => {
                let findings = client.check(key.map(key_of)).await;
                of(findings, |all| {
                    Answer::Findings(all.into_iter().map(|finding| finding.text).collect())
                })
            }
            Act::SetPrefixes { list } => {
                self.office.daemon.tell(*list);
                let prefixes = self.office.world.lists[*list].clone();
                of(client.set_prefixes(prefixes).await, |_| Answer::Done)
            }
            Act::PluginCheck { .. } | Act::Collect { .. } => unreachable!("the plugin's"),
        })
    }

    /// Asks for what the checks after a round need, with all patience.
    pub fn question<T>(&self, ask: impl AsyncFnOnce(&Client) -> T) -> T {
        let patience = Duration::from_secs(10);
        let client = self
            .client
            .clone()
            .with_patience(patience)
            .with_deadlines(Deadlines {
                orders: patience,
                questions: patience,
            });
        self.runtime.block_on(ask(&client))
    }
}

fn is_of_plugin(act: &Act) -> bool {
    match act {
        Act::Attach { key, .. } | Act::AttachWrongly { key, .. } | Act::Detach { key, .. } => {
            *key >= FIRST_OF_PLUGIN
        }
        Act::Status { by_plugin } => *by_plugin,
        Act::PluginCheck { .. } | Act::Collect { .. } => true,
        Act::List | Act::Get { .. } | Act::Node | Act::Check { .. } | Act::SetPrefixes { .. } => false,
    }
}

/// The address that an ask is for.
pub fn address(ask: Ask) -> Option<IpAddr> {
    ask.v4.map(|byte| IpAddr::from([10, 77, 0, byte]))
}

fn attach(key: usize, netns_path: String, ask: Ask) -> AttachRequest {
    let (owner, workload_id) = name_of(key);
    let port = |port: u16| PortMapping {
        host_port: port.into(),
        container_port: 80,
        ..PortMapping::default()
    };
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    AttachRequest {
        workload_id,
        netns: Some(NetNsAttachment {
            netns_path,
            if_name: INTERFACE.to_owned(),
        }),
        owner: owner.to_owned(),
        mtu: ask.mtu,
        labels: [("key".to_owned(), key.to_string())].into(),
        requested_ip: address(ask).map(octets).into_iter().collect(),
        port_mapping: ask.port.map(port).into_iter().collect(),
        ..AttachRequest::default()
    }
}

fn wrongly(room: &Room, key: usize, wrong: Wrong) -> AttachRequest {
    let usual = attach(key, room.path(key).display().to_string(), Ask::default());
    let at = |netns_path: String| {
        Some(NetNsAttachment {
            netns_path,
            if_name: INTERFACE.to_owned(),
        })
    };
    match wrong {
        Wrong::NoNamespace => AttachRequest {
            netns: at(room.path(999).display().to_string()),
            ..usual
        },
        Wrong::NotANamespace => AttachRequest {
            netns: at("/proc".to_owned()),
            ..usual
        },
        // To the daemon, this is itself.
        Wrong::Forbidden => AttachRequest {
            netns: at("/proc/self/ns/net".to_owned()),
            ..usual
        },
        Wrong::Interface => AttachRequest {
            netns: Some(NetNsAttachment {
                netns_path: room.path(key).display().to_string(),
                if_name: "a/b".to_owned(),
            }),
            ..usual
        },
        Wrong::Outside => AttachRequest {
            requested_ip: vec![vec![172, 16, 0, 1]],
            ..usual
        },
        Wrong::Bytes => AttachRequest {
            requested_ip: vec![vec![10, 77, 0, 1, 9]],
            ..usual
        },
        Wrong::Mtu => AttachRequest { mtu: 100, ..usual },
        Wrong::Port => AttachRequest {
            port_mapping: vec![PortMapping {
                host_port: 70_000,
                container_port: 80,
                ..PortMapping::default()
            }],
            ..usual
        },
        Wrong::Unsupported => AttachRequest {
            bandwidth: Some(Bandwidth {
                ingress_rate: 1000,
                ..Bandwidth::default()
            }),
            ..usual
        },
    }
}

fn key_of(key: usize) -> inspection::Key {
    let (owner, workload_id) = name_of(key);
    inspection::Key {
        owner: owner.to_owned(),
        workload_id,
        if_name: INTERFACE.to_owned(),
    }
}

fn attached_by(answer: &client::workload::AttachResponse) -> Attached {
    let pairs: Vec<String> = answer
        .workload_mac
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Attached {
        addresses: answer.ip.iter().filter_map(|bytes| address_of(bytes)).collect(),
        link: answer.host_link.clone(),
        mac: pairs.join(":"),
        inode: answer.namespace.as_ref().map(|namespace| namespace.inode),
        is_leaving: false,
    }
}

/// An address as the contract sends it.
pub fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => Some(v4.into()),
        Err(_) => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Attachments as List and Get show them.
pub fn listed(all: &[inspection::Attachment]) -> Answer {
    let mut listed = Vec::new();
    for one in all {
        let key = one.key.clone().unwrap_or_default();
        if key.owner == OWNER {
            continue;
        }
        let Some(number) = number_of(&key.owner, &key.workload_id) else {
            return Answer::Strange(format!("nobody has attached {one:?}"));
        };
        let attached = Attached {
            addresses: one.ip.iter().filter_map(|text| text.parse().ok()).collect(),
            link: one.host_link.clone(),
            mac: one.workload_mac.to_lowercase(),
            inode: Some(one.namespace_inode),
            is_leaving: one.state() == inspection::attachment::State::Detaching,
        };
        listed.push((number, attached));
    }
    Answer::Listed(listed)
}

fn of<T>(outcome: Result<T, Error>, good: impl FnOnce(T) -> Answer) -> Answer {
    match outcome {
        Ok(answer) => good(answer),
        Err(Error::Refused(no)) => Answer::Refused(Refused {
            code: format!("{:?}", no.code),
            reason: no.reason,
            message: no.message,
        }),
        Err(error @ (Error::Unreachable { .. } | Error::Deadline(_))) => Answer::Unknown(error.to_string()),
        Err(error) => Answer::Strange(format!("{error:?}")),
    }
}
