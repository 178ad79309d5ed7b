//! What blocks is done aside from the door's one thread, a few at a time: else whoever asks for many such things has all threads
//! that there are for it, and what else blocks, as the sign of life for the service manager or a stop, waits behind them.

use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// At once, of each kind. More of them wait for their turn, or until their callers have gone.
const PLACES: usize = 4;

/// Places for one kind of work. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Aside(Arc<Semaphore>);

impl Default for Aside {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

impl Aside {
    /// Does it when it has a place. Once begun it is done to its end, whether its caller stays or not, and has its place for so long.
    pub(super) async fn done<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.begun(|| (), work).await
    }

    /// As [`Self::done`]; `begins` is called as soon as nothing can keep it from being done any more.
    pub(super) async fn begun<T: Send + 'static>(
        &self,
        begins: impl FnOnce(),
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        let place = place.expect("places are never taken away");
        begins();
        spawn_blocking(move || {
            let _place = place;
            work()
        })
        .await
    }
}
