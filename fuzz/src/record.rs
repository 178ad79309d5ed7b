//! What a link's alias and further names say.

use crate::{is_bounded, pieces, text};
use model::key::HostLink;
use model::ports::Ports;
use model::record::{ALIAS_BYTES, Record};

/// Lines: the alias, then the further names.
pub(crate) fn record(bytes: &[u8]) {
    let lines: Vec<&str> = pieces(bytes, b'\n').into_iter().filter_map(text).collect();
    let (alias, names) = lines.split_first().map_or(("", &[][..]), |(a, n)| (*a, n));
    let link = match Record::parse(alias) {
        Ok(record) => {
            is_written_as_it_was_read(&record);
            record.key.host_link()
        }
        Err(error) => {
            is_bounded(&error.to_string(), &[]);
            HostLink::parse("wk0123456789abc").expect("it has the form of one")
        }
    };
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    match Ports::read(&link, &names) {
        Ok(ports) => assert_eq!(Ports::read(&link, &ports.names(&link)), Ok(ports)),
        Err(error) => is_bounded(&error.to_string(), bytes),
    }
}

fn is_written_as_it_was_read(record: &Record) {
    let written = record.to_string();
    assert_eq!(Record::parse(&written).as_ref(), Ok(record), "{written}");
    assert_eq!(
        HostLink::parse(record.key.host_link().as_str()),
        Some(record.key.host_link())
    );
    // Another plugin's link has both, and their lengths were looked at when it was taken over.
    if record.adopted.is_none() {
        assert!(written.len() <= ALIAS_BYTES, "{written}");
    }
}
