//! A worker's heart: it tells the database now and then that the worker is alive, and prolongs the lease of what
//! the worker is judging, from a thread and a connection of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use crate::notice::Notice;
use crate::store::{Store, StoreError};

pub(crate) struct Heart {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pulse: Mutex<Pulse>,
    changed: Condvar,
}

#[derive(Default)]
struct Pulse {
    held: Option<Held>,
    is_over: bool,
}

/// A lease, and whether it was lost.
#[derive(Clone)]
struct Held {
    token: String,
    is_lost: Arc<AtomicBool>,
}

impl Heart {
    /// Begins to beat three times in each lease, and at least once a minute. `store` is a connection of the heart's own, made before anything
    /// is leased: where a server takes no more connections, that is to be known at once.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        mut store: Store,
        worker: String,
        lease_seconds: f64,
        notify: &'scope (dyn Fn(Notice) + Sync),
    ) -> Self {
        // A beat that fails is made again by the next one.
        store.be_impatient();
        let shared: Arc<Shared> = Arc::default();
        let heart = Self { shared: Arc::clone(&shared) };
        scope.spawn(move || beat(&shared, &mut store, &worker, lease_seconds, notify));
        heart
    }

    /// Prolongs a lease from now on. The flag is set where that comes too late, and another worker has it.
    pub(crate) fn hold(&self, token: &str) -> Arc<AtomicBool> {
        let held = Held { token: token.to_owned(), is_lost: Arc::default() };
        let is_lost = Arc::clone(&held.is_lost);
        self.shared.pulse().held = Some(held);
        is_lost
    }

    /// Prolongs nothing any more.
    pub(crate) fn let_go(&self) {
        self.shared.pulse().held = None;
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.shared.pulse().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, token: &str) -> bool {
        self.pulse().held.as_ref().is_some_and(|held| held.token == token)
    }

    /// Waits for as long, and tells what is held then; `None` when all is over.
    fn wait(&self, interval: Duration) -> Option<Option<Held>> {
        let is_on = |pulse: &mut Pulse| !pulse.is_over;
        let waited = self.changed.wait_timeout_while(self.pulse(), interval, is_on);
        let (pulse, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!pulse.is_over).then(|| pulse.held.clone())
    }
}

fn beat(shared: &Shared, store: &mut Store, worker: &str, lease_seconds: f64, notify: &(dyn Fn(Notice) + Sync)) {
    /// The pause after a beat that failed.
    const RETRY: Duration = Duration::from_secs(1);
    /// The longest pause of a heart that is healthy, however long leases are.
    const LONGEST: Duration = Duration::from_secs(60);
    let third = Duration::try_from_secs_f64(lease_seconds / 3.0).unwrap_or(LONGEST);
    let interval = third.clamp(Duration::from_millis(10), LONGEST);
    let mut fails = false;
    while let Some(held) = shared.wait(if fails { interval.min(RETRY) } else { interval }) {
        match once(store, worker, held.as_ref(), lease_seconds) {
            Ok(is_held) => {
                if std::mem::take(&mut fails) {
                    notify(Notice::BeatAgain);
                }
                // A lease that was let go meanwhile may have come to its proper end.
                if let Some(held) = held.filter(|held| !is_held && shared.holds(&held.token))
                    && !held.is_lost.swap(true, Ordering::Relaxed)
                {
                    notify(Notice::LeaseLost);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    notify(Notice::NoBeat { problem: error.to_string() });
                }
            }
        }
    }
}

/// Tells whether the lease is still held.
fn once(store: &mut Store, worker: &str, held: Option<&Held>, lease_seconds: f64) -> Result<bool, StoreError> {
    let is_held = match held {
        Some(held) => store.prolong(&held.token, lease_seconds)?,
        None => true,
    };
    store.is_seen(worker)?;
    Ok(is_held)
}
