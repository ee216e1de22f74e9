//! The best layers once more: trained longer, in larger networks, on all training images, and measured on
//! images that the search has not seen.
//!
//! Each training is a lease in the database and then a row, under a text that says how it is done. So any number
//! of workers share them, the work goes on where it was stopped, a larger `top` or more seeds train only what is
//! missing, and other steps or networks begin anew beside the old results.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use normact_search::{Candidate, End, Origin, Store, Training, Trainings, mean, measure, ranked};

use super::formula::Layers;
use super::{Config, History, failure, judge, open, search_failure, tell};
use crate::Failure;
use crate::anchors::Anchor;
use crate::device::OpenDevice;
use crate::fitness::{MeasureOn, Task, TaskConfig, train_on};

/// A layer that was trained again.
#[derive(Debug, Clone, PartialEq)]
pub struct Reranked {
    /// The genotype, or the name of a baseline.
    pub graph: String,
    /// For each seed its accuracy in each network, in the order of [`Config::rerank_anchors`].
    pub scores: Vec<Vec<f64>>,
    /// Its place among the layers that are kept, from 1: the best that the search found, the baselines apart.
    pub kept: Option<usize>,
}

impl Reranked {
    /// The mean over networks for each seed, as far as that is a number.
    pub fn means(&self) -> Vec<f64> {
        self.scores.iter().map(|scores| mean(scores)).filter(|mean| mean.is_finite()).collect()
    }

    /// The mean over the seeds.
    pub fn mean(&self) -> Option<f64> {
        let means = self.means();
        (!means.is_empty()).then(|| mean(&means))
    }

    /// The standard deviation between the seeds; nothing where there is but one.
    pub fn deviation(&self) -> Option<f64> {
        let means = self.means();
        let middle = mean(&means);
        let squares: f64 = means.iter().map(|mean| (mean - middle).powi(2)).sum();
        (means.len() > 1).then(|| (squares / (means.len() - 1) as f64).sqrt())
    }
}

/// The trainings of ranking again.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// How they are done, as far as the search does not say it.
    protocol: String,
    /// The best layers of the search.
    found: Vec<String>,
    baselines: Vec<String>,
    seeds: Vec<u64>,
    /// The networks, each under a text that says everything about it.
    networks: Vec<(String, Anchor)>,
    /// How many layers are kept.
    keep: usize,
}

impl Plan {
    pub(super) fn new(config: &Config, candidates: &[Candidate]) -> Result<Self, Failure> {
        let options = &config.rerank;
        let drawn = ranked(candidates).into_iter().filter(|candidate| candidate.origin != Origin::Fixed);
        let networks = config.rerank_anchors().into_iter().map(|(name, anchor)| (format!("{name}: {anchor}"), anchor));
        let is_wanted = options.top > 0;
        Ok(Self {
            protocol: format!("{} steps", options.steps),
            found: drawn.take(options.top).map(|candidate| candidate.graph.clone()).collect(),
            baselines: config.baselines()?.into_iter().filter(|_| is_wanted).map(|(name, _)| name).collect(),
            seeds: options.seeds.clone(),
            networks: networks.collect(),
            keep: options.keep,
        })
    }

    fn graphs(&self) -> impl Iterator<Item = &String> {
        self.found.iter().chain(&self.baselines)
    }

    /// How many layers are trained again.
    pub(super) fn layers(&self) -> usize {
        self.graphs().count()
    }

    /// Every training, layer by layer.
    pub(super) fn trainings(&self) -> Vec<Training> {
        let mut trainings = vec![];
        for graph in self.graphs() {
            for &seed in &self.seeds {
                let of = |(network, _): &(String, _)| Training { graph: graph.clone(), seed, network: network.clone() };
                trainings.extend(self.networks.iter().map(of));
            }
        }
        trainings
    }

    /// The scores that are there.
    pub(super) fn scores(&self, store: &mut Store) -> Result<HashMap<Training, f64>, Failure> {
        let measurements = store.measurements(&self.protocol).map_err(|error| failure(&error))?;
        Ok(measurements.into_iter().map(|one| (one.training, one.score)).collect())
    }

    /// The layers whose trainings are all there, the best first.
    pub(super) fn reranked(&self, scores: &HashMap<Training, f64>) -> Vec<Reranked> {
        let score = |graph: &String, seed: u64, network: &String| {
            scores.get(&Training { graph: graph.clone(), seed, network: network.clone() }).copied()
        };
        let reranked = |graph: &String| {
            let of_seed = |&seed: &u64| self.networks.iter().map(|(network, _)| score(graph, seed, network)).collect();
            let scores: Option<Vec<Vec<f64>>> = self.seeds.iter().map(of_seed).collect();
            Some(Reranked { graph: graph.clone(), scores: scores?, kept: None })
        };
        let mut all: Vec<Reranked> = self.graphs().filter_map(reranked).collect();
        let mean = |one: &Reranked| one.mean().unwrap_or(f64::NEG_INFINITY);
        all.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        // While trainings are missing, nothing is chosen yet.
        if all.len() == self.layers() {
            let found = all.iter_mut().filter(|one| self.found.contains(&one.graph));
            (1..=self.keep).zip(found).for_each(|(place, one)| one.kept = Some(place));
        }
        all
    }
}

/// Trains the best layers and the baselines again, as far as nobody has done that, together with other workers.
/// What is under way is finished when `stop` is set.
///
/// # Errors
/// The database holds another search or none; the database or the device fails.
pub fn rerank(config: &Config, device: &OpenDevice, stop: &AtomicBool) -> Result<End, Failure> {
    let dataset = judge::dataset(config)?;
    let mut store = open(config, Some((&dataset, device)))?;
    let plan = Plan::new(config, &store.candidates().map_err(|error| failure(&error))?)?;
    let layers = Layers::of(config)?;
    let options = TaskConfig { steps: config.rerank.steps, measure_on: MeasureOn::HeldOut, ..config.task.clone() };
    let task = Task::new(&dataset, options, device)?;
    let mut train = |training: &Training| {
        let Training { graph, seed, network } = training;
        let anchor = plan.networks.iter().find(|(name, _)| name == network).map(|(_, anchor)| anchor);
        let anchor = anchor.unwrap_or_else(|| unreachable!("{network} is one of the plan"));
        let made = layers.layer(graph).and_then(|layer| train_on(anchor, &layer, &task, *seed));
        made.map(|score| score.accuracy).map_err(|failure| failure.in_words())
    };
    let (url, wanted) = (config.database(), plan.trainings());
    let trainings = Trainings {
        protocol: &plan.protocol,
        wanted: &wanted,
        lease_seconds: config.search.lease_seconds,
        max_deaths: config.search.max_deaths,
    };
    measure(&url, &trainings, &mut train, stop, &tell).map_err(|error| search_failure(&error))
}

/// What ranking again has come to.
pub(super) fn reranked(config: &Config, store: &mut Store, candidates: &[Candidate]) -> Result<Vec<Reranked>, Failure> {
    let plan = Plan::new(config, candidates)?;
    Ok(plan.reranked(&plan.scores(store)?))
}

impl History {
    /// The layers that ranking again keeps, the best first.
    pub fn kept(&self) -> impl Iterator<Item = &Reranked> {
        self.reranked.iter().filter(|one| one.kept.is_some())
    }
}
