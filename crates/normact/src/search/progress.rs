//! How far a search is, read from its database: a bar for each strategy where standard error is a terminal,
//! else a line now and then.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use normact_search::{Reason, Run, Store, Verdict};

use super::{Config, failure};
use crate::Failure;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Bars {
    store: Store,
    runs: Vec<Run>,
    anchors: Vec<String>,
    tallies: BTreeMap<i64, Tally>,
    bars: Vec<(String, ProgressBar)>,
    start: Instant,
    at_start: Option<u64>,
    last_line: Instant,
}

/// What a run has come to.
#[derive(Debug, Clone, Default)]
struct Tally {
    finished: u64,
    judged: u64,
    duplicates: u64,
    rejected: BTreeMap<&'static str, u64>,
    best: Vec<f64>,
    best_mean: Option<f64>,
}

impl Bars {
    pub(super) fn new(config: &Config) -> Result<Self, Failure> {
        let mut store = Store::open(&config.database()).map_err(|error| failure(&error))?;
        let runs = store.runs().map_err(|error| failure(&error))?;
        let mut strategies: Vec<String> = runs.iter().map(|run| run.strategy.clone()).collect();
        strategies.dedup();
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix:<14} [{bar:24}] {pos}/{len}  {wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let bar = |strategy: String| {
            let budget = runs.iter().filter(|run| run.strategy == strategy).map(|run| run.budget).sum();
            let bar = all.add(ProgressBar::new(budget).with_style(style.clone()).with_prefix(strategy.clone()));
            (strategy, bar)
        };
        let bars = if std::io::stderr().is_terminal() { strategies.into_iter().map(bar).collect() } else { vec![] };
        let anchors = config.anchors.iter().map(|(name, _)| name.clone()).collect();
        let now = Instant::now();
        let tallies = BTreeMap::new();
        Ok(Self { store, runs, anchors, tallies, bars, start: now, at_start: None, last_line: now })
    }

    /// Reads what is new and shows it.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        for run in &self.runs {
            let tally = self.tallies.entry(run.id).or_default();
            for candidate in self.store.finished(run.id, tally.finished).map_err(|error| failure(&error))? {
                tally.finished = candidate.finish.unwrap_or(tally.finished);
                tally.judged += u64::from(super::was_judged(&candidate));
                tally.duplicates += u64::from(candidate.is_duplicate);
                match candidate.verdict {
                    Some(Verdict::Scored(scores)) => {
                        tally.best.resize(scores.len(), f64::NEG_INFINITY);
                        tally.best.iter_mut().zip(&scores).for_each(|(best, score)| *best = best.max(*score));
                        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                        tally.best_mean = Some(tally.best_mean.map_or(mean, |best| best.max(mean)));
                    }
                    Some(Verdict::Rejected { reason, .. }) => *tally.rejected.entry(reason.name()).or_insert(0) += 1,
                    None => {}
                }
            }
        }
        let finished: u64 = self.tallies.values().map(|tally| tally.finished).sum();
        let at_start = *self.at_start.get_or_insert(finished);
        for (strategy, bar) in &self.bars {
            let tally = self.of(strategy);
            bar.set_position(tally.judged);
            bar.set_message(self.message(&tally));
        }
        if self.bars.is_empty() && (self.last_line.elapsed() >= LINE_EVERY || self.is_complete()) {
            self.last_line = Instant::now();
            let hours = self.start.elapsed().as_secs_f64() / 3600.0;
            let per_hour = (finished - at_start) as f64 / hours.max(1e-6);
            let mut strategies: Vec<&str> = self.runs.iter().map(|run| run.strategy.as_str()).collect();
            strategies.dedup();
            for strategy in strategies {
                let budget: u64 = self.runs.iter().filter(|run| run.strategy == strategy).map(|run| run.budget).sum();
                let tally = self.of(strategy);
                let message = self.message(&tally);
                drop(writeln!(std::io::stderr(), "{strategy:<14} {}/{budget}  {message}", tally.judged));
            }
            drop(writeln!(std::io::stderr(), "{finished} layers, {per_hour:.0} an hour"));
        }
        Ok(())
    }

    /// Whether every run has spent its budget, and every verdict is there.
    pub(super) fn is_complete(&mut self) -> bool {
        self.store.is_complete().unwrap_or(false)
    }

    /// The runs of a strategy together.
    fn of(&self, strategy: &str) -> Tally {
        let mut all = Tally::default();
        for run in self.runs.iter().filter(|run| run.strategy == strategy) {
            let Some(tally) = self.tallies.get(&run.id) else { continue };
            all.finished += tally.finished;
            all.judged += tally.judged;
            all.duplicates += tally.duplicates;
            tally.rejected.iter().for_each(|(reason, count)| *all.rejected.entry(reason).or_insert(0) += count);
            all.best.resize(all.best.len().max(tally.best.len()), f64::NEG_INFINITY);
            all.best.iter_mut().zip(&tally.best).for_each(|(all, best)| *all = all.max(*best));
            all.best_mean = all.best_mean.into_iter().chain(tally.best_mean).reduce(f64::max);
        }
        all
    }

    fn message(&self, tally: &Tally) -> String {
        let rejected: Vec<String> = Reason::ALL
            .iter()
            .filter_map(|reason| tally.rejected.get(reason.name()).map(|count| format!("{} {count}", reason.name())))
            .collect();
        let rejected = if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") };
        let best: Vec<String> = self
            .anchors
            .iter()
            .zip(&tally.best)
            .map(|(anchor, best)| format!("{anchor} {:.1}", best * 100.0))
            .collect();
        let mean = tally.best_mean.map_or("-".to_owned(), |mean| format!("{:.1} %", mean * 100.0));
        format!("best {mean} ({}), rejected: {rejected}, duplicates {}", best.join(", "), tally.duplicates)
    }
}
