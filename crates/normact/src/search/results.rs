//! What came of a search, as lines for people and for other programs: the baselines, each run, and what ranking
//! again made of the best.

use std::collections::BTreeMap;
use std::fmt;

use normact_search::{Candidate, Reason, Run, Strategy, Verdict, ranked};
use serde::Serialize;

use super::formula::Layers;
use super::rerank::Reranked;
use super::{Config, History, was_judged};
use crate::Failure;

/// A line of the results. In JSON its keys are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Line {
    /// A layer to compare with.
    Baseline {
        /// Its name.
        layer: String,
        /// The mean over the networks, if it has been trained.
        mean: Option<f64>,
        /// The score in each network.
        scores: BTreeMap<String, f64>,
    },
    /// A run.
    Run {
        /// How it found its candidates.
        strategy: String,
        /// The seed.
        seed: u64,
        /// How many layers it may have judged.
        budget: u64,
        /// How many were.
        judged: usize,
        /// How many of those were trained to the end.
        trained: usize,
        /// Candidates, also those that cost nothing.
        proposed: usize,
        /// Those that were met before.
        duplicates: usize,
        /// How many different layers were rejected, by reason.
        rejected: BTreeMap<&'static str, usize>,
        /// Seconds of judging.
        seconds: f64,
        /// The best.
        best: Option<Best>,
    },
    /// A layer that was trained again.
    Reranked {
        /// The name of a baseline, or a formula.
        layer: String,
        /// Its place among those that are kept.
        kept: Option<usize>,
        /// The mean over the seeds of the mean over the networks.
        mean: Option<f64>,
        /// The standard deviation between the seeds.
        deviation: Option<f64>,
        /// For each seed the score in each network.
        seeds: Vec<BTreeMap<String, f64>>,
    },
    /// The page.
    Report {
        /// Where it is.
        path: String,
    },
    /// The work was stopped and can be gone on with.
    Stopped,
}

/// A layer with its scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Best {
    /// Its number in the run.
    pub number: u64,
    /// Its canonical key.
    pub key: String,
    /// The formula, on one line.
    pub formula: String,
    /// The mean over the networks.
    pub mean: f64,
    /// The score in each network.
    pub scores: BTreeMap<String, f64>,
}

/// What came of a search, in the order of its runs, and of ranking again, the best first.
///
/// # Errors
/// A baseline cannot be read any more.
pub fn summary(config: &Config, history: &History) -> Result<Vec<Line>, Failure> {
    let layers = Layers::of(config)?;
    let networks: Vec<String> = config.anchors.iter().map(|(name, _)| name.clone()).collect();
    let mut lines = vec![];
    for run in &history.runs {
        let own: Vec<Candidate> =
            history.candidates.iter().filter(|candidate| candidate.run == run.id).cloned().collect();
        if run.strategy == Strategy::Fixed.name() {
            lines.extend(own.iter().map(|candidate| Line::Baseline {
                layer: candidate.graph.clone(),
                mean: candidate.mean(),
                scores: named(&networks, candidate.scores().unwrap_or_default()),
            }));
        } else {
            lines.push(line_of(run, &own, &layers, &networks));
        }
    }
    let networks: Vec<String> = config.rerank_anchors().into_iter().map(|(name, _)| name).collect();
    lines.extend(history.reranked.iter().map(|one: &Reranked| Line::Reranked {
        layer: layers.name(&one.graph),
        kept: one.kept,
        mean: one.mean(),
        deviation: one.deviation(),
        seeds: one.scores.iter().map(|scores| named(&networks, scores)).collect(),
    }));
    Ok(lines)
}

fn line_of(run: &Run, own: &[Candidate], layers: &Layers, networks: &[String]) -> Line {
    let judged: Vec<&Candidate> = own.iter().filter(|candidate| was_judged(candidate)).collect();
    let mut rejected = BTreeMap::new();
    for candidate in own.iter().filter(|candidate| !candidate.is_duplicate) {
        if let Some(reason) = candidate.verdict.as_ref().and_then(Verdict::reason) {
            *rejected.entry(Reason::name(reason)).or_insert(0) += 1;
        }
    }
    let best = ranked(own).first().and_then(|candidate| {
        Some(Best {
            number: candidate.number,
            key: candidate.key.clone(),
            formula: layers.name(&candidate.graph),
            mean: candidate.mean()?,
            scores: named(networks, candidate.scores()?),
        })
    });
    Line::Run {
        strategy: run.strategy.clone(),
        seed: run.seed,
        budget: run.budget,
        judged: judged.len(),
        trained: judged.iter().filter(|candidate| candidate.scores().is_some()).count(),
        proposed: own.len(),
        duplicates: own.iter().filter(|candidate| candidate.is_duplicate).count(),
        rejected,
        seconds: own.iter().map(|candidate| candidate.seconds).sum(),
        best,
    }
}

/// Scores under the names of their networks.
pub(crate) fn named(networks: &[String], scores: &[f64]) -> BTreeMap<String, f64> {
    networks.iter().cloned().zip(scores.iter().copied()).collect()
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Baseline { layer, mean, .. } => write!(f, "{layer:<22} {}", percent(*mean)),
            Line::Run { strategy, seed, judged, trained, proposed, seconds, best, .. } => {
                let name = format!("{strategy} seed {seed}");
                let score = percent(best.as_ref().map(|best| best.mean));
                write!(
                    f,
                    "{name:<22} {score}  best of {judged} different layers, {trained} of them trained to the end, \
                     {proposed} proposed, {seconds:.0} s of judging"
                )
            }
            Line::Reranked { layer, kept, mean, deviation, .. } => {
                let kept = kept.map_or(String::new(), |place| format!("kept {place}"));
                write!(f, "{:<22} {} {}  {kept:<7} {layer}", "held out", percent(*mean), spread(*deviation))
            }
            Line::Report { path } => write!(f, "{:<22} {path}", "report"),
            Line::Stopped => write!(f, "stopped; start it again to go on"),
        }
    }
}

/// A share as a percentage, or a dash where there is none.
fn percent(share: Option<f64>) -> String {
    share.map_or(format!("{:>8}", "-"), |share| format!("{:6.2} %", share * 100.0))
}

/// A standard deviation, in the width of one.
fn spread(deviation: Option<f64>) -> String {
    deviation.map_or(" ".repeat(6), |deviation| format!("± {:4.2}", deviation * 100.0))
}
