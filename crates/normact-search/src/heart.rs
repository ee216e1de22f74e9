//! A worker's heart: it prolongs the lease of what is being judged.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::store::Store;

/// Prolongs the lease of what is being judged, from a thread and a connection of its own.
pub(crate) struct Heart {
    state: Arc<(Mutex<Pulse>, Condvar)>,
}

#[derive(Default)]
struct Pulse {
    token: Option<String>,
    is_over: bool,
}

impl Heart {
    pub(crate) fn start(url: &str, lease_seconds: f64) -> Self {
        let state: Arc<(Mutex<Pulse>, Condvar)> = Arc::default();
        let (shared, url) = (Arc::clone(&state), url.to_owned());
        std::thread::spawn(move || {
            let mut store: Option<Store> = None;
            let interval = Duration::from_secs_f64((lease_seconds / 3.0).max(0.01));
            let (pulse, changed) = &*shared;
            let mut pulse = pulse.lock().unwrap_or_else(PoisonError::into_inner);
            while !pulse.is_over {
                (pulse, _) = changed.wait_timeout(pulse, interval).unwrap_or_else(PoisonError::into_inner);
                let Some(token) = pulse.token.clone() else { continue };
                drop(pulse);
                // A beat that fails is tried again with a new connection; if all fail the lease runs out.
                let connection = store.take().map_or_else(|| Store::open(&url), Ok);
                store = connection.and_then(|mut store| store.prolong(&token, lease_seconds).map(|_| store)).ok();
                pulse = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            }
        });
        Self { state }
    }

    pub(crate) fn hold(&self, token: &str) {
        self.set(|pulse| pulse.token = Some(token.to_owned()));
    }

    pub(crate) fn let_go(&self) {
        self.set(|pulse| pulse.token = None);
    }

    fn set(&self, change: impl FnOnce(&mut Pulse)) {
        change(&mut self.state.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.set(|pulse| pulse.is_over = true);
        self.state.1.notify_all();
    }
}
