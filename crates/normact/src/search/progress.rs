//! How far a search is, read from its database: lines that are drawn again and again where standard error is a
//! terminal, else written now and then.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use normact_search::{Reason, Run, Store, Verdict, mean};

use super::rerank::Plan;
use super::{Config, Work, failure, was_judged};
use crate::Failure;

/// How often lines are written where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(30);

/// Watches a search.
pub(super) struct Watch<'a> {
    config: &'a Config,
    work: Work,
    store: Store,
    runs: Vec<Run>,
    tallies: BTreeMap<i64, Tally>,
    searching: Pace,
    /// Ranking again, once it is known what that takes.
    ranking: Option<Ranking>,
    screen: Option<Screen>,
    written: Instant,
    is_searched: bool,
}

/// What a run has come to, or several.
#[derive(Debug, Clone, Default)]
struct Tally {
    finished: u64,
    judged: u64,
    budget: u64,
    duplicates: u64,
    rejected: BTreeMap<&'static str, u64>,
    /// The best mean over the networks.
    best: Option<f64>,
    /// The best in each network.
    best_in: Vec<f64>,
}

struct Ranking {
    plan: Plan,
    wanted: u64,
    done: u64,
    pace: Pace,
    /// Layers that have all of their trainings, of so many.
    layers: [usize; 2],
}

impl<'a> Watch<'a> {
    pub(super) fn new(config: &'a Config, work: Work) -> Result<Self, Failure> {
        let mut store = super::open(config, None)?;
        let runs = store.runs().map_err(|error| failure(&error))?;
        let screen = std::io::stderr().is_terminal().then(Screen::default);
        Ok(Self {
            config,
            work,
            store,
            runs,
            tallies: BTreeMap::new(),
            searching: Pace::default(),
            ranking: None,
            screen,
            written: Instant::now(),
            is_searched: work == Work::RankingAgain,
        })
    }

    /// Reads what is new and shows it. Tells how far the search is, in a measure that grows.
    pub(super) fn look(&mut self) -> Result<u64, Failure> {
        if self.work == Work::Everything {
            // In this order: what is complete has no verdict that is still to be read.
            self.is_searched = self.store.is_complete().map_err(|error| failure(&error))?;
            self.read_verdicts()?;
        }
        if self.is_searched && self.config.rerank.top > 0 {
            self.read_trainings()?;
        }
        let finished: u64 = self.tallies.values().map(|tally| tally.finished).sum();
        let trained = self.ranking.as_ref().map_or(0, |ranking| ranking.done);
        self.show();
        Ok(finished + trained)
    }

    /// Whether everything is done.
    pub(super) fn is_complete(&self) -> bool {
        let is_ranked = self.ranking.as_ref().is_some_and(|ranking| ranking.done == ranking.wanted);
        self.is_searched && (self.config.rerank.top == 0 || is_ranked)
    }

    /// Says something beside the lines.
    pub(super) fn say(&self, text: &str) {
        match &self.screen {
            Some(screen) => screen.say(text),
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn read_verdicts(&mut self) -> Result<(), Failure> {
        for run in &self.runs {
            let tally = self.tallies.entry(run.id).or_default();
            tally.budget = run.budget;
            for candidate in self.store.finished(run.id, tally.finished).map_err(|error| failure(&error))? {
                tally.finished = candidate.finish.unwrap_or(tally.finished);
                tally.judged += u64::from(was_judged(&candidate));
                tally.duplicates += u64::from(candidate.is_duplicate);
                if let Some(scores) = candidate.scores() {
                    tally.compare(Some(mean(scores)), scores);
                }
                if let Some(reason) = candidate.verdict.as_ref().and_then(Verdict::reason)
                    && !candidate.is_duplicate
                {
                    *tally.rejected.entry(reason.name()).or_insert(0) += 1;
                }
            }
        }
        let all = Tally::of(self.tallies.values());
        self.searching.note(all.judged, all.finished);
        Ok(())
    }

    fn read_trainings(&mut self) -> Result<(), Failure> {
        if self.ranking.is_none() {
            let candidates = self.store.candidates().map_err(|error| failure(&error))?;
            let plan = Plan::new(self.config, &candidates)?;
            let wanted = plan.trainings().len() as u64;
            self.ranking = Some(Ranking { plan, wanted, done: 0, pace: Pace::default(), layers: [0, 0] });
        }
        let Some(ranking) = &mut self.ranking else { return Ok(()) };
        let scores = ranking.plan.scores(&mut self.store)?;
        ranking.done = ranking.plan.trainings().iter().filter(|training| scores.contains_key(training)).count() as u64;
        ranking.pace.note(ranking.done, ranking.done);
        ranking.layers = [ranking.plan.reranked(&scores).len(), ranking.plan.layers()];
        Ok(())
    }

    fn show(&mut self) {
        let mut lines = vec![];
        if self.work == Work::Everything {
            let names: Vec<&str> = self.config.anchors.iter().map(|(name, _)| name.as_str()).collect();
            lines.push(head(&names));
            let mut strategies: Vec<&str> = self.runs.iter().map(|run| run.strategy.as_str()).collect();
            strategies.dedup();
            for strategy in strategies {
                let of_strategy = self.runs.iter().filter(|run| run.strategy == strategy);
                let tally = Tally::of(of_strategy.filter_map(|run| self.tallies.get(&run.id)));
                lines.extend(strategy_lines(strategy, &tally));
            }
            let all = Tally::of(self.tallies.values());
            lines.push(total_line(&all, self.searching.here()));
        }
        if let Some(ranking) = &self.ranking {
            lines.push(ranking_line(ranking.done, ranking.wanted, ranking.layers, ranking.pace.here()));
        }
        let is_over = self.is_complete();
        match &mut self.screen {
            Some(screen) => screen.draw(&lines),
            None if is_over || self.written.elapsed() >= LINES_EVERY => {
                self.written = Instant::now();
                drop(writeln!(std::io::stderr(), "{}", lines.join("\n")));
            }
            None => {}
        }
    }
}

impl Tally {
    /// Runs together.
    fn of<'t>(tallies: impl Iterator<Item = &'t Tally>) -> Self {
        let mut all = Tally::default();
        for tally in tallies {
            all.finished += tally.finished;
            all.judged += tally.judged;
            all.budget += tally.budget;
            all.duplicates += tally.duplicates;
            tally.rejected.iter().for_each(|(reason, count)| *all.rejected.entry(reason).or_insert(0) += count);
            all.compare(tally.best, &tally.best_in);
        }
        all
    }

    fn compare(&mut self, mean: Option<f64>, scores: &[f64]) {
        self.best = self.best.into_iter().chain(mean).reduce(f64::max);
        self.best_in.resize(self.best_in.len().max(scores.len()), f64::NEG_INFINITY);
        self.best_in.iter_mut().zip(scores).for_each(|(best, score)| *best = best.max(*score));
    }
}

/// How much was done since somebody looks, and in which time.
#[derive(Debug, Default)]
struct Pace {
    first: Option<Reading>,
    /// The one in which something changed last: what waits for its end is no slower for it.
    last: Option<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    judged: u64,
    finished: u64,
}

impl Pace {
    fn note(&mut self, judged: u64, finished: u64) {
        let reading = Reading { at: Instant::now(), judged, finished };
        self.first.get_or_insert(reading);
        if self.last.is_none_or(|last| (last.judged, last.finished) != (judged, finished)) {
            self.last = Some(reading);
        }
    }

    /// How long it took, and what was judged and finished.
    fn here(&self) -> (Duration, u64, u64) {
        let (Some(first), Some(last)) = (self.first, self.last) else { return (Duration::ZERO, 0, 0) };
        (last.at - first.at, last.judged - first.judged, last.finished - first.finished)
    }
}

/// Lines at the bottom of a terminal.
#[derive(Default)]
struct Screen {
    all: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Screen {
    fn draw(&mut self, lines: &[String]) {
        while self.lines.len() < lines.len() {
            // What is wider than the terminal is cut.
            let style = ProgressStyle::with_template("{wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            self.lines.push(self.all.add(ProgressBar::no_length().with_style(style)));
        }
        self.lines.iter().zip(lines).for_each(|(line, text)| line.set_message(text.clone()));
    }

    fn say(&self, text: &str) {
        // A terminal that is gone is no reason to stop a search.
        drop(self.all.println(text));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.lines.iter().for_each(ProgressBar::abandon);
    }
}

/// The width of names, and of bars.
const NAME: usize = 14;
const BAR: u64 = 16;

fn bar(done: u64, all: u64) -> String {
    let full = done.saturating_mul(BAR).checked_div(all).unwrap_or(BAR).min(BAR) as usize;
    format!("[{}{}] {done}/{all}", "=".repeat(full), " ".repeat(BAR as usize - full))
}

/// What the scores below are.
fn head(networks: &[&str]) -> String {
    format!("best: mean over the networks (best in {})", networks.join(", "))
}

/// A strategy: how far it is and its best layer, then what was not trained and why.
fn strategy_lines(name: &str, tally: &Tally) -> [String; 2] {
    let best = tally.best.map_or("-".to_owned(), |best| {
        let scores: Vec<String> = tally.best_in.iter().map(|score| format!("{:.1}", score * 100.0)).collect();
        format!("{:.1} % ({})", best * 100.0, scores.join(", "))
    });
    let rejected = |reason: &Reason| Some(format!("{} {}", reason.name(), tally.rejected.get(reason.name())?));
    let rejected: Vec<String> = Reason::ALL.iter().filter_map(rejected).collect();
    let rejected = if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") };
    [
        format!("{name:<NAME$} {}  best {best}", bar(tally.judged, tally.budget)),
        format!("    rejected: {rejected}; duplicates {}", tally.duplicates),
    ]
}

/// Everything together, and how fast it goes; `here` says how long was looked, and what was judged and finished.
fn total_line(all: &Tally, here: (Duration, u64, u64)) -> String {
    let Tally { finished, judged, budget, .. } = all;
    let (elapsed, judged_here, finished_here) = here;
    let total = format!("{:<NAME$} {} tried, {finished} met", "total", bar(*judged, *budget));
    total + &pace(finished_here, elapsed) + &left(budget.saturating_sub(*judged), judged_here, elapsed)
}

/// Ranking again: trainings, `layers` that have all of theirs of so many, and how fast it goes.
fn ranking_line(done: u64, wanted: u64, layers: [usize; 2], here: (Duration, u64, u64)) -> String {
    let ([complete, all], (elapsed, done_here, _)) = (layers, here);
    let line = format!("{:<NAME$} {} trainings, {complete} of {all} layers", "ranking again", bar(done, wanted));
    line + &pace(done_here, elapsed) + &left(wanted - done, done_here, elapsed)
}

fn pace(done: u64, elapsed: Duration) -> String {
    if done == 0 || elapsed.is_zero() {
        return String::new();
    }
    format!("; {:.0} an hour", done as f64 / elapsed.as_secs_f64() * 3600.0)
}

/// How long the rest takes at the pace so far.
fn left(rest: u64, done: u64, elapsed: Duration) -> String {
    if rest == 0 || done == 0 {
        return String::new();
    }
    match elapsed.as_secs_f64() / done as f64 * rest as f64 {
        seconds if seconds < 90.0 => format!("; {seconds:.0} s left"),
        seconds if seconds < 5400.0 => format!("; {:.0} min left", seconds / 60.0),
        seconds => format!("; {:.0} h left", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally {
            finished: 98_765,
            judged: 512,
            budget: 1500,
            duplicates: 41_200,
            rejected: [("structure", 9120), ("quality", 450), ("stability", 13)].into(),
            best: Some(0.946),
            best_in: vec![0.951, 0.944, 0.943],
        }
    }

    #[test]
    fn everything_is_told_in_lines_that_fit_a_terminal() {
        let mut lines = vec![head(&["resnet-50", "mobilenet-v2", "efficientnet-b0"])];
        lines.extend(strategy_lines("random-tested", &tally()));
        lines.extend(strategy_lines("evolution", &Tally { budget: 1500, ..Tally::default() }));
        let half_an_hour = Duration::from_secs(1800);
        lines.push(total_line(&tally(), (half_an_hour, 400, 20_000)));
        lines.push(ranking_line(7, 42, [1, 7], (half_an_hour, 7, 7)));
        let expected = [
            "best: mean over the networks (best in resnet-50, mobilenet-v2, efficientnet-b0)",
            "random-tested  [=====           ] 512/1500  best 94.6 % (95.1, 94.4, 94.3)",
            "    rejected: structure 9120, quality 450, stability 13; duplicates 41200",
            "evolution      [                ] 0/1500  best -",
            "    rejected: none; duplicates 0",
            "total          [=====           ] 512/1500 tried, 98765 met; 40000 an hour; 74 min left",
            "ranking again  [==              ] 7/42 trainings, 1 of 7 layers; 14 an hour; 2 h left",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn nothing_is_said_of_a_pace_before_there_is_one() {
        let none = Tally::default();
        assert_eq!(total_line(&none, Pace::default().here()), "total          [================] 0/0 tried, 0 met");
        let soon = total_line(&tally(), (Duration::from_secs(3), 512, 512));
        assert!(soon.ends_with("; 614400 an hour; 6 s left"), "{soon}");
    }

    #[test]
    fn runs_are_told_together() {
        let better = Tally { best: Some(0.95), best_in: vec![0.95, 0.96, 0.94], ..tally() };
        let all = Tally::of([tally(), better, Tally::default()].iter());
        assert_eq!((all.judged, all.budget, all.rejected["quality"]), (1024, 3000, 900));
        assert_eq!((all.best, all.best_in), (Some(0.95), vec![0.951, 0.96, 0.943]));
    }
}
