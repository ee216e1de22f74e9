//! Sharing numbered jobs out between cores.
//!
//! The calling thread takes part: it would else sleep while rayon's threads wake up, and that takes as long as a
//! small layer does. A thread that wakes up late does less.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// The results of so many jobs, in their order, whoever did them.
pub(super) fn share<T: Send>(jobs: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    // A thread of rayon takes other work while it waits, as long as all goes through rayon.
    if rayon::current_thread_index().is_some() {
        return (0..jobs).into_par_iter().map(&run).collect();
    }
    let cores = rayon::current_num_threads().min(jobs).max(1);
    let start = |core: usize| jobs * core / cores;
    let next: Vec<AtomicUsize> = (0..cores).map(|core| AtomicUsize::new(start(core))).collect();
    let done = Mutex::new(Vec::with_capacity(jobs));
    // Neighbouring jobs, which read neighbouring memory, go to one core, and what a late one has left to all.
    let take = |first: usize| {
        let mut own = vec![];
        for core in (first..cores).chain(0..first) {
            loop {
                let job = next[core].fetch_add(1, Ordering::Relaxed);
                if job >= start(core + 1) {
                    break;
                }
                own.push((job, run(job)));
            }
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
    };
    rayon::in_place_scope(|scope| {
        let take = &take;
        for core in 1..cores {
            scope.spawn(move |_| take(core));
        }
        take(0);
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(job, _)| job);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn results_keep_their_order() {
        for jobs in [1, 2, 3, 64, 1000] {
            let squares: Vec<usize> = (0..jobs).map(|job| job * job).collect();
            assert_eq!(share(jobs, |job| job * job), squares);
            let within = || share(jobs, |job| job * job);
            assert_eq!(rayon::join(within, within), (squares.clone(), squares));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let panics = || share(64, |job| assert!(job != 40, "the job fails"));
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
