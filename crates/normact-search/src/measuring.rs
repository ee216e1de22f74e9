//! Trainings after the search, shared by whoever takes part: each worker takes one that nobody has made, makes
//! it, stores the score, and begins again until all are there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::store::{Measurement, Store, Training, TrainingState};
use crate::worker::{End, Heart, IDLE, SearchError, host, is_alive, token, worker_id};

/// After so many workers have died over a training, it is taken to be the reason.
const MAX_ATTEMPTS: i64 = 5;

/// Makes those of the `wanted` trainings that nobody has made, in their order and together with other workers,
/// until all are there or `stop` is set. `protocol` says how the trainings are made, `train` makes one and gives
/// its score. What is under way when `stop` is set is finished.
///
/// # Errors
/// The database or a training fails, or workers keep dying over one.
pub fn measure(
    url: &str,
    protocol: &str,
    wanted: &[Training],
    lease_seconds: f64,
    train: &mut dyn FnMut(&Training) -> Result<f64, String>,
    stop: &AtomicBool,
) -> Result<End, SearchError> {
    let mut store = Store::open(url)?;
    let worker = worker_id();
    store.register(&worker, &host(), std::process::id(), is_alive)?;
    let heart = Heart::start(url, lease_seconds, Store::prolong_training);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(End::Stopped);
        }
        let training = match next(&mut store, protocol, wanted)? {
            Next::Make(training) => training,
            Next::Wait => {
                std::thread::sleep(IDLE);
                continue;
            }
            Next::Nothing => return Ok(End::Complete),
        };
        let token = token(&worker);
        if !store.take_training(protocol, training, &worker, &token, lease_seconds)? {
            continue;
        }
        let start = Instant::now();
        heart.hold(&token);
        let score = train(training);
        heart.let_go();
        let score = score.inspect_err(|_| {
            // If that fails too, the lease runs out.
            let _ = store.release_training(&token);
        });
        let score = score.map_err(SearchError::Fitness)?;
        let measurement = Measurement { training: training.clone(), score, seconds: start.elapsed().as_secs_f64() };
        store.keep_measurement(protocol, &measurement, &token)?;
    }
}

enum Next<'a> {
    Make(&'a Training),
    /// Others are at all that is left.
    Wait,
    Nothing,
}

fn next<'a>(store: &mut Store, protocol: &str, wanted: &'a [Training]) -> Result<Next<'a>, SearchError> {
    let begun = store.trainings(protocol)?;
    let begun: HashMap<&Training, &TrainingState> = begun.iter().map(|(training, state)| (training, state)).collect();
    let (mut waits, mut hopeless) = (false, None);
    for training in wanted {
        match begun.get(training) {
            Some(TrainingState::Done(_)) => {}
            Some(TrainingState::Leased) => waits = true,
            Some(TrainingState::Left { attempts }) if *attempts >= MAX_ATTEMPTS => hopeless = Some(training),
            Some(TrainingState::Left { .. }) | None => return Ok(Next::Make(training)),
        }
    }
    match hopeless {
        _ if waits => Ok(Next::Wait),
        None => Ok(Next::Nothing),
        Some(Training { graph, seed, network }) => Err(SearchError::Fitness(format!(
            "{MAX_ATTEMPTS} workers have died while they trained {graph} with seed {seed} in {network}"
        ))),
    }
}
