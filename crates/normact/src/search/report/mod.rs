//! The report of a search: one page with nothing outside of it, no script, light and dark.
//!
//! This module says what a page is about and in which order it tells it. `figures` counts and compares,
//! `layers` shows formulas and where they come from, `chart` draws.

mod chart;
mod figures;
mod formula;
mod layers;
mod markup;

use std::collections::{BTreeMap, BTreeSet};

use normact_ir::Layer;
use normact_search::{Candidate, Origin, Run, Space, Strategy, Verdict};

use super::was_judged;
use markup::escaped;

/// What a report is about.
pub(crate) struct Subject<'a> {
    /// The name of the search.
    pub(crate) title: &'a str,
    /// The networks, in the order of scores.
    pub(crate) anchors: &'a [String],
    /// Every run.
    pub(crate) runs: &'a [Run],
    /// Every candidate, by run and number.
    pub(crate) candidates: &'a [Candidate],
    /// Where genotypes come from.
    pub(crate) space: &'a Space,
    /// The baselines.
    pub(crate) fixed: &'a [(String, Layer)],
    /// What was trained again.
    pub(crate) reranked: &'a [Reranked],
}

/// A layer that was trained again.
pub(crate) struct Reranked {
    /// The genotype, or the name of a baseline.
    pub(crate) graph: String,
    /// For each seed its accuracy in each network.
    pub(crate) scores: Vec<Vec<f64>>,
}

/// The page.
pub(crate) fn html(subject: &Subject<'_>) -> String {
    let title = escaped(subject.title);
    let findings = Findings::of(subject);
    let sections = [
        figures::summary(&findings),
        figures::curve(&findings),
        figures::scatter(&findings),
        layers::front(&findings),
        layers::best(&findings),
        layers::lineage(&findings),
        figures::reranked(&findings),
        figures::rejections(&findings),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: layer search</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{}</main>\n</body>\n</html>\n",
        sections.concat()
    )
}

const STYLE: &str = include_str!("style.css");

/// A layer with scores; of those with one key, the one that scored first.
struct Ranked<'a> {
    candidate: &'a Candidate,
    scores: &'a [f64],
}

/// What several sections tell about.
struct Findings<'a> {
    subject: &'a Subject<'a>,
    by_run: BTreeMap<i64, Vec<&'a Candidate>>,
    /// Layers with scores, the best mean first, each key once.
    ranked: Vec<Ranked<'a>>,
    /// The places in `ranked` of those that no other dominates.
    front: Vec<usize>,
}

impl<'a> Findings<'a> {
    fn of(subject: &'a Subject<'a>) -> Self {
        let mut by_run: BTreeMap<i64, Vec<&Candidate>> = BTreeMap::new();
        subject.candidates.iter().for_each(|candidate| by_run.entry(candidate.run).or_default().push(candidate));
        let width = subject.anchors.len();
        let mut ranked: Vec<Ranked<'_>> = subject
            .candidates
            .iter()
            .filter_map(|candidate| Some(Ranked { candidate, scores: scores(candidate)? }))
            .filter(|ranked| ranked.scores.len() == width)
            .collect();
        ranked.sort_by(|a, b| mean(b.scores).total_cmp(&mean(a.scores)));
        let mut keys = BTreeSet::new();
        ranked.retain(|ranked| keys.insert(&ranked.candidate.key));
        let front = normact_search::front(&ranked.iter().map(|ranked| ranked.scores).collect::<Vec<_>>());
        Self { subject, by_run, ranked, front }
    }

    fn of_run(&self, run: &Run) -> &[&'a Candidate] {
        self.by_run.get(&run.id).map_or(&[], Vec::as_slice)
    }

    /// The strategies that draw layers, in the order of their first runs, each with its runs.
    fn strategies(&self) -> Vec<(&'a str, Vec<&'a Run>)> {
        let mut strategies: Vec<(&str, Vec<&Run>)> = vec![];
        for run in self.subject.runs.iter().filter(|run| run.strategy != Strategy::Fixed.name()) {
            match strategies.iter_mut().find(|(name, _)| *name == run.strategy) {
                Some((_, runs)) => runs.push(run),
                None => strategies.push((&run.strategy, vec![run])),
            }
        }
        strategies
    }

    /// The baselines with their scores, the best first.
    fn baselines(&self) -> Vec<(&'a str, &'a [f64])> {
        let fixed = self.subject.candidates.iter().filter(|candidate| is_fixed(candidate));
        let mut baselines: Vec<_> =
            fixed.filter_map(|candidate| Some((candidate.graph.as_str(), scores(candidate)?))).collect();
        baselines.sort_by(|a, b| mean(b.1).total_cmp(&mean(a.1)));
        baselines
    }

    /// Layers that were found, without the baselines.
    fn found(&self) -> impl Iterator<Item = &Ranked<'a>> {
        self.ranked.iter().filter(|ranked| !is_fixed(ranked.candidate))
    }

    fn layer(&self, graph: &str) -> Option<Layer> {
        let fixed = self.subject.fixed.iter().find(|(name, _)| name == graph);
        fixed.map(|(_, layer)| layer.clone()).or_else(|| Some(self.subject.space.parse(graph).ok()?.layer("found")))
    }

    /// How a table calls a layer: the name of a baseline, or its simplified formula.
    fn name(&self, graph: &str) -> String {
        if self.subject.fixed.iter().any(|(name, _)| name == graph) {
            return escaped(graph);
        }
        let layer = self.layer(graph).map(|layer| formula::simplified(&layer, "found"));
        markup::code(&layer.map_or(graph.to_owned(), |layer| formula::one_line(&layer)))
    }

    /// The run and number of a candidate, in words.
    fn place(&self, candidate: &Candidate) -> String {
        match self.subject.runs.iter().find(|run| run.id == candidate.run) {
            Some(_) if is_fixed(candidate) => "given".to_owned(),
            Some(run) => format!("{} seed {}, number {}", escaped(&run.strategy), run.seed, candidate.number),
            None => format!("number {}", candidate.number),
        }
    }
}

fn is_fixed(candidate: &Candidate) -> bool {
    candidate.origin == Origin::Fixed
}

/// The scores of a candidate, if they are numbers.
fn scores(candidate: &Candidate) -> Option<&[f64]> {
    match &candidate.verdict {
        Some(Verdict::Scored(scores)) if !scores.is_empty() && mean(scores).is_finite() => Some(scores),
        Some(Verdict::Scored(_) | Verdict::Rejected { .. }) | None => None,
    }
}

/// The mean; of numbers that are not all finite it is not finite either.
fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// The least and the most of some numbers.
fn extremes(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn candidate(space: &Space, number: u64, verdict: Option<Verdict>) -> Candidate {
        let graph = space.draw(&mut ChaCha8Rng::seed_from_u64(number)).to_string();
        Candidate {
            run: 1,
            number,
            origin: if number == 2 { Origin::Child { parent: 1, mutations: 2 } } else { Origin::Fresh },
            key: format!("key {}", number / 2),
            graph,
            is_duplicate: number % 2 == 1,
            finish: verdict.as_ref().map(|_| number + 1),
            verdict,
            seconds: 1.0,
            finished_at: Some(0.0),
        }
    }

    fn page(candidates: &[Candidate], anchors: &[&str]) -> String {
        let space = Space::evonorm(4, false);
        let anchors: Vec<String> = anchors.iter().map(|name| (*name).to_owned()).collect();
        let run = |id: i64, strategy: Strategy| Run { id, strategy: strategy.name().to_owned(), seed: 1, budget: 9 };
        let runs = [run(0, Strategy::Fixed), run(1, Strategy::Evolution)];
        let (fixed, reranked) = (&[][..], &[][..]);
        let subject =
            Subject { title: "a <b> & c", anchors: &anchors, runs: &runs, candidates, space: &space, fixed, reranked };
        html(&subject)
    }

    #[test]
    fn searches_at_every_stage_have_a_page() {
        let space = Space::evonorm(4, false);
        let scored = |scores: &[f64]| Some(Verdict::Scored(scores.to_vec()));
        let rejected = Some(Verdict::Rejected { reason: Reason::Quality, detail: "10 % < 20 %".to_owned() });
        let verdicts =
            [scored(&[0.5, 0.6]), rejected, scored(&[0.7, 0.5]), None, scored(&[f64::NAN, 0.1]), scored(&[0.7, 0.5])];
        let all: Vec<Candidate> =
            verdicts.into_iter().enumerate().map(|(number, one)| candidate(&space, number as u64, one)).collect();
        for count in 0..=all.len() {
            let text = page(&all[..count], &["one", "two"]);
            assert!(text.contains("<h1>a &lt;b&gt; &amp; c</h1>") && text.ends_with("</html>\n"));
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            assert_eq!(text.matches("<table>").count(), text.matches("</table>").count());
            assert!(!text.contains("http://") || text.contains("www.w3.org"), "nothing comes from outside");
        }
        let text = page(&all, &["one", "two"]);
        assert!(text.contains("10 % &lt; 20 %") && text.contains("Where the best comes from"), "{text}");
        assert!(page(&all[..1], &["one"]).contains("one network"));
    }
}
