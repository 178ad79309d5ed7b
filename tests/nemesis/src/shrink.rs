//! What of a run that failed is needed for it to fail: fewer nemeses, fewer callers, fewer operations, as long as it fails still.

use crate::plan::{Kind, Scope};
use anyhow::Result;
use std::collections::BTreeSet;

/// How a smaller scope fared.
pub trait Trial {
    /// Whether it fails, too. How calls and strikes interleave is the machine's affair, so it may be tried more than once.
    fn fails(&mut self, scope: &Scope) -> Result<bool>;
}

impl<F: FnMut(&Scope) -> Result<bool>> Trial for F {
    fn fails(&mut self, scope: &Scope) -> Result<bool> {
        self(scope)
    }
}

/// The least scope that was found to fail.
pub fn shrink(scope: &Scope, trial: &mut impl Trial) -> Result<Scope> {
    let mut least = scope.clone();
    loop {
        let mut is_smaller = false;
        for smaller in smaller(&least) {
            if trial.fails(&smaller)? {
                least = smaller;
                is_smaller = true;
                break;
            }
        }
        if !is_smaller {
            return Ok(least);
        }
    }
}

/// Scopes with less in them, those with much less first.
fn smaller(scope: &Scope) -> Vec<Scope> {
    let strikes: BTreeSet<Kind> = scope.kinds.difference(&scope.without).copied().collect();
    let mut all = Vec::new();
    let without = |kinds: BTreeSet<Kind>| Scope {
        without: scope.without.union(&kinds).copied().collect(),
        ..scope.clone()
    };
    // None at all, half of them, the other half, each one.
    let half = strikes.len() / 2;
    let first: BTreeSet<Kind> = strikes.iter().take(half).copied().collect();
    let second: BTreeSet<Kind> = strikes.iter().skip(half).copied().collect();
    let each = strikes.iter().map(|kind| BTreeSet::from([*kind]));
    let groups: Vec<BTreeSet<Kind>> = [strikes.clone(), first, second]
        .into_iter()
        .chain(each)
        .filter(|group| !group.is_empty())
        .collect();
    for (n, group) in groups.iter().enumerate() {
        if !groups[..n].contains(group) {
            all.push(without(group.clone()));
        }
    }
    for callers in [1, scope.callers / 2]
        .into_iter()
        .filter(|callers| *callers > 0 && *callers < scope.callers)
    {
        all.push(Scope {
            callers,
            ..scope.clone()
        });
    }
    for operations in [scope.operations / 2, scope.operations * 3 / 4] {
        if operations > 0 && operations < scope.operations {
            all.push(Scope {
                operations,
                ..scope.clone()
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_for_a_failure_is_left_out() {
        let mut tries = 0;
        let least = shrink(&Scope::usual(1), &mut |scope: &Scope| {
            tries += 1;
            let strikes = |kind| scope.kinds.contains(&kind) && !scope.without.contains(&kind);
            Ok(strikes(Kind::Kill) && strikes(Kind::Pause) && scope.callers >= 4 && scope.operations >= 90)
        });
        let least = least.unwrap();
        let left: Vec<Kind> = least.kinds.difference(&least.without).copied().collect();
        assert_eq!(left, [Kind::Kill, Kind::Pause]);
        assert_eq!(least.callers, 4);
        assert!((90..130).contains(&least.operations), "{least:?}");
        assert!(tries < 100, "{tries}");
    }

    #[test]
    fn what_cannot_be_smaller_stays() {
        let whole = Scope::usual(1);
        let least = shrink(&whole, &mut |scope: &Scope| Ok(*scope == whole));
        assert_eq!(least.unwrap(), whole);
    }
}
