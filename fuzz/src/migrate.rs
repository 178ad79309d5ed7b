//! What old plugins left of pods, in folders of its own for each input.

use crate::{is_bounded, pieces};
use migrate::played::{Folders, encoded};
use migrate::{Fate, Old, Pod};
use serde_json::Value;
use std::fs;
use std::path::Path;

const NETWORK: &str = "net";
const ADDRESSES: [&str; 2] = ["10.1.0.2", "fd00::2"];

/// Up to four pieces between zeros: what the reservations of two addresses say, a cached result, and the configuration in
/// it, which is encoded here because nobody finds base64 by trying.
pub(crate) fn migrate(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = |below: &str| folder.path().join(below);
    let Folders { networks, results } = Folders::below(folder.path()).expect("folders can be made");
    for made in [networks.join(NETWORK), path("elsewhere")] {
        fs::create_dir(made).expect("a folder can be made");
    }
    let pieces = pieces(bytes, 0);
    for (address, said) in ADDRESSES.iter().zip(&pieces) {
        let file = networks.join(NETWORK).join(address);
        fs::write(file, said).expect("a file can be written");
    }
    if let Some(result) = pieces.get(2) {
        let result = with_config(result, pieces.get(3).copied());
        fs::write(results.join("net-c0-eth0"), result).expect("a file can be written");
    }
    let read = || migrate::read(&networks, &results, &[]).expect("all can be listed");
    let old = read();
    for (file, why) in &old.unreadable {
        is_shown(why, bytes);
        assert!(file.exists(), "{}", file.display());
    }
    for pod in all(&old) {
        is_sound(pod, bytes);
    }
    let takes = old.pods.iter().filter(|pod| pod.fate == Fate::Open);
    let mut keys: Vec<(&str, &str)> = takes
        .map(|pod| (pod.container.as_str(), pod.if_name.as_str()))
        .collect();
    let count = keys.len();
    keys.dedup();
    assert_eq!(
        keys.len(),
        count,
        "the daemon would take one for the other: {old:#?}"
    );
    for pod in all(&old) {
        migrate::remove(&networks, pod).expect("all can be removed");
    }
    let left = read();
    assert_eq!(all(&left).count(), 0, "{left:#?}");
    assert_eq!(left.unreadable, old.unreadable);
    assert!(path("elsewhere").is_dir() && networks.is_dir());
}

/// With a configuration as libcni writes it down.
fn with_config(result: &[u8], config: Option<&[u8]>) -> Vec<u8> {
    let (Ok(Value::Object(mut fields)), Some(config)) = (serde_json::from_slice(result), config) else {
        return result.to_owned();
    };
    fields.insert("config".to_owned(), encoded(config).into());
    Value::Object(fields).to_string().into_bytes()
}

fn all(old: &Old) -> impl Iterator<Item = &Pod> {
    old.pods.iter().chain(&old.unreserved)
}

fn is_sound(pod: &Pod, of: &[u8]) {
    // Files are removed below a folder of that name.
    assert_eq!(
        Path::new(&pod.network).file_name(),
        Some(pod.network.as_ref()),
        "{pod:#?}"
    );
    assert!(!pod.container.is_empty(), "{pod:#?}");
    for text in [&pod.network, &pod.container, &pod.if_name] {
        is_shown(text, of);
    }
    assert!(pod.addresses.is_sorted(), "{pod:#?}");
    match &pod.fate {
        Fate::Open => {
            let v4 = pod.addresses.iter().filter(|address| address.is_ipv4()).count();
            assert!(v4 <= 1 && pod.addresses.len() - v4 <= 1, "{pod:#?}");
            assert!(!pod.path.is_empty() && !pod.if_name.is_empty(), "{pod:#?}");
        }
        Fate::Refused(reasons) => {
            assert!(!reasons.is_empty(), "{pod:#?}");
            reasons.iter().for_each(|reason| is_shown(reason, of));
        }
        Fate::Gone => assert!(!Path::new(&pod.path).exists(), "{pod:#?}"),
        Fate::Uncached => assert_eq!(pod.result, None, "{pod:#?}"),
    }
}

/// On a terminal, in one line.
#[track_caller]
fn is_shown(said: &str, of: &[u8]) {
    assert!(!said.contains(char::is_control), "{said:?}");
    is_bounded(said, of);
}
