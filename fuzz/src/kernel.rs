//! What the kernel answers and tells.

use kernel::played::{self, Ears, Question};
use std::cell::RefCell;

/// A question's number, then datagrams, each behind its length in two bytes (the higher one first).
pub(crate) fn answers(bytes: &[u8]) {
    let Some((number, rest)) = bytes.split_first() else {
        return;
    };
    let question = Question::ALL[usize::from(*number) % Question::ALL.len()];
    let datagrams = datagrams(rest);
    // A prefix takes some 20 bytes to be told, and an interval of addresses is some 250 of them at most.
    let most = 32 * bytes.len() + 16;
    if let Ok(read) = played::ask(question, &datagrams) {
        assert!(read <= most, "{read} things were read in {} bytes", bytes.len());
    }
    for datagram in datagrams {
        assert_eq!(
            played::rewritten(datagram),
            played::read(datagram),
            "what is written is read"
        );
    }
}

fn datagrams(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((&[high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (datagram, rest) = rest.split_at(length);
        all.push(datagram);
        bytes = rest;
    }
    all
}

thread_local! {
    static EARS: RefCell<Ears> = RefCell::new(Ears::new().expect("everybody may open a netlink socket"));
}

/// Datagrams as the kernel tells them to who listens, one after the other.
pub(crate) fn notifications(bytes: &[u8]) {
    EARS.with_borrow_mut(|ears| {
        ears.forget();
        for datagram in datagrams(bytes) {
            // Nothing is told of more than one thing, and of that three times at most.
            let most = 3 * (datagram.len() / 16);
            let events = ears.hear(datagram);
            assert!(
                events.len() <= most,
                "{events:?} follow from {} bytes",
                datagram.len()
            );
        }
    });
}
