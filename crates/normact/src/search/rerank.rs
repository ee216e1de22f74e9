//! The best layers once more: trained longer, in larger networks, on all training images, and measured on
//! images that the search has not seen.

use std::path::Path;

use normact_ir::Layer;
use normact_search::{Candidate, Origin, Space, Verdict};
use serde::{Deserialize, Serialize};

use super::{Config, baselines, judge};
use crate::anchors::Anchor;
use crate::device::OpenDevice;
use crate::fitness::{MeasureOn, Task, TaskConfig, train_on};
use crate::{Failure, files};

/// The file in the folder of the search that holds the result.
pub const RERANKED_FILE: &str = "reranked.json";

/// The largest such file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A layer that was trained again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Trains the best layers and the baselines again and writes what comes out to [`RERANKED_FILE`].
///
/// # Errors
/// The device or a file fails.
pub fn rerank(
    config: &Config,
    candidates: &[Candidate],
    device: &OpenDevice,
    observe: &mut dyn FnMut(&Reranked),
) -> Result<Vec<Reranked>, Failure> {
    let (options, fixed, space) = (&config.rerank, baselines(config)?, config.space());
    let dataset = judge::dataset(config)?;
    let task = TaskConfig { steps: options.steps, measure_on: MeasureOn::HeldOut, ..config.task.clone() };
    let task = Task::new(&dataset, task, device)?;
    let larger = |anchor: &Anchor| Anchor {
        width: anchor.width * options.width,
        depth: anchor.depth * options.depth,
        ..*anchor
    };
    let anchors: Vec<Anchor> = config.anchors.iter().map(|(_, anchor)| larger(anchor)).collect();
    let found: Vec<Candidate> =
        candidates.iter().filter(|candidate| candidate.origin != Origin::Fixed).cloned().collect();
    let graphs = best(&found, options.top).into_iter().map(|candidate| candidate.graph.clone());
    let mut graphs: Vec<String> = graphs.chain(fixed.iter().map(|(name, _)| name.clone())).collect();
    let mut seen = std::collections::HashSet::new();
    graphs.retain(|graph| seen.insert(graph.clone()));
    let folder = &config.search.out;
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))?;
    let mut all = vec![];
    for graph in graphs {
        let layer = layer_of(&graph, &space, &fixed)?;
        let mut scores = vec![];
        for &seed in &options.seeds {
            let score = |anchor: &Anchor| Ok(train_on(anchor, &layer, &task, seed)?.accuracy);
            scores.push(anchors.iter().map(score).collect::<Result<Vec<f64>, Failure>>()?);
        }
        let reranked = Reranked { graph, scores };
        observe(&reranked);
        all.push(reranked);
    }
    let mean = |one: &Reranked| one.means().iter().sum::<f64>() / one.scores.len() as f64;
    all.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let text = serde_json::to_vec_pretty(&all).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    files::write(&config.search.out.join(RERANKED_FILE), &text)?;
    Ok(all)
}

/// What [`rerank`] wrote, if it did.
///
/// # Errors
/// The file cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Reranked>, Failure> {
    let path = folder.join(RERANKED_FILE);
    if !path.exists() {
        return Ok(vec![]);
    }
    let bytes = files::read(&path, MAX_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("{} is no result of ranking again: {error}", path.display())))
}
