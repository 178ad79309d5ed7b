//! What is kept in the state file, and what of it is there again at the next start.

use super::{Desk, Settings, UNKEPT, now, random};
use crate::state_file::{Remembered, StateFile};
use model::datapath::Datapath;
use model::ipam::Ipam;
use model::prefix::Prefix;
use std::sync::PoisonError;

impl<D: Datapath> Desk<D> {
    /// Why the state file has not got a generation; `None`: it has, or there is to be none.
    pub fn unkept(&self, generation: u64) -> Option<String> {
        let state = self.state();
        let is_kept = self.settings.state_file.is_none() || state.kept >= Some(generation);
        (!is_kept).then(|| state.unkept.clone().unwrap_or_default())
    }

    /// Writes the state file.
    pub(super) fn write_state_file(&self) {
        let Some(path) = &self.settings.state_file else {
            return;
        };
        let _turn = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let mut state_file = state.state_file.clone().unwrap_or_else(|| {
            let labels = state
                .attachments
                .values()
                .filter(|a| !a.labels.is_empty())
                .map(|a| (a.link.host.as_str().to_owned(), a.labels.clone()))
                .collect();
            let held = state.attachments.values().flat_map(|a| a.addresses().iter());
            let held = held.chain(state.left_alone.iter().copied());
            StateFile::new(labels, &state.ipam.cooling(now()))
                .with_held(held.collect())
                .with_unknown(state.ipam.unknown_before(now()))
        });
        state_file.prefixes = Remembered::new(self.settings.source, &state.ipam.past());
        let generation = state.ipam.generation();
        drop(state);
        let unkept = state_file.save(path).err().map(|error| error.to_string());
        if unkept.is_some() {
            // What is wrong with it may pass.
            self.sweeper.state_file_is_old();
        }
        let mut state = self.state();
        if unkept.is_none() {
            state.kept = Some(generation);
        }
        let before = std::mem::replace(&mut state.unkept, unkept.clone());
        drop(state);
        match unkept {
            Some(error) if before.as_ref() != Some(&error) => {
                tracing::warn!(path = %path.display(), error, "{UNKEPT}");
            }
            None if before.is_some() => {
                tracing::info!(path = %path.display(), "what is remembered is kept again")
            }
            _ => {}
        }
    }
}

/// What served or drained before is there again to drain, until a source tells otherwise. What a control plane said last
/// serves on, because it may be away for long, and is in doubt until it is said again.
pub(super) fn resumed(settings: &Settings, state_file: &StateFile) -> (Ipam, Option<String>) {
    let past = state_file.prefixes.past().unwrap_or_default();
    let mut ipam = Ipam::resumed(settings.cool_down, &past, &mut random);
    if !settings.prefixes.is_empty() {
        ipam.set_prefixes(&settings.prefixes, &mut random);
    }
    let serving: Vec<Prefix> = past.serving.iter().map(|(prefix, _)| *prefix).collect();
    let source = settings.source;
    let doubt = source.doubt().filter(|_| state_file.prefixes.source == source);
    let Some(doubt) = doubt.filter(|_| !serving.is_empty()) else {
        return (ipam, None);
    };
    ipam.set_prefixes(&serving, &mut random);
    tracing::info!(%source, prefixes = ?serving, "what the source said last serves on");
    (ipam, Some(doubt.to_owned()))
}
