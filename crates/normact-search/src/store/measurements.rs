//! What the best layers come to when they are trained again: a row for each training, which a worker takes as
//! a lease and gives back with a score. So none is made twice, however many workers there are and however
//! often the work is stopped, and what a worker that died had begun is taken over.

use super::database::{Row, Value};
use super::{Lease, Store, StoreError};

/// One training after the search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Training {
    /// The genotype, or the name of a fixed layer.
    pub graph: String,
    /// The seed of the training.
    pub seed: u64,
    /// The network.
    pub network: String,
}

/// The result of a training after the search.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What was trained.
    pub training: Training,
    /// What came out: for the networks of `normact` an accuracy.
    pub score: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How far a training is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TrainingState {
    /// A worker is at it.
    Leased,
    /// Nobody is at it after so many have died over it.
    Left {
        deaths: u64,
    },
    Done(Measurement),
}

impl Store {
    /// Every measurement under a protocol, a text that says how it was trained.
    ///
    /// # Errors
    /// The database fails.
    pub fn measurements(&mut self, protocol: &str) -> Result<Vec<Measurement>, StoreError> {
        let done = |(_, state)| match state {
            TrainingState::Done(measurement) => Some(measurement),
            TrainingState::Leased | TrainingState::Left { .. } => None,
        };
        Ok(self.trainings(protocol)?.into_iter().filter_map(done).collect())
    }

    /// Every training under a protocol that any worker has begun.
    pub(crate) fn trainings(&mut self, protocol: &str) -> Result<Vec<(Training, TrainingState)>, StoreError> {
        let sql = format!(
            "SELECT graph, seed, network, state, CAST(CASE WHEN {HELD} THEN 1 ELSE 0 END AS BIGINT), attempts, \
             coalesce(score, 0.0), coalesce(seconds, 0.0) FROM measurements WHERE protocol = $1 ORDER BY graph, seed, network"
        );
        let one = |row: &Row| {
            let training = Training {
                graph: row.text(0)?.to_owned(),
                seed: row.integer(1)? as u64,
                network: row.text(2)?.to_owned(),
            };
            let state = match (row.text(3)?, row.integer(4)?) {
                ("done", _) => TrainingState::Done(Measurement {
                    training: training.clone(),
                    score: row.real(6)?,
                    seconds: row.real(7)?,
                }),
                (_, 0) => TrainingState::Left { deaths: row.integer(5)? as u64 },
                (_, _) => TrainingState::Leased,
            };
            Ok((training, state))
        };
        self.connection.query(&sql, &[protocol.into()])?.iter().map(one).collect()
    }

    /// Takes a training that nobody has made and nobody is at; tells whether that succeeded.
    pub(crate) fn take_training(
        &mut self,
        protocol: &str,
        training: &Training,
        lease: &Lease,
    ) -> Result<bool, StoreError> {
        // After a connection that broke, the lease may be this worker's own already.
        let sql = format!(
            "INSERT INTO measurements (protocol, graph, seed, network, state, token, worker, lease_until, attempts) \
             VALUES ($1, $2, $3, $4, 'leased', $5, $6, {{now}} + $7, 1) \
             ON CONFLICT (protocol, graph, seed, network) DO UPDATE SET token = excluded.token, \
             worker = excluded.worker, lease_until = excluded.lease_until, attempts = measurements.attempts + 1 \
             WHERE measurements.state = 'leased' AND (measurements.token = excluded.token OR NOT {HELD})"
        );
        let mut values = key(protocol, training);
        values.extend([lease.token.as_str().into(), lease.worker.as_str().into(), lease.seconds.into()]);
        Ok(self.connection.execute(&sql, &values)? > 0)
    }

    /// Keeps what came of a training, and tells whether the lease was still held; otherwise nothing is changed.
    pub(crate) fn keep_measurement(
        &mut self,
        protocol: &str,
        measurement: &Measurement,
        token: &str,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE measurements SET state = 'done', score = $1, seconds = $2, measured_at = {now} \
                   WHERE token = $3 AND state = 'leased' \
                   AND protocol = $4 AND graph = $5 AND seed = $6 AND network = $7";
        let mut values: Vec<Value> = vec![measurement.score.into(), measurement.seconds.into(), token.into()];
        values.extend(key(protocol, &measurement.training));
        Ok(self.connection.execute(sql, &values)? > 0)
    }

    /// Gives a training back.
    pub(crate) fn release_training(&mut self, token: &str) -> Result<(), StoreError> {
        // Without a token, so that a second time changes nothing.
        let sql = "UPDATE measurements SET token = '', lease_until = 0.0, attempts = attempts - 1 \
                   WHERE token = $1 AND state = 'leased'";
        self.connection.execute(sql, &[token.into()]).map(drop)
    }

    /// Prolongs the lease of a training; tells whether it was still held.
    pub(crate) fn prolong_training(&mut self, token: &str, lease_seconds: f64) -> Result<bool, StoreError> {
        let sql = "UPDATE measurements SET lease_until = {now} + $1 WHERE token = $2 AND state = 'leased'";
        Ok(self.connection.execute(sql, &[lease_seconds.into(), token.into()])? > 0)
    }
}

/// Whether a lease has neither run out nor lost its worker: those known to be dead are no longer listed.
const HELD: &str = "(measurements.lease_until >= {now} AND measurements.worker IN (SELECT id FROM workers))";

fn key(protocol: &str, training: &Training) -> Vec<Value> {
    let Training { graph, seed, network } = training;
    vec![protocol.into(), graph.as_str().into(), (*seed as i64).into(), network.as_str().into()]
}
