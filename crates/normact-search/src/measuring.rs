//! Trainings after the search, shared by whoever takes part: each worker takes one that nobody has made, makes
//! it, stores the score, and begins again until all are there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::heart::Heart;
use crate::notice::Notice;
use crate::process::{host, is_alive, token, worker_id};
use crate::store::{Lease, Measurement, Store, Training, TrainingState};
use crate::worker::{End, IDLE, SearchError};

/// Trainings that are to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainings<'a> {
    /// How they are made, in a text; under another one everything begins anew.
    pub protocol: &'a str,
    /// Which, in the order in which they are taken.
    pub wanted: &'a [Training],
    /// Seconds after which another worker takes over what one has left.
    pub lease_seconds: f64,
    /// After so many workers have died over a training it is taken to be the reason, and an error; 0 for never.
    pub max_deaths: u64,
}

/// Makes those of the trainings that nobody has made, together with other workers, until all are there or `stop` is
/// set. `train` makes one and gives its score. What is under way when `stop` is set is finished.
///
/// # Errors
/// The database or a training fails, or workers keep dying over one. What was taken is given back.
pub fn measure(
    url: &str,
    trainings: &Trainings<'_>,
    train: &mut dyn FnMut(&Training) -> Result<f64, String>,
    stop: &AtomicBool,
    notify: &(dyn Fn(Notice) + Sync),
) -> Result<End, SearchError> {
    let (mut store, heart_store) = (Store::open_existing(url)?, Store::open_existing(url)?);
    let id = worker_id();
    store.register(&id, &host(), std::process::id(), is_alive)?;
    std::thread::scope(|scope| {
        let heart = Heart::start(scope, heart_store, id.clone(), trainings.lease_seconds, notify);
        let end = work(&mut store, trainings, &id, &heart, train, stop)?;
        store.leave(&id)?;
        Ok(end)
    })
}

fn work(
    store: &mut Store,
    trainings: &Trainings<'_>,
    worker: &str,
    heart: &Heart,
    train: &mut dyn FnMut(&Training) -> Result<f64, String>,
    stop: &AtomicBool,
) -> Result<End, SearchError> {
    let Trainings { protocol, lease_seconds, .. } = *trainings;
    while !stop.load(Ordering::Relaxed) {
        let training = match next(store, trainings)? {
            Next::Make(training) => training,
            Next::Wait => {
                std::thread::sleep(IDLE);
                continue;
            }
            Next::Nothing => return Ok(End::Complete),
        };
        let lease = Lease { worker: worker.to_owned(), token: token(worker), seconds: lease_seconds };
        if !store.take_training(protocol, training, &lease)? {
            continue;
        }
        let start = Instant::now();
        let is_void = heart.hold(&lease.token);
        let score = train(training);
        heart.let_go();
        match score {
            Ok(score) => {
                let seconds = start.elapsed().as_secs_f64();
                let measurement = Measurement { training: training.clone(), score, seconds };
                store.keep_measurement(protocol, &measurement, &lease.token)?;
            }
            Err(_) if is_void.load(Ordering::Relaxed) => {}
            Err(problem) => {
                // If that fails too, the lease runs out.
                let _ = store.release_training(&lease.token);
                return Err(failed(problem, training));
            }
        }
    }
    Ok(End::Stopped)
}

enum Next<'a> {
    Make(&'a Training),
    /// Others are at all that is left.
    Wait,
    Nothing,
}

fn next<'a>(store: &mut Store, trainings: &Trainings<'a>) -> Result<Next<'a>, SearchError> {
    let Trainings { protocol, wanted, max_deaths, .. } = *trainings;
    let begun: HashMap<Training, TrainingState> = store.trainings(protocol)?.into_iter().collect();
    let (mut waits, mut hopeless) = (false, None::<(&Training, u64)>);
    for training in wanted {
        match begun.get(training) {
            Some(TrainingState::Done(_)) => {}
            Some(TrainingState::Leased) => waits = true,
            Some(TrainingState::Left { deaths }) if max_deaths > 0 && *deaths >= max_deaths => {
                hopeless = Some((training, *deaths));
            }
            Some(TrainingState::Left { .. }) | None => return Ok(Next::Make(training)),
        }
    }
    match hopeless {
        _ if waits => Ok(Next::Wait),
        None => Ok(Next::Nothing),
        Some((training, deaths)) => {
            let Training { seed, network, .. } = training;
            let problem = format!("{deaths} workers have died over a training with seed {seed} in {network}");
            Err(failed(problem, training))
        }
    }
}

fn failed(problem: String, training: &Training) -> SearchError {
    SearchError::Fitness { problem, graph: training.graph.clone(), failures: 1, max_failures: 0 }
}
