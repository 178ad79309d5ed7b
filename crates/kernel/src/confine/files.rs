//! Files by Landlock (landlock(7)): what may be written stands here, and nothing may be executed. Reading is free, because
//! any path of the node may be named as a namespace's, and sources of prefixes may be anywhere.

use super::{Files, Needs};
use crate::fault::ours;
use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use model::datapath::Fault;
use std::error::Error;
use std::path::Path;

/// Linux 6.12, the first with all of what is asked for here. An older kernel does what it can.
const KNOWN: ABI = ABI::V6;

/// Confines the calling thread, and all that it starts, to what is needed.
pub(super) fn confine(needs: &Needs, settings: &Path) -> Result<Files, Fault> {
    let status = restrict(needs, settings).map_err(|error| {
        let reason = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        ours("confine what is written (Landlock)", reason)
    })?;
    Ok(match status {
        RulesetStatus::FullyEnforced => Files::Wholly,
        RulesetStatus::PartiallyEnforced => Files::Partly,
        RulesetStatus::NotEnforced => Files::Free,
    })
}

fn restrict(needs: &Needs, settings: &Path) -> Result<RulesetStatus, Box<dyn Error>> {
    let written: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate});
    let changed = written | AccessFs::MakeReg | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_write(KNOWN) | AccessFs::Execute)?
        // Whoever listens does so by now.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?;
    if !needs.connects {
        rules = rules.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut rules = rules.create()?;
    let folders = needs.folders.iter().map(|folder| (folder.as_path(), changed));
    for (folder, access) in folders.chain([(settings, written)]) {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(folder)?, access))?;
    }
    let status: Result<_, RulesetError> = rules.restrict_self();
    Ok(status?.ruleset)
}
