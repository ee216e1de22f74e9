//! A function applied to a stream of items by several threads, with results in order.
//!
//! Each item goes to the workers together with the place where its result is expected; those places
//! queue up in the order of the items. The queue is short, and a full queue makes the reader wait, so
//! what is in flight is bounded. Threads are not joined: one that waits for input that never comes
//! ends with the program.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Items in flight for each worker.
const ITEMS_PER_WORKER: usize = 3;
/// Normal forms are made by recursion of bounded depth, which this is more than enough for.
const STACK: usize = 32 << 20;
/// How often somebody who waits looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// The results of a stream of items, in order.
pub(crate) struct Pipeline<O> {
    places: Receiver<Receiver<O>>,
}

impl<O: Send + 'static> Pipeline<O> {
    /// Starts reading and working; each worker is made by `worker` in a thread of its own.
    pub(crate) fn start<I, W>(
        items: impl Iterator<Item = I> + Send + 'static,
        workers: usize,
        worker: impl Fn() -> W + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        I: Send + 'static,
        W: FnMut(I) -> O,
    {
        let in_flight = ITEMS_PER_WORKER * workers;
        let (place_sender, places) = sync_channel::<Receiver<O>>(in_flight);
        let (work_sender, work) = sync_channel::<(I, SyncSender<O>)>(in_flight);
        let work = Arc::new(Mutex::new(work));
        let worker = Arc::new(worker);
        for number in 0..workers {
            let (work, worker) = (Arc::clone(&work), Arc::clone(&worker));
            let thread = thread::Builder::new().name(format!("worker {number}")).stack_size(STACK);
            thread.spawn(move || {
                let mut worker = worker();
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((item, place)) = next else { return };
                    // Nobody waits for the result where the stream was stopped.
                    drop(place.send(worker(item)));
                }
            })?;
        }
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            for item in items {
                let (result_sender, result) = sync_channel(1);
                if place_sender.send(result).is_err() || work_sender.send((item, result_sender)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { places })
    }

    /// The next result; `None` at the end, or once `stop` is set.
    pub(crate) fn next(&mut self, stop: &AtomicBool) -> Option<O> {
        match wait(&self.places, stop) {
            Waited::For(place) => match wait(&place, stop) {
                Waited::For(result) => Some(result),
                Waited::Stopped => None,
                Waited::Ended => unreachable!("workers give a result for every item"),
            },
            Waited::Stopped | Waited::Ended => None,
        }
    }
}

enum Waited<T> {
    For(T),
    Stopped,
    Ended,
}

fn wait<T>(receiver: &Receiver<T>, stop: &AtomicBool) -> Waited<T> {
    loop {
        if stop.load(Ordering::SeqCst) {
            return Waited::Stopped;
        }
        match receiver.recv_timeout(PATIENCE) {
            Ok(value) => return Waited::For(value),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Waited::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn results_are_in_order_and_few_are_in_flight() {
        static READ: AtomicUsize = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let items = (0..2_000usize).inspect(|_| {
            READ.fetch_add(1, Ordering::SeqCst);
        });
        let slow_sometimes = || {
            |item: usize| {
                if item.is_multiple_of(97) {
                    thread::sleep(Duration::from_millis(2));
                }
                item * item
            }
        };
        let mut pipeline = Pipeline::start(items, 3, slow_sometimes).unwrap();
        for expected in 0..2_000 {
            assert_eq!(pipeline.next(&stop), Some(expected * expected));
            let ahead = READ.load(Ordering::SeqCst) - expected;
            assert!(ahead <= 2 * ITEMS_PER_WORKER * 3 + 5, "{ahead} items are in flight");
        }
        assert_eq!(pipeline.next(&stop), None);
    }

    #[test]
    fn a_stopped_stream_ends_though_input_is_awaited() {
        let stop = AtomicBool::new(false);
        let waiting = std::iter::from_fn(|| {
            thread::sleep(Duration::from_secs(3600));
            None::<u8>
        });
        let mut pipeline = Pipeline::start(waiting, 1, || |item: u8| item).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| stop.store(true, Ordering::SeqCst));
            assert_eq!(pipeline.next(&stop), None);
        });
    }
}
