//! Any sequence of orders and accidents, against a small reference model.

use crate::fake::{Failure, Fake, World};
use crate::orders::{detach, give, open_with, order_with, settings};
use daemon::desk::order::{Attachment, Detached, PrefixUse, Refusal};
use daemon::desk::{Desk, Settings};
use model::address::{Addresses, Family};
use model::ipam::Moment;
use model::prefix::Prefix;
use proptest::prelude::*;
use stage::wait::{PATIENCE, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// What a node may be told to serve, one after the other. The /30 has room for one.
/// Each workload has the port of the node at this number and its own.
const PORT: u16 = 8000;

const PREFIXES: [&[&str]; 6] = [
    &["10.9.0.0/28", "fd09::/64"],
    &["10.9.1.0/30", "fd09::/64"],
    &["10.9.1.0/30", "10.9.2.0/28"],
    &["fd09:1::/64"],
    &["fd09:1::/126", "10.9.0.0/28", "fd09::/64"],
    &[],
];

#[derive(Debug, Clone)]
enum Step {
    Attach {
        id: u8,
        namespace: u8,
        label: u8,
    },
    Detach {
        id: u8,
        namespace: Option<u8>,
    },
    Fail {
        id: u8,
        namespace: u8,
        step: u32,
    },
    Serve(usize),
    /// In order, and begun again.
    Restart,
    Crash(File),
    Vanish {
        namespace: u8,
    },
}

/// What a crash leaves of the state file.
#[derive(Debug, Clone, Copy)]
enum File {
    AsItWas,
    Torn,
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let (id, namespace, label) = (|| 0..6_u8, || 0..6_u8, 0..3_u8);
    let file = prop_oneof![Just(File::AsItWas), Just(File::Torn), Just(File::Lost)];
    prop_oneof![
        10 => (id(), namespace(), label)
            .prop_map(|(id, namespace, label)| Step::Attach { id, namespace, label }),
        6 => (id(), proptest::option::of(namespace())).prop_map(|(id, namespace)| Step::Detach { id, namespace }),
        2 => (id(), namespace(), 1..30_u32).prop_map(|(id, namespace, step)| Step::Fail { id, namespace, step }),
        3 => (0..PREFIXES.len()).prop_map(Step::Serve),
        1 => Just(Step::Restart),
        1 => file.prop_map(Step::Crash),
        2 => namespace().prop_map(|namespace| Step::Vanish { namespace }),
    ]
}

/// An attachment as the reference knows it.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    namespace: u8,
    addresses: Addresses,
    label: u8,
}

/// The desk under test with its world, and what there should be.
struct Run {
    world: World,
    desk: Arc<Desk<Fake>>,
    folder: TempDir,
    /// Each desk has a file of its own: one that crashed cannot write any more.
    files: u32,
    serving: Vec<Prefix>,
    /// How often that has changed, as far as the state file goes back.
    generation: u64,
    reference: BTreeMap<u8, Known>,
    /// Labels that an id ever had.
    labels: BTreeMap<u8, BTreeSet<u8>>,
}

fn prefixes(n: usize) -> Vec<Prefix> {
    PREFIXES[n].iter().map(|text| text.parse().unwrap()).collect()
}

impl Run {
    fn new() -> Self {
        let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
        let serving = prefixes(0);
        let desk = Self::open(&world, &folder, 0, &serving);
        Self {
            world,
            desk,
            folder,
            files: 0,
            serving,
            generation: 1,
            reference: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    fn file(folder: &TempDir, n: u32) -> std::path::PathBuf {
        folder.path().join(format!("{n}.json"))
    }

    fn open(world: &World, folder: &TempDir, file: u32, serving: &[Prefix]) -> Arc<Desk<Fake>> {
        let settings = Settings {
            prefixes: serving.to_vec(),
            state_file: Some(Self::file(folder, file)),
            ..settings()
        };
        open_with(world, settings)
    }

    /// The next desk, with what is left of the last one's file.
    fn reopen(&mut self, file: File) {
        self.world.forget_the_daemon();
        let last = std::fs::read(Self::file(&self.folder, self.files));
        self.files += 1;
        let next = Self::file(&self.folder, self.files);
        match (last, file) {
            (Ok(bytes), File::AsItWas) => std::fs::write(next, bytes).unwrap(),
            (Ok(bytes), File::Torn) => std::fs::write(next, &bytes[..bytes.len() / 2]).unwrap(),
            (_, File::Lost) | (Err(_), _) => {}
        }
        if !matches!(file, File::AsItWas) {
            self.generation = 1;
        }
        self.desk = Self::open(&self.world, &self.folder, self.files, &self.serving);
    }

    fn serving_of(&self, family: Family) -> impl Iterator<Item = &Prefix> {
        self.serving
            .iter()
            .filter(move |prefix| prefix.family() == family)
    }

    fn held_in(&self, prefix: &Prefix) -> u128 {
        let addresses = self.reference.values().flat_map(|known| known.addresses.iter());
        addresses.filter(|address| prefix.contains(*address)).count() as u128
    }

    fn is_full(&self, prefix: &Prefix) -> bool {
        let (first, last) = prefix.usable();
        self.held_in(prefix) == last - first + 1
    }

    /// Whether an attach could get an address of each family that is served.
    fn has_room(&self) -> bool {
        Family::ALL.into_iter().all(|family| {
            self.serving_of(family).next().is_none()
                || self.serving_of(family).any(|prefix| !self.is_full(prefix))
        })
    }

    /// Addresses of each family that is served, out of what is served, and nobody else's.
    fn is_right(&self, given: Addresses) -> bool {
        let is_free = |address| {
            self.reference
                .values()
                .all(|k| k.addresses.iter().all(|other| other != address))
        };
        Family::ALL.into_iter().all(|family| match given.of(family) {
            None => self.serving_of(family).next().is_none(),
            Some(address) => {
                is_free(address)
                    && self
                        .serving_of(family)
                        .any(|prefix| prefix.contains(address) && prefix.reserved(address).is_none())
            }
        })
    }

    fn attach(&mut self, id: u8, namespace: u8, label: u8, fails: bool) -> Result<(), TestCaseError> {
        let port = PORT + u16::from(id);
        let mut order = order_with(&format!("w{id}"), &format!("/n/{namespace}"), &[port]);
        if label > 0 {
            order.labels.insert("label".to_owned(), label.to_string());
        }
        let is_taken = self
            .reference
            .iter()
            .any(|(other, k)| *other != id && k.namespace == namespace);
        let known = self.reference.get(&id).cloned();
        match (give(&self.desk, order).outcome(), known) {
            (Ok(attached), Some(known)) => {
                prop_assert_eq!(
                    (known.namespace, known.addresses),
                    (namespace, attached.addresses())
                );
            }
            (Ok(attached), None) => {
                prop_assert!(!is_taken, "eth0 is inside already");
                prop_assert!(self.is_right(attached.addresses()), "{}", attached.addresses());
                prop_assert_eq!(attached.namespace().inode, u64::from(namespace));
            }
            (Err(Refusal::Different { .. }), Some(known)) => {
                prop_assert_ne!(known.namespace, namespace);
                return Ok(());
            }
            (Err(Refusal::NotReady(_)), None) => {
                prop_assert!(self.serving.is_empty(), "refused for no reason");
                return Ok(());
            }
            (Err(Refusal::Exhausted(_)), None) => {
                prop_assert!(!self.has_room(), "refused for no reason");
                return Ok(());
            }
            (Err(Refusal::Wire(_)), None) => {
                prop_assert!(is_taken || fails, "refused for no reason");
                return Ok(());
            }
            (Err(other), _) => return Err(TestCaseError::fail(other.to_string())),
        }
        let attached = self.desk.list(None).unwrap();
        let addresses = attached
            .iter()
            .find(|a| id_of(a) == id)
            .map(Attachment::addresses);
        let Some(addresses) = addresses else {
            return Err(TestCaseError::fail("answered, and not listed"));
        };
        let known = Known {
            namespace,
            addresses,
            label,
        };
        self.reference.insert(id, known);
        self.labels.entry(id).or_default().insert(label);
        Ok(())
    }

    fn detach(&mut self, id: u8, namespace: Option<u8>) -> Result<(), TestCaseError> {
        let path = namespace.map(|n| format!("/n/{n}"));
        let expected = match (self.reference.get(&id), namespace) {
            (None, _) => Detached::WasAbsent,
            (Some(known), Some(named)) if known.namespace != named => Detached::IsNewer,
            (Some(_), _) => Detached::Done,
        };
        let outcome = detach(&self.desk, &format!("w{id}"), path.as_deref());
        prop_assert_eq!(outcome.unwrap(), expected);
        if expected == Detached::Done {
            self.reference.remove(&id);
        }
        Ok(())
    }

    /// How full each prefix is, and since which generation it serves or drains.
    fn uses(&self) -> Vec<PrefixUse> {
        self.desk.node().prefixes
    }

    /// All that is known of each, but for when it was found.
    fn listed(&self) -> Vec<Attachment> {
        let mut all = self.desk.list(None).unwrap();
        all.iter_mut()
            .for_each(|attachment| attachment.since = Moment(Duration::ZERO));
        all
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        self.desk.stop();
        let (uses, listed) = (self.uses(), self.listed());
        self.reopen(File::AsItWas);
        prop_assert_eq!(self.listed(), listed, "labels among it");
        prop_assert_eq!(self.uses(), uses, "what cools down and what drains among it");
        Ok(())
    }

    /// Labels are a comfort: some that an id had, or none. From here on it is these.
    fn crash(&mut self, file: File) -> Result<(), TestCaseError> {
        self.reopen(file);
        for attachment in self.desk.list(None).unwrap() {
            let (id, label) = (id_of(&attachment), label_of(&attachment));
            let was = self.labels.get(&id).is_some_and(|all| all.contains(&label));
            prop_assert!(label == 0 || was, "{label} was never a label of w{id}");
            if let Some(known) = self.reference.get_mut(&id) {
                known.label = label;
            }
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Attach { id, namespace, label } => self.attach(id, namespace, label, false),
            Step::Fail { id, namespace, step } => {
                self.world.fail(Some(Failure { step, leaves: false }));
                let outcome = self.attach(id, namespace, 0, true);
                self.world.fail(None);
                outcome
            }
            Step::Detach { id, namespace } => self.detach(id, namespace),
            Step::Serve(n) => {
                // An empty list takes nothing away.
                let told = prefixes(n);
                prop_assert_eq!(self.desk.set_prefixes(&told).is_ok(), !told.is_empty());
                if !told.is_empty() {
                    self.generation += u64::from(self.serving != told);
                    self.serving = told;
                }
                Ok(())
            }
            Step::Restart => self.restart(),
            Step::Crash(file) => self.crash(file),
            Step::Vanish { namespace } => {
                self.world.vanish(&format!("/n/{namespace}"));
                self.reference.retain(|_, known| known.namespace != namespace);
                Ok(())
            }
        }
    }

    fn is_as_the_reference_says(&self) -> Result<(), TestCaseError> {
        let listed: BTreeMap<u8, Known> = self
            .desk
            .list(None)
            .unwrap()
            .iter()
            .map(|attachment| {
                let known = Known {
                    namespace: u8::try_from(attachment.namespace().inode).unwrap(),
                    addresses: attachment.addresses(),
                    label: label_of(attachment),
                };
                (id_of(attachment), known)
            })
            .collect();
        prop_assert_eq!(&listed, &self.reference);
        prop_assert_eq!(self.world.links(), self.reference.len());
        let forwards = self.reference.iter().flat_map(|(id, known)| {
            let port = PORT + u16::from(*id);
            let addresses = known.addresses.iter();
            addresses.map(move |address| format!("{port}/tcp to {address} 80"))
        });
        prop_assert_eq!(
            self.world.forwards().into_iter().collect::<BTreeSet<_>>(),
            forwards.collect::<BTreeSet<_>>()
        );
        // Routes of prefixes come and go a moment later.
        let look = || self.desk.check(None).unwrap();
        eventually(PATIENCE, "all is as it was made", look, |found| {
            *found == Some(Vec::new())
        });
        let node = self.desk.node();
        // An address that drains with a prefix belongs to the one that serves, where both have it.
        let first = |address| {
            node.prefixes
                .iter()
                .find(|p| p.prefix.contains(address))
                .map(|p| p.prefix)
        };
        let held: Vec<_> = self
            .reference
            .values()
            .flat_map(|known| known.addresses.iter())
            .filter_map(first)
            .collect();
        for prefix in &node.prefixes {
            let used = held.iter().filter(|other| **other == prefix.prefix).count() as u128;
            prop_assert_eq!(prefix.used, used, "{}", prefix.prefix);
            prop_assert_eq!(prefix.draining, !self.serving.contains(&prefix.prefix));
        }
        let serves: Vec<Prefix> = node
            .prefixes
            .iter()
            .filter(|p| !p.draining)
            .map(|p| p.prefix)
            .collect();
        prop_assert_eq!(&serves, &self.serving);
        prop_assert_eq!(node.source.generation, self.generation);
        let could = !self.serving.is_empty() && self.has_room();
        prop_assert_eq!(node.unready.is_empty(), could, "{:?}", node.unready);
        Ok(())
    }
}

fn id_of(attachment: &Attachment) -> u8 {
    attachment.key().workload().as_str()[1..].parse().unwrap()
}

fn label_of(attachment: &Attachment) -> u8 {
    attachment
        .labels
        .get("label")
        .map_or(0, |text| text.parse().unwrap())
}

proptest! {
    // Threads of a desk live as long as the process, and each desk has about thirty: many more cases, or tries to shorten
    // one, would use up a process's memory maps.
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_orders_and_accidents_ends_as_the_reference_says(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new();
        for step in steps {
            run.take(step)?;
            run.is_as_the_reference_says()?;
        }
    }
}
