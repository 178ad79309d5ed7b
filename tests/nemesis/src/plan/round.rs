//! One round, drawn.

use super::{Act, Ask, FIRST_OF_PLUGIN, KEYS, Kind, Operation, Round, Scope, Strike, World, Wrong};
use crate::random::Random;
use crate::steady::FIRST_SLOT;

/// A deadline that only a daemon which hangs misses, in milliseconds.
const LONG: u64 = 30_000;
/// How many operations of a round at most concern one key: what is checked of it grows with their number.
const MOST_OF_A_KEY: usize = 40;

/// The round of a number. A smaller scope has the beginning of what a larger one has.
pub fn round(scope: &Scope, world: &World, number: u64) -> Round {
    let mut random = Random::new(scope.seed, number);
    let mut of_key = [0; KEYS];
    let mut operations = Vec::new();
    while operations.len() < scope.operations {
        let operation = operation(&mut random, world);
        let key = match &operation.act {
            Act::Attach { key, .. } | Act::Detach { key, .. } | Act::AttachWrongly { key, .. } => Some(*key),
            _ => None,
        };
        if let Some(key) = key {
            if of_key[key] == MOST_OF_A_KEY {
                continue;
            }
            of_key[key] += 1;
        }
        operations.push(operation);
    }
    Round {
        number,
        operations,
        strikes: strikes(scope, number),
    }
}

fn operation(random: &mut Random, world: &World) -> Operation {
    let act = act(random, world);
    let deadline = match random.below(20) {
        0 => random.between(1, 20),
        1 => random.between(20, 500),
        _ => LONG,
    };
    Operation {
        deadline,
        patience: random.one_of(&[0, 100, 2000, 5000, 5000]),
        hangs_up: random.percent(4).then(|| random.between(0, 20_000)),
        act,
    }
}

fn act(random: &mut Random, world: &World) -> Act {
    let key = usize::try_from(random.below(KEYS as u64)).expect("below the number of keys");
    match random.below(100) {
        0..44 => Act::Attach {
            key,
            slot: slot(random, key),
            ask: ask(random, key),
        },
        44..48 => Act::AttachWrongly {
            key,
            wrong: random.one_of(&[
                Wrong::NoNamespace,
                Wrong::NotANamespace,
                Wrong::Forbidden,
                Wrong::Interface,
                Wrong::Outside,
                Wrong::Bytes,
                Wrong::Mtu,
                Wrong::Port,
                Wrong::Unsupported,
            ]),
        },
        48..80 => Act::Detach {
            key,
            slot: random.percent(40).then(|| slot(random, key)),
        },
        80..82 => Act::Status {
            by_plugin: random.percent(50),
        },
        82..86 => Act::List,
        86..90 => Act::Get { key },
        90..93 => Act::Node,
        93..95 => Act::Check {
            key: random.percent(60).then_some(key),
        },
        95..98 => Act::PluginCheck {
            key: FIRST_OF_PLUGIN + key % (KEYS - FIRST_OF_PLUGIN),
        },
        98 => Act::Collect {
            valid: (FIRST_OF_PLUGIN..KEYS).filter(|_| random.percent(70)).collect(),
        },
        _ if world.is_told => Act::SetPrefixes {
            list: usize::try_from(random.below(world.lists.len() as u64)).expect("below a length"),
        },
        _ => Act::List,
    }
}

/// Mostly the key's own namespace.
fn slot(random: &mut Random, key: usize) -> usize {
    match random.percent(93) {
        true => key,
        false => usize::try_from(random.below(FIRST_SLOT as u64)).expect("below the number of namespaces"),
    }
}

/// Mostly what the key always asks for, so that it is the same again.
fn ask(random: &mut Random, key: usize) -> Ask {
    let byte = u8::try_from(key % 60 + 2).expect("below 62");
    let port = u16::try_from(8000 + key % 20).expect("below 8020");
    let usual = Ask {
        v4: key.is_multiple_of(5).then_some(byte),
        port: key.is_multiple_of(3).then_some(port),
        mtu: if key.is_multiple_of(7) { 1400 } else { 0 },
    };
    match random.below(20) {
        0 => Ask {
            v4: Some(byte.wrapping_add(1)),
            ..usual
        },
        1 => Ask {
            port: Some(port + 1),
            ..usual
        },
        2 => Ask { mtu: 1300, ..usual },
        _ => usual,
    }
}

/// Drawn from numbers of their own, so that a scope with fewer operations has the same strikes.
fn strikes(scope: &Scope, number: u64) -> Vec<Strike> {
    let mut random = Random::new(scope.seed.rotate_left(32), number);
    let kinds: Vec<Kind> = scope.kinds.iter().copied().collect();
    let mut strikes = Vec::new();
    for _ in 0..scope.strikes {
        let strike = Strike {
            after: usize::try_from((random.below(1 << 32) * scope.operations as u64) >> 32)
                .expect("below the number of operations"),
            delay: random.below(5000),
            // Every third one is a kill.
            kind: match random.below(3) {
                0 if kinds.contains(&Kind::Kill) => Kind::Kill,
                _ => random.one_of(&kinds),
            },
            number: random.number(),
            lasts: random.one_of(&[0, 10, 100, 400, 1000, 3000]),
        };
        if !scope.without.contains(&strike.kind) {
            strikes.push(strike);
        }
    }
    strikes.sort_by_key(|strike| strike.after);
    strikes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(scope: &Scope, number: u64) -> Round {
        round(scope, &scope.world(), number)
    }

    #[test]
    fn a_round_follows_from_the_seed_and_its_number() {
        let scope = Scope::usual(7);
        assert_eq!(drawn(&scope, 3), drawn(&scope, 3));
        assert_ne!(drawn(&scope, 3).operations, drawn(&scope, 4).operations);
        assert_ne!(drawn(&scope, 3).operations, drawn(&Scope::usual(8), 3).operations);
    }

    #[test]
    fn a_smaller_scope_has_a_part_of_a_larger_one() {
        let whole = drawn(&Scope::usual(7), 0);
        let mut scope = Scope::usual(7);
        scope.operations = 100;
        assert_eq!(drawn(&scope, 0).operations, whole.operations[..100]);
        let mut scope = Scope::usual(7);
        scope.without.insert(Kind::Kill);
        let fewer = drawn(&scope, 0);
        assert_eq!(fewer.operations, whole.operations);
        assert!(fewer.strikes.iter().all(|strike| whole.strikes.contains(strike)));
    }
}
