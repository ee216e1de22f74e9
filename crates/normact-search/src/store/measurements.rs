//! What the best layers come to when they are trained again: a row for each training, so that none is done
//! twice however often the work is stopped.

use super::{Row, Store, StoreError};

/// The result of one training after the search.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The genotype, or the name of a fixed layer.
    pub graph: String,
    /// The seed of the training.
    pub seed: u64,
    /// The network.
    pub network: String,
    /// What came out: for the networks of `normact` an accuracy.
    pub score: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Store {
    /// Every measurement under a protocol, a text that says how it was trained.
    ///
    /// # Errors
    /// The database fails.
    pub fn measurements(&mut self, protocol: &str) -> Result<Vec<Measurement>, StoreError> {
        let sql = "SELECT graph, seed, network, score, seconds FROM measurements \
                   WHERE protocol = $1 ORDER BY graph, seed, network";
        let measurement = |row: &Row| {
            Ok(Measurement {
                graph: row.text(0)?.to_owned(),
                seed: row.integer(1)? as u64,
                network: row.text(2)?.to_owned(),
                score: row.real(3)?,
                seconds: row.real(4)?,
            })
        };
        self.connection.query(sql, &[protocol.into()])?.iter().map(measurement).collect()
    }

    /// Keeps a measurement; where another process was faster, its own stays.
    ///
    /// # Errors
    /// The database fails.
    pub fn keep_measurement(&mut self, protocol: &str, measurement: &Measurement) -> Result<(), StoreError> {
        let sql = "INSERT INTO measurements (protocol, graph, seed, network, score, seconds, measured_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, {now}) ON CONFLICT DO NOTHING";
        let Measurement { graph, seed, network, score, seconds } = measurement;
        let values = [
            protocol.into(),
            graph.as_str().into(),
            (*seed as i64).into(),
            network.as_str().into(),
            (*score).into(),
            (*seconds).into(),
        ];
        self.connection.execute(sql, &values).map(drop)
    }
}
