//! The best layers once more: trained longer, in larger networks, on all training images, and measured on
//! images that the search has not seen.
//!
//! Each training goes into the database when it ends, under a text that says how it was done. So the work goes
//! on where it was stopped, a larger `top` or more seeds train only what is missing, and other steps or sizes
//! begin anew beside the old results.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use normact_ir::Layer;
use normact_search::{Candidate, End, Measurement, Origin, Space, Store, Verdict};

use super::{Config, baselines, failure, judge};
use crate::Failure;
use crate::anchors::Anchor;
use crate::device::OpenDevice;
use crate::fitness::{MeasureOn, Task, TaskConfig, train_on};

/// A layer that was trained again.
#[derive(Debug, Clone, PartialEq)]
pub struct Reranked {
    /// The genotype, or the name of a baseline.
    pub graph: String,
    /// For each seed its accuracy in each network, in the order of their names.
    pub scores: Vec<Vec<f64>>,
}

impl Reranked {
    /// The mean over networks, for each seed.
    pub fn means(&self) -> Vec<f64> {
        self.scores.iter().map(|scores| scores.iter().sum::<f64>() / scores.len() as f64).collect()
    }
}

/// The layers with the best means over the networks, each key once, the best first.
pub fn best(candidates: &[Candidate], count: usize) -> Vec<&Candidate> {
    let mean = |candidate: &Candidate| match &candidate.verdict {
        Some(Verdict::Scored(scores)) => Some(scores.iter().sum::<f64>() / scores.len() as f64),
        _ => None,
    };
    let mut scored: Vec<(f64, &Candidate)> =
        candidates.iter().filter_map(|candidate| Some((mean(candidate)?, candidate))).collect();
    // The first of those with one key, and of those with one score.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut keys = std::collections::HashSet::new();
    scored.into_iter().map(|(_, candidate)| candidate).filter(|one| keys.insert(&one.key)).take(count).collect()
}

/// The layer of a candidate.
///
/// # Errors
/// Its graph is none of this search.
pub fn layer_of(graph: &str, space: &Space, fixed: &[(String, Layer)]) -> Result<Layer, Failure> {
    if let Some((_, layer)) = fixed.iter().find(|(name, _)| name == graph) {
        return Ok(layer.clone());
    }
    let genotype = space.parse(graph).map_err(|error| Failure::new(format!("the database is damaged: {error}")))?;
    Ok(genotype.layer("found"))
}

/// Trains the best layers and the baselines again, as far as that has not been done; `observe` sees each layer
/// once all its trainings are there. What is under way is finished when `stop` is set.
///
/// # Errors
/// The database or the device fails.
pub fn rerank(
    config: &Config,
    candidates: &[Candidate],
    device: &OpenDevice,
    stop: &AtomicBool,
    observe: &mut dyn FnMut(&Reranked),
) -> Result<End, Failure> {
    let (options, fixed, space) = (&config.rerank, baselines(config)?, config.space());
    let dataset = judge::dataset(config)?;
    let task = TaskConfig { steps: options.steps, measure_on: MeasureOn::HeldOut, ..config.task.clone() };
    let task = Task::new(&dataset, task, device)?;
    let mut store = Store::open(&config.database()).map_err(|error| failure(&error))?;
    let mut known = Known::read(config, &mut store)?;
    for graph in graphs(config, candidates) {
        let layer = layer_of(&graph, &space, &fixed)?;
        for &seed in &options.seeds {
            for (network, anchor) in &config.anchors {
                let place = (graph.clone(), seed, network.clone());
                if known.scores.contains_key(&place) {
                    continue;
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(End::Stopped);
                }
                let larger =
                    Anchor { width: anchor.width * options.width, depth: anchor.depth * options.depth, ..*anchor };
                let start = Instant::now();
                let score = train_on(&larger, &layer, &task, seed)?.accuracy;
                let seconds = start.elapsed().as_secs_f64();
                let measurement = Measurement { graph: graph.clone(), seed, network: network.clone(), score, seconds };
                store.keep_measurement(&protocol(config), &measurement).map_err(|error| failure(&error))?;
                known.scores.insert(place, score);
            }
        }
        observe(&known.of(config, &graph).unwrap_or_else(|| unreachable!("every training of it is done")));
    }
    Ok(End::Complete)
}

/// The layers whose trainings are all there, with the options of the configuration, the best first.
///
/// # Errors
/// The database fails.
pub fn reranked(config: &Config, candidates: &[Candidate]) -> Result<Vec<Reranked>, Failure> {
    let mut store = Store::open(&config.database()).map_err(|error| failure(&error))?;
    let known = Known::read(config, &mut store)?;
    let mut all: Vec<Reranked> =
        graphs(config, candidates).iter().filter_map(|graph| known.of(config, graph)).collect();
    let mean = |one: &Reranked| one.means().iter().sum::<f64>() / one.scores.len() as f64;
    all.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    Ok(all)
}

/// How the layers are trained again, as far as the search does not say it.
fn protocol(config: &Config) -> String {
    let super::RerankTable { steps, width, depth, .. } = &config.rerank;
    format!("{steps} steps, width x {width:?}, depth x {depth:?}")
}

/// The layers that are trained again: the best of the search, then the baselines.
fn graphs(config: &Config, candidates: &[Candidate]) -> Vec<String> {
    if config.rerank.top == 0 {
        return vec![];
    }
    let found: Vec<Candidate> =
        candidates.iter().filter(|candidate| candidate.origin != Origin::Fixed).cloned().collect();
    let found = best(&found, config.rerank.top).into_iter().map(|candidate| candidate.graph.clone());
    found.chain(config.search.baselines.iter().cloned()).collect()
}

/// Accuracies by graph, seed and network.
struct Known {
    scores: HashMap<(String, u64, String), f64>,
}

impl Known {
    fn read(config: &Config, store: &mut Store) -> Result<Self, Failure> {
        let measurements = store.measurements(&protocol(config)).map_err(|error| failure(&error))?;
        let scores = measurements.into_iter().map(|one| ((one.graph, one.seed, one.network), one.score)).collect();
        Ok(Self { scores })
    }

    /// A layer, if all its trainings are known.
    fn of(&self, config: &Config, graph: &str) -> Option<Reranked> {
        let score = |seed: u64, network: &str| self.scores.get(&(graph.to_owned(), seed, network.to_owned())).copied();
        let of_seed = |&seed: &u64| config.anchors.iter().map(|(network, _)| score(seed, network)).collect();
        let scores: Option<Vec<Vec<f64>>> = config.rerank.seeds.iter().map(of_seed).collect();
        Some(Reranked { graph: graph.to_owned(), scores: scores? })
    }
}
