//! One call: its deadline, and what is tried again within it.

use crate::Client;
use crate::connection::Connection;
use crate::error::{Error, Failure};
use std::io;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Client {
    /// Sends a message until it is answered, refused, or out of time.
    pub(crate) async fn call<Message, Answer, Sent>(
        &self,
        limit: Duration,
        message: Message,
        send: impl Fn(Connection, Request<Message>) -> Sent,
    ) -> Result<Answer, Error>
    where
        Message: Clone,
        Sent: Future<Output = Result<Response<Answer>, Status>>,
    {
        let began = Instant::now();
        let tries = async {
            let mut pauses = pauses();
            let mut was_lost = false;
            loop {
                let mut request = Request::new(message.clone());
                // For the daemon: an order that has not begun by then is dropped.
                request.set_timeout(limit.saturating_sub(began.elapsed()));
                let status = match send(self.connection.clone(), request).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => status,
                };
                match Failure::of(&status) {
                    Failure::NotConnected(error) => {
                        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
                        if !may_pass(&error) || began.elapsed() + pause > self.patience {
                            return Err(self.unreachable(error));
                        }
                        tokio::time::sleep(pause).await;
                    }
                    Failure::Lost(_) if !was_lost => was_lost = true,
                    Failure::Lost(error) => return Err(self.unreachable(error)),
                    Failure::Deadline => return Err(Error::Deadline(limit)),
                    Failure::Refused(refused) => return Err(Error::Refused(refused)),
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
