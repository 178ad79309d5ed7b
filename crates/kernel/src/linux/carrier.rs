//! Until a link sends: whoever hears that it is there may send at once.

use super::rest;
use crate::encode::{UP, link};
use crate::message::Attributes;
use crate::socket::Answer;
use crate::survey;
use model::datapath::Fault;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// `IFF_LOWER_UP` (linux/if.h): it has a carrier.
const LOWER_UP: u32 = 1 << 16;
/// `IF_OPER_TESTING`, `_DORMANT` and `_UP` (linux/if.h): the kernel has noted that it has one.
const NOTED: RangeInclusive<u8> = 4..=6;
/// In which a kernel that is not overwhelmed has noted it many times over.
const LIMIT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(1);

/// Whether the link told of has a carrier that the kernel has not noted yet, so that what is sent over it is lost
/// (`linkwatch_do_dev`, net/core/link_watch.c, which sets the state and starts the queue under RTNL).
pub(super) fn is_unnoted(newlink: &[u8]) -> bool {
    let flags = survey::flags_of(newlink);
    let state = Attributes::after(newlink, 16)
        .value(link::OPERSTATE)
        .and_then(|state| state.first().copied());
    flags & (UP | LOWER_UP) == (UP | LOWER_UP) && !state.is_some_and(|state| NOTED.contains(&state))
}

/// What the kernel answers to a question about a link, once that sends. Since Linux 6.8 the question makes it note the carrier
/// (`linkwatch_sync_dev`), and is asked once; before, it is noted by a work queue.
pub(super) fn noted(mut ask: impl FnMut() -> Result<Answer, Fault>) -> Result<Answer, Fault> {
    let start = Instant::now();
    loop {
        let answer = ask()?;
        if !answer.replies.iter().any(|reply| is_unnoted(&reply.payload)) {
            return Ok(answer);
        }
        if start.elapsed() >= LIMIT {
            tracing::warn!(limit = ?LIMIT, "the carrier of a link is not noted");
            return Ok(answer);
        }
        rest(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Reply;

    /// RTM_NEWLINK of a link with flags and a state (`struct ifinfomsg`, linux/rtnetlink.h).
    fn told(flags: u32, state: Option<u8>) -> Vec<u8> {
        let mut payload = vec![0; 8];
        payload.extend(flags.to_ne_bytes());
        payload.extend([0; 4]);
        if let Some(state) = state {
            payload.extend(5_u16.to_ne_bytes());
            payload.extend(link::OPERSTATE.to_ne_bytes());
            payload.extend([state, 0, 0, 0]);
        }
        payload
    }

    /// How often it is asked, where each answer but the last is the first.
    fn asked(first: &[u8], times: usize) -> usize {
        let mut asked = 0;
        let answer = noted(|| {
            asked += 1;
            let payload = match asked <= times {
                true => first.to_vec(),
                false => told(UP | LOWER_UP, Some(6)),
            };
            Ok(Answer {
                replies: vec![Reply { position: 0, payload }],
                ..Answer::default()
            })
        });
        assert_eq!(answer.unwrap().replies.len(), 1);
        asked
    }

    #[test]
    fn a_carrier_is_waited_for_until_the_kernel_has_noted_it_and_where_there_is_none_it_is_not() {
        let unnoted = told(UP | LOWER_UP, Some(0));
        assert_eq!(asked(&unnoted, 3), 4);
        assert_eq!(asked(&told(UP, Some(7)), 3), 1, "no carrier");
        let began = Instant::now();
        assert!(asked(&unnoted, usize::MAX) > 1, "not for ever");
        assert!(began.elapsed() >= LIMIT);
    }

    #[test]
    fn whether_a_carrier_is_noted_is_told_by_flags_and_state() {
        // Unknown, not present, down, lower layer down.
        for state in [0, 1, 2, 3] {
            assert!(is_unnoted(&told(UP | LOWER_UP, Some(state))), "{state}");
            for flags in [0, UP, LOWER_UP] {
                assert!(!is_unnoted(&told(flags, Some(state))), "{flags} {state}");
            }
        }
        for state in [4, 5, 6] {
            assert!(!is_unnoted(&told(UP | LOWER_UP, Some(state))), "{state}");
        }
        assert!(!is_unnoted(&[]));
    }
}
