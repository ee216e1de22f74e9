//! The report of a search: one page with nothing outside of it, no script, light and dark.
//!
//! This module says what a page is about and in which order it tells it. `figures` counts and compares,
//! `layers` shows formulas and where they come from, `chart` draws.

mod chart;
mod figures;
mod layers;
mod markup;

use std::collections::BTreeMap;

use normact_search::{Candidate, Origin, Run, Strategy, mean};

use super::formula::Layers;
use super::rerank::Reranked;
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
    /// What the graphs stand for.
    pub(crate) layers: &'a Layers,
    /// What was trained again, the best first.
    pub(crate) reranked: &'a [Reranked],
    /// The networks of that, in the order of its scores.
    pub(crate) reranked_in: &'a [String],
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
        let scored = |candidate: &'a Candidate| Some(Ranked { candidate, scores: candidate.scores()? });
        let mut ranked: Vec<Ranked<'_>> =
            normact_search::ranked(subject.candidates).into_iter().filter_map(scored).collect();
        ranked.retain(|ranked| ranked.scores.len() == width);
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
            fixed.filter_map(|candidate| Some((candidate.graph.as_str(), candidate.scores()?))).collect();
        baselines.sort_by(|a, b| mean(b.1).total_cmp(&mean(a.1)));
        baselines
    }

    /// Layers that were found, without the baselines.
    fn found(&self) -> impl Iterator<Item = &Ranked<'a>> {
        self.ranked.iter().filter(|ranked| !is_fixed(ranked.candidate))
    }

    /// How a table calls a layer: the name of a baseline, or its simplified formula.
    fn name(&self, graph: &str) -> String {
        let name = self.subject.layers.name(graph);
        if self.subject.layers.is_given(graph) { escaped(&name) } else { markup::code(&name) }
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

/// The least and the most of some numbers.
fn extremes(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use normact_search::{Reason, Space, Verdict};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Runs 0 (fixed), 1 and 2 (evolution, two seeds).
    fn runs() -> Vec<Run> {
        let run = |id: i64, strategy: Strategy| Run {
            id,
            strategy: strategy.name().to_owned(),
            seed: 7,
            budget: 9,
            proposals: 900,
        };
        vec![run(0, Strategy::Fixed), run(1, Strategy::Evolution), run(2, Strategy::Evolution)]
    }

    fn candidate(run: i64, number: u64, graph: &str, key: &str, verdict: Option<Verdict>) -> Candidate {
        Candidate {
            run,
            number,
            origin: if run == 0 { Origin::Fixed } else { Origin::Fresh },
            graph: graph.to_owned(),
            key: key.to_owned(),
            is_duplicate: false,
            finish: verdict.as_ref().map(|_| number + 1),
            verdict,
            seconds: 1.0,
            finished_at: Some(number as f64),
        }
    }

    fn scored(scores: &[f64]) -> Option<Verdict> {
        Some(Verdict::Scored(scores.to_vec()))
    }

    fn drawn(number: u64, verdict: Option<Verdict>) -> Candidate {
        let graph = Space::evonorm(4, false).draw(&mut ChaCha8Rng::seed_from_u64(number)).to_string();
        candidate(1, number, &graph, &format!("key {number}"), verdict)
    }

    fn page_of(candidates: &[Candidate], anchors: &[&str], runs: &[Run], reranked: &[Reranked]) -> String {
        let layers = Layers::new(Space::evonorm(4, false), vec![]);
        let anchors: Vec<String> = anchors.iter().map(|name| (*name).to_owned()).collect();
        let subject = Subject {
            title: "a <b> & c",
            anchors: &anchors,
            runs,
            candidates,
            layers: &layers,
            reranked,
            reranked_in: &anchors,
        };
        let page = html(&subject);
        assert_nested(&page);
        let shown = page.replace("found_", "");
        assert!(!shown.contains("NaN") && !shown.contains("inf") && !shown.contains("-0 "), "{page}");
        page
    }

    fn page(candidates: &[Candidate]) -> String {
        page_of(candidates, &["one", "two"], &runs(), &[])
    }

    /// Every tag is closed, in the right order.
    fn assert_nested(page: &str) {
        let mut open = vec![];
        for tag in page.split('<').skip(1).map(|rest| rest.split_once('>').unwrap_or_else(|| panic!("<{rest}")).0) {
            let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap_or_default();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "</{name}>");
            } else if !tag.ends_with('/') && !["meta", "br", "!doctype"].contains(&name) {
                open.push(name);
            }
        }
        assert_eq!(open, [] as [&str; 0]);
    }

    /// The page without tags, a space for each.
    fn text(page: &str) -> String {
        let text: Vec<&str> = page.split('<').filter_map(|rest| Some(rest.split_once('>')?.1)).collect();
        text.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn searches_at_every_stage_have_a_page() {
        let rejected = Some(Verdict::Rejected { reason: Reason::Quality, detail: "10 % < 20 %".to_owned() });
        let verdicts = [
            None,
            scored(&[0.5, 0.6]),
            rejected,
            scored(&[f64::NAN, 0.1]),
            scored(&[f64::INFINITY, f64::NEG_INFINITY]),
            scored(&[1e300, -1e300]),
            scored(&[f64::MAX, f64::MAX]),
            scored(&[0.7]),
            scored(&[]),
            scored(&[0.7, 0.5]),
        ];
        let all: Vec<Candidate> = (0..).zip(verdicts).map(|(number, verdict)| drawn(number, verdict)).collect();
        for count in 0..=all.len() {
            let page = page(&all[..count]);
            assert!(page.contains("<h1>a &lt;b&gt; &amp; c</h1>") && page.ends_with("</html>\n"));
            let resources = ["src=", "href=", "url(http", "@import", "<script"];
            assert!(!resources.iter().any(|resource| page.contains(resource)), "nothing comes from outside");
        }
        all.iter().for_each(|one| drop(page(std::slice::from_ref(one))));
        assert!(page(&all).contains("10 % &lt; 20 %"));
        assert!(text(&page(&[])).contains("No layer has a verdict yet."));
        assert!(text(&page_of(&[], &[], &[], &[])).contains("The search has not begun."));
    }

    #[test]
    fn the_summary_counts_each_candidate_once() {
        let rejected = |reason| Some(Verdict::Rejected { reason, detail: String::new() });
        let mut all = vec![
            drawn(0, scored(&[0.5, 0.7])),
            drawn(1, rejected(Reason::Structure)),
            drawn(2, rejected(Reason::Stability)),
            drawn(3, scored(&[0.5, 0.7])),
            drawn(4, None),
            drawn(5, scored(&[f64::NAN, 0.7])),
        ];
        all[3].is_duplicate = true;
        let text = text(&page(&all));
        for tile in [
            "proposed 6",
            "duplicates, reused 1",
            "different layers judged 3",
            "trained to the end 1",
            "rejected for structure 1",
            "rejected for stability 1",
            "with scores that are no numbers 1",
            "waiting for a verdict 1",
            "judging 6.0 s",
        ] {
            assert!(text.contains(tile), "{tile}: {text}");
        }
    }

    #[test]
    fn strategies_are_compared_with_baselines() {
        let all = [
            candidate(0, 0, "bn_relu", "a", scored(&[0.6, 0.6])),
            drawn(0, scored(&[0.7, 0.7])),
            Candidate { run: 2, ..drawn(1, scored(&[0.7, 0.8])) },
        ];
        let text = text(&page(&all));
        assert!(text.contains("evolution 72.50 70.00 to 75.00 +12.50 2 2 2.0 s"), "{text}");
        assert!(text.contains("bn_relu 60.00 – – – – –"), "{text}");
    }

    #[test]
    fn equal_forms_are_shown_as_they_were_written() {
        let graphs = [
            "add(0,0) sigmoid(0) mul(0,5) add(6,1)",
            "add(0,1) sigmoid(0) mul(0,5) add(6,1)",
            "exp(0) exp(0) exp(0) mul(0,0)",
        ];
        let mut all: Vec<Candidate> =
            (0..).zip(graphs).map(|(number, graph)| candidate(1, number, graph, "k", scored(&[0.5, 0.5]))).collect();
        all[2].key = "other".to_owned();
        let page = page(&all);
        let text = text(&page);
        assert!(
            text.contains("Met 2 times as 2 different graphs. Equal forms that were met (x * sigmoid(x) + 0) * gamma")
        );
        assert!(!text.contains("param v0"), "parameters without use are left out: {text}");
        assert_eq!(page.matches("<details class=\"layer\"").count(), 2);
    }

    #[test]
    fn the_lineage_tells_gene_by_gene_what_changed() {
        let child = |number, parent, graph, scores: &[f64]| Candidate {
            origin: Origin::Child { parent, mutations: 2 },
            ..candidate(1, number, graph, graph, scored(scores))
        };
        let first = candidate(1, 3, "tanh(0) exp(0) exp(0) mul(0,4)", "first", scored(&[0.5, 0.5]));
        let neutral = child(5, 3, "tanh(0) exp(0) abs(0) mul(0,4)", &[0.5, 0.5]);
        let best = child(8, 5, "sigmoid(0) exp(0) abs(0) mul(0,4)", &[0.6, 0.7]);
        let text = text(&page(&[first.clone(), neutral.clone(), best.clone()]));
        assert!(text.contains("3 drawn at random x * tanh(x) * gamma + beta 50.00 50.00 50.00 –"), "{text}");
        assert!(text.contains("5 6: exp(0) → abs(0) (not used) the same 50.00 50.00 50.00 0.00"), "{text}");
        assert!(
            text.contains("8 4: tanh(0) → sigmoid(0) x * sigmoid(x) * gamma + beta 60.00 70.00 65.00 +15.00"),
            "{text}"
        );
        assert!(!text.contains("neutral"), "a short line is shown as a whole: {text}");
        // Parents that are not there, or not before their child.
        page(&[neutral, best.clone()]);
        page(&[Candidate { origin: Origin::Child { parent: 8, mutations: 2 }, ..best }]);
    }

    #[test]
    fn what_was_trained_again_has_a_mean_and_a_spread() {
        let again = |graph: &str, scores: &[[f64; 2]]| Reranked {
            graph: graph.to_owned(),
            scores: scores.iter().map(|scores| scores.to_vec()).collect(),
            kept: None,
        };
        let reranked = [
            Reranked { kept: Some(1), ..again("exp(0) exp(0) exp(0) tanh(0)", &[[0.9, 0.9]]) },
            again("exp(0) exp(0) exp(0) exp(0)", &[[0.7, 0.8], [0.8, 0.9], [f64::NAN, 0.9]]),
            again("no <graph>", &[]),
        ];
        let text = text(&page_of(&[], &["one", "two"], &runs(), &reranked));
        assert!(text.contains("tanh(x) * gamma + beta 1 90.00 – 90.00 to 90.00 90.00 90.00 1 –"), "{text}");
        assert!(text.contains("exp(x) * gamma + beta – 80.00 ± 7.07 75.00 to 85.00 75.00 85.00 2 of 3 –"), "{text}");
        assert!(text.contains("no &lt;graph&gt; – – – – – – 0 –"), "{text}");
    }
}
