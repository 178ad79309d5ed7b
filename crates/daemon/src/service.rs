//! What the service manager hears (sd_notify(3)): recovering, ready, stopping, never in another order; and, as long as it
//! asks (WatchdogSec=), that the daemon lives.

use sd_notify::NotifyState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Recovering,
    Ready,
    Stopping,
}

/// The way to the service manager. Clones are the same.
#[derive(Debug, Clone)]
pub struct Service {
    said: Arc<Mutex<(Phase, String)>>,
    tell: fn(&[NotifyState<'_>]),
}

impl Service {
    /// Tells the service manager that recovery begins.
    pub fn recovering() -> Self {
        Self::telling(|states| {
            if let Err(error) = sd_notify::notify(states) {
                tracing::debug!(%error, "the service manager was not told");
            }
        })
    }

    fn telling(tell: fn(&[NotifyState<'_>])) -> Self {
        let status = "recovering: the kernel is being read";
        tell(&[NotifyState::Status(status)]);
        Self {
            said: Arc::new(Mutex::new((Phase::Recovering, status.to_owned()))),
            tell,
        }
    }

    /// Recovery is over. Says nothing where the daemon is stopping by then.
    pub fn ready(&self, unmet: &[String]) {
        self.say(Phase::Ready, NotifyState::Ready, &serving(unmet));
    }

    /// No more than this is said from here on.
    pub fn stopping(&self) {
        self.say(Phase::Stopping, NotifyState::Stopping, "finishing what runs");
    }

    /// The desk has answered, with what it lacks.
    pub fn alive(&self, unmet: &[String]) {
        (self.tell)(&[NotifyState::Watchdog]);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let status = serving(unmet);
        if said.0 == Phase::Ready && said.1 != status {
            (self.tell)(&[NotifyState::Status(&status)]);
            said.1 = status;
        }
    }

    fn say(&self, phase: Phase, state: NotifyState<'_>, status: &str) {
        // Said under the lock: what is decided first is heard first.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0 < phase {
            *said = (phase, status.to_owned());
            (self.tell)(&[state, NotifyState::Status(status)]);
        }
    }
}

fn serving(unmet: &[String]) -> String {
    match unmet.is_empty() {
        true => "serving".to_owned(),
        false => unmet.join("; "),
    }
}

/// Tells the service manager that the daemon lives whenever `asked` has returned, which it does once it has got an answer;
/// for ever, or not at all where there is no watchdog.
pub async fn keep_alive<F>(service: Service, asked: impl Fn() -> F)
where
    F: Future<Output = Option<Vec<String>>>,
{
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        match asked().await {
            Some(unmet) => service.alive(&unmet),
            None => tracing::error!("the desk does not answer, and the watchdog is not fed"),
        }
        tokio::time::sleep(between(period)).await;
    }
}

/// Twice in each period (sd_watchdog_enabled(3)), and once more for a busy node.
fn between(period: Duration) -> Duration {
    period / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    fn service() -> Service {
        Service::telling(|states| {
            HEARD.with_borrow_mut(|heard| heard.extend(states.iter().map(ToString::to_string)));
        })
    }

    fn heard() -> Vec<String> {
        HEARD.take()
    }

    #[test]
    fn ready_is_not_said_after_stopping() {
        let service = service();
        service.stopping();
        service.ready(&[]);
        service.stopping();
        assert_eq!(
            heard(),
            [
                "STATUS=recovering: the kernel is being read",
                "STOPPING=1",
                "STATUS=finishing what runs"
            ]
        );
    }

    #[test]
    fn what_is_lacking_is_said_when_it_changes() {
        let service = service();
        let lack = ["no IPv4 address is left".to_owned()];
        service.alive(&lack);
        service.ready(&[]);
        service.alive(&[]);
        service.alive(&lack);
        service.alive(&lack);
        service.stopping();
        service.alive(&lack);
        assert_eq!(
            heard(),
            [
                "STATUS=recovering: the kernel is being read",
                "WATCHDOG=1",
                "READY=1",
                "STATUS=serving",
                "WATCHDOG=1",
                "WATCHDOG=1",
                "STATUS=no IPv4 address is left",
                "WATCHDOG=1",
                "STOPPING=1",
                "STATUS=finishing what runs",
                "WATCHDOG=1"
            ]
        );
    }
}
