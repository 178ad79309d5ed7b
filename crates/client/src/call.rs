//! One call: its deadline, and what is tried again within it.

use crate::error::{Error, Failure};
use crate::{Client, grpc};
use bytes::Bytes;
use prost::Message;
use std::io;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// By how much two clocks that began together may disagree.
const EARLY: Duration = Duration::from_millis(10);

impl Client {
    /// Sends a message until it is answered, refused, or out of time.
    pub(crate) async fn call<Answer: Message + Default>(
        &self,
        limit: Duration,
        method: &'static str,
        message: &impl Message,
    ) -> Result<Answer, Error> {
        let answer = self.answer(limit, method, &message.encode_to_vec()).await?;
        Answer::decode(answer).map_err(|_| Error::Garbled(method))
    }

    async fn answer(&self, limit: Duration, method: &'static str, message: &[u8]) -> Result<Bytes, Error> {
        let began = Instant::now();
        let tries = async {
            let mut pauses = pauses();
            let mut was_lost = false;
            loop {
                let left = limit.saturating_sub(began.elapsed());
                match grpc::unary(&self.connection, method, message, left).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::NotConnected(error)) => {
                        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
                        if !may_pass(&error) || began.elapsed() + pause > self.patience {
                            return Err(self.unreachable(error));
                        }
                        tokio::time::sleep(pause).await;
                    }
                    Err(Failure::Lost(_)) if !was_lost => was_lost = true,
                    Err(Failure::Lost(error)) => return Err(self.unreachable(error)),
                    Err(Failure::Deadline) => {
                        // The server's timer runs on what we told it to be left, and may be a little early: ours counts.
                        let left = limit.saturating_sub(began.elapsed());
                        if left <= EARLY {
                            tokio::time::sleep(left).await;
                        }
                        return Err(Error::Deadline(limit));
                    }
                    // The daemon has less patience than the caller, or is a little early.
                    Err(Failure::NoOutcomeYet) => {
                        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                    }
                    Err(Failure::Refused(refused)) => return Err(Error::Refused(refused)),
                }
            }
        };
        match tokio::time::timeout(limit, tries).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Deadline(limit)),
        }
    }

    fn unreachable(&self, source: io::Error) -> Error {
        Error::Unreachable {
            socket: self.socket.clone(),
            source,
        }
    }
}

/// Between tries to connect.
fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)))
}

/// What a start of the daemon mends. `WouldBlock` is a full queue of the listener (connect(2), EAGAIN).
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let pauses: Vec<u128> = pauses().take(9).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
