//! Plans of what fails: built only with the feature `faults`.

use mishap::{Kind, Strike, arm, disarm};

#[test]
fn the_call_that_is_named_fails_and_no_other() {
    let strike = |text: &str| text.parse::<Strike>().expect("it is one");
    arm(&[strike("send 2 errno 12"), strike("answer 1 cut")]);
    let mut datagram = vec![0; 8];
    mishap::received(Kind::Answer, "x", &mut datagram).expect("a datagram that is cut is no error");
    let outcomes = [0; 3].map(|_| mishap::at(Kind::Send, "x").err()?.raw_os_error());
    assert_eq!((datagram.len(), outcomes), (5, [None, Some(12), None]));
    let calls: Vec<String> = disarm()
        .iter()
        .map(|c| format!("{} {}", c.kind.name(), c.nth))
        .collect();
    assert_eq!(calls, ["answer 1", "send 1", "send 2", "send 3"]);
    assert!(mishap::at(Kind::Send, "x").is_ok());
}

#[test]
fn a_strike_reads_as_it_is_written() {
    for text in [
        "message 3 errno 12",
        "answer 1 cut",
        "answer 9 interrupted",
        "answer 2 given-up 105",
    ] {
        assert_eq!(
            text.parse::<Strike>().map(|strike| strike.to_string()),
            Ok(text.to_owned())
        );
    }
    for text in [
        "",
        "message",
        "message x errno 1",
        "nothing 1 cut",
        "message 1 errno",
    ] {
        assert!(text.parse::<Strike>().is_err(), "{text}");
    }
}
