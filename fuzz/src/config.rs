//! The file of settings.

use crate::{is_bounded, text};
use daemon::config::Config;

/// TOML.
pub(crate) fn config(bytes: &[u8]) {
    let Some(toml) = text(bytes) else { return };
    match Config::parse(toml) {
        Ok(config) => {
            let written = config.to_toml();
            let again = Config::parse(&written).unwrap_or_else(|error| panic!("{error:#}: {written}"));
            assert_eq!(again, config, "{written}");
            config.check().expect("it was checked");
            config.desk().expect("it was checked");
            config.allowed().expect("it was checked");
            assert!(config.open_files() > 0 && config.bounds().connections > 0);
        }
        Err(error) => {
            let said = format!("{error:#}");
            assert!(!said.is_empty());
            is_bounded(&said, bytes);
        }
    }
}
