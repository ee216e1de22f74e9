//! The report of a search: one page with nothing outside of it, no script, light and dark.
//!
//! `chart` draws the two pictures as SVG; this module gathers what the page says.

mod chart;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use normact_egraph::{SimplifyBudget, simplify};
use normact_ir::Layer;
use normact_search::{Candidate, Origin, Reason, Run, Space, Strategy, Verdict, front};

use chart::{Curve, Dot};

/// How many of the best layers are shown.
const BEST: usize = 10;

/// How many other spellings of a layer are shown.
const SPELLINGS: usize = 5;

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
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}: layer search</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    page += &summary(subject);
    page += &curves(subject);
    page += &scatter(subject);
    page += &best_layers(subject);
    page += &lineage(subject);
    page += &reranked(subject);
    page += &rejections(subject);
    page + "</main>\n</body>\n</html>\n"
}

const STYLE: &str = include_str!("style.css");

impl Subject<'_> {
    fn of_run<'s>(&'s self, run: &'s Run) -> impl Iterator<Item = &'s Candidate> {
        self.candidates.iter().filter(move |candidate| candidate.run == run.id)
    }

    /// Candidates with scores, each key once, the best mean first.
    fn ranked(&self) -> Vec<(&Candidate, &[f64])> {
        let mut scored: Vec<_> =
            self.candidates.iter().filter_map(|candidate| Some((candidate, scores(candidate)?))).collect();
        scored.sort_by(|a, b| mean(b.1).total_cmp(&mean(a.1)));
        let mut keys = BTreeSet::new();
        scored.retain(|(candidate, _)| keys.insert(&candidate.key));
        scored
    }

    fn is_fixed(&self, candidate: &Candidate) -> bool {
        self.fixed.iter().any(|(name, _)| *name == candidate.graph)
    }

    fn layer(&self, graph: &str) -> Option<Layer> {
        let fixed = self.fixed.iter().find(|(name, _)| name == graph);
        fixed.map(|(_, layer)| layer.clone()).or_else(|| Some(self.space.parse(graph).ok()?.layer("found")))
    }

    /// The cheapest equal formula.
    fn formula(&self, graph: &str) -> Option<(Layer, String)> {
        let mut layer = self.layer(graph)?;
        layer.dag = simplify(&layer.dag, &SimplifyBudget::default()).dag;
        let text = normact_syntax::print(&layer);
        Some((layer, text))
    }

    /// The strategies that draw layers, in the order of their runs.
    fn strategies(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.runs.iter().map(|run| run.strategy.as_str()).collect();
        names.retain(|name| *name != Strategy::Fixed.name());
        names.dedup();
        names
    }

    /// The baselines with their scores.
    fn baselines(&self) -> Vec<(&str, &[f64])> {
        let fixed = self.candidates.iter().filter(|candidate| candidate.origin == Origin::Fixed);
        fixed.filter_map(|candidate| Some((candidate.graph.as_str(), scores(candidate)?))).collect()
    }
}

/// The scores of a candidate, if they are numbers.
fn scores(candidate: &Candidate) -> Option<&[f64]> {
    match &candidate.verdict {
        Some(Verdict::Scored(scores)) if !scores.is_empty() && scores.iter().all(|score| score.is_finite()) => {
            Some(scores)
        }
        _ => None,
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

fn percent(score: f64) -> String {
    format!("{:.2}&nbsp;%", score * 100.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A table; numbers are on the right.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
        cells.fold(String::new(), |row, cell| row + &format!("<{tag}>{cell}</{}>", &tag[..2]))
    };
    let mut text = String::from("<div class=\"wide\"><table>\n<thead><tr>");
    text += &cells("th scope=\"col\"", &mut head.iter().map(|cell| (*cell).to_owned()));
    text += "</tr></thead>\n<tbody>\n";
    for row in rows {
        let _ = writeln!(text, "<tr>{}</tr>", cells("td", &mut row.iter().cloned()));
    }
    text + "</tbody>\n</table></div>\n"
}

fn summary(subject: &Subject<'_>) -> String {
    let finished = subject.candidates.iter().filter(|candidate| candidate.verdict.is_some()).count();
    let duplicates = subject.candidates.iter().filter(|candidate| candidate.is_duplicate).count();
    let trained = subject.ranked().len();
    let seconds: f64 = subject.candidates.iter().map(|candidate| candidate.seconds).sum();
    let mut text = format!(
        "<p>{finished} layers were judged in {:.2} hours of computing: {trained} different ones were trained in {}, \
         {duplicates} were other spellings of layers that their run had met, and cost nothing.</p>\n",
        seconds / 3600.0,
        if subject.anchors.len() == 1 {
            "one network".to_owned()
        } else {
            format!("{} networks", subject.anchors.len())
        },
    );
    let mut rows = vec![];
    for strategy in subject.strategies() {
        let runs: Vec<&Run> = subject.runs.iter().filter(|run| run.strategy == strategy).collect();
        let bests: Vec<f64> =
            runs.iter().filter_map(|run| subject.of_run(run).filter_map(scores).map(mean).reduce(f64::max)).collect();
        let different: usize =
            runs.iter().map(|run| subject.of_run(run).filter(|candidate| super::was_judged(candidate)).count()).sum();
        let cost: f64 = runs.iter().flat_map(|run| subject.of_run(run)).map(|candidate| candidate.seconds).sum();
        let (best, spread) = if bests.is_empty() {
            ("-".to_owned(), "-".to_owned())
        } else {
            let least = bests.iter().copied().fold(f64::INFINITY, f64::min);
            let most = bests.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (percent(mean(&bests)), format!("{} to {}", percent(least), percent(most)))
        };
        rows.push(vec![
            escaped(strategy),
            runs.len().to_string(),
            different.to_string(),
            best,
            spread,
            format!("{cost:.0} s"),
        ]);
    }
    for (name, scores) in subject.baselines() {
        rows.push(vec![escaped(name), "-".into(), "1".into(), percent(mean(scores)), "-".into(), "-".into()]);
    }
    if rows.is_empty() {
        return text + "<p>Nothing has been judged yet.</p>\n";
    }
    text += "<p>A score is the accuracy on images that were set aside, in the mean over the networks. The best of each \
             run, and the fixed layers:</p>\n";
    text + &table(
        &["strategy", "seeds", "different layers judged", "best, mean over seeds", "from, to", "judging"],
        &rows,
    )
}

fn curves(subject: &Subject<'_>) -> String {
    let mut curves = vec![];
    for strategy in subject.strategies() {
        let mut runs = vec![];
        for run in subject.runs.iter().filter(|run| run.strategy == strategy) {
            let mut candidates: Vec<&Candidate> =
                subject.of_run(run).filter(|candidate| candidate.finish.is_some()).collect();
            candidates.sort_by_key(|candidate| candidate.finish);
            let mut best = None;
            let mut line = vec![];
            for candidate in candidates {
                let score = scores(candidate).map(mean);
                best = best.into_iter().chain(score).reduce(f64::max);
                if super::was_judged(candidate) {
                    line.push(best);
                }
            }
            runs.push(line);
        }
        curves.push(Curve { name: strategy.to_owned(), runs });
    }
    let baselines: Vec<(String, f64)> =
        subject.baselines().iter().map(|(name, scores)| ((*name).to_owned(), mean(scores))).collect();
    let Some(picture) = chart::curves(&curves, &baselines) else { return String::new() };
    format!(
        "<h2>The search</h2>\n<figure>{picture}<figcaption>The best mean score so far against different layers judged: \
         the mean over seeds, and the range between them. Lines across are the fixed layers.</figcaption></figure>\n"
    )
}

fn scatter(subject: &Subject<'_>) -> String {
    let ranked = subject.ranked();
    if ranked.len() < 2 || subject.anchors.len() < 2 {
        return String::new();
    }
    let all: Vec<&[f64]> = ranked.iter().map(|(_, scores)| *scores).collect();
    let pareto: BTreeSet<usize> = front(&all).into_iter().collect();
    let mut pictures = String::new();
    for other in 1..subject.anchors.len() {
        let dots: Vec<Dot> = ranked
            .iter()
            .enumerate()
            .filter(|(_, (_, scores))| scores.len() == subject.anchors.len())
            .map(|(place, (candidate, scores))| Dot {
                at: [scores[0], scores[other]],
                is_front: pareto.contains(&place),
                name: subject.is_fixed(candidate).then(|| candidate.graph.clone()),
            })
            .collect();
        pictures += &chart::scatter(&dots, &subject.anchors[0], &subject.anchors[other]);
    }
    let mut head = vec!["formula"];
    head.extend(subject.anchors.iter().map(String::as_str));
    let rows: Vec<Vec<String>> = pareto
        .iter()
        .map(|&place| {
            let (candidate, scores) = ranked[place];
            let mut row = vec![format!("<code>{}</code>", escaped(&result_line(subject, &candidate.graph)))];
            row.extend(scores.iter().map(|score| percent(*score)));
            row
        })
        .collect();
    format!(
        "<h2>Across networks</h2>\n<figure class=\"row\">{pictures}<figcaption>Each dot is a layer that was trained; rings \
         are those that no other beats in every network, squares the fixed layers.</figcaption></figure>\n{}",
        table(&head, &rows)
    )
}

/// The last line of a formula, which is what it computes.
fn result_line(subject: &Subject<'_>, graph: &str) -> String {
    if subject.fixed.iter().any(|(name, _)| name == graph) {
        return graph.to_owned();
    }
    let Some((_, formula)) = subject.formula(graph) else { return graph.to_owned() };
    let lines: Vec<&str> = formula.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "}").collect();
    let body: Vec<&str> = lines.iter().skip(1).filter(|line| !line.starts_with("param ")).copied().collect();
    body.join("; ")
}

fn best_layers(subject: &Subject<'_>) -> String {
    let ranked: Vec<_> = subject.ranked().into_iter().filter(|(candidate, _)| !subject.is_fixed(candidate)).collect();
    if ranked.is_empty() {
        return String::new();
    }
    let mut spellings: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for candidate in subject.candidates {
        spellings.entry(&candidate.key).or_default().push(&candidate.graph);
    }
    let mut text = String::from("<h2>The best layers</h2>\n");
    for (place, (candidate, scores)) in ranked.iter().take(BEST).enumerate() {
        let Some((layer, formula)) = subject.formula(&candidate.graph) else { continue };
        let places: Vec<String> = subject
            .anchors
            .iter()
            .zip(*scores)
            .map(|(name, score)| format!("{} {}", escaped(name), percent(*score)))
            .collect();
        let graphs = &spellings[candidate.key.as_str()];
        let open = if place < 3 { " open" } else { "" };
        let _ = write!(
            text,
            "<details{open}>\n<summary><b>{}.</b> {} <span>({})</span></summary>\n<div class=\"layer\"><div>\n\
             <pre>{}</pre>\n<p>Met {} {}.</p>\n",
            place + 1,
            percent(mean(scores)),
            places.join(", "),
            escaped(&formula),
            graphs.len(),
            if graphs.len() == 1 { "time" } else { "times" }
        );
        let different: BTreeSet<&&str> = graphs.iter().collect();
        if different.len() > 1 {
            text += "<p>Among the graphs with this key:</p>\n<ul>\n";
            for graph in different.into_iter().take(SPELLINGS) {
                let _ = writeln!(text, "<li><code>{}</code></li>", escaped(graph));
            }
            text += "</ul>\n";
        }
        let _ = write!(text, "</div>\n<div class=\"drawing\">{}</div></div>\n</details>\n", inline(&layer));
    }
    text
}

/// The drawing of a layer as part of a page.
fn inline(layer: &Layer) -> String {
    let svg = normact_emit::svg(layer);
    svg.find("<svg").map_or(String::new(), |start| svg[start..].to_owned())
}

fn lineage(subject: &Subject<'_>) -> String {
    let ranked = subject.ranked();
    let best = ranked.iter().find(|(candidate, _)| !subject.is_fixed(candidate));
    let Some((best, _)) = best else { return String::new() };
    let mut chain = vec![*best];
    while let Origin::Child { parent, .. } = chain[chain.len() - 1].origin {
        let run = chain[0].run;
        let found = subject.candidates.iter().find(|candidate| candidate.run == run && candidate.number == parent);
        // A damaged database is no reason to go round and round.
        let Some(found) = found.filter(|found| found.number < chain[chain.len() - 1].number) else { break };
        chain.push(found);
    }
    chain.reverse();
    let rows: Vec<Vec<String>> = chain
        .iter()
        .enumerate()
        .map(|(place, candidate)| {
            let before: Vec<&str> =
                place.checked_sub(1).map_or(vec![], |before| chain[before].graph.split(' ').collect());
            let changed: Vec<String> = candidate
                .graph
                .split(' ')
                .enumerate()
                .filter(|(gene, now)| before.get(*gene).is_some_and(|before| before != now))
                .map(|(gene, now)| format!("<code>{}: {} → {}</code>", gene + 4, escaped(before[gene]), escaped(now)))
                .collect();
            let how = match candidate.origin {
                Origin::Fresh => "drawn".to_owned(),
                Origin::Fixed => "given".to_owned(),
                Origin::Child { .. } if changed.is_empty() => "the same genes again".to_owned(),
                Origin::Child { .. } => changed.join("<br>"),
            };
            vec![
                candidate.number.to_string(),
                how,
                format!("<code>{}</code>", escaped(&result_line(subject, &candidate.graph))),
                scores(candidate).map_or("-".to_owned(), |scores| percent(mean(scores))),
            ]
        })
        .collect();
    format!("<h2>Where the best comes from</h2>\n{}", table(&["number", "what changed", "formula", "score"], &rows))
}

fn reranked(subject: &Subject<'_>) -> String {
    if subject.reranked.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = subject
        .reranked
        .iter()
        .filter(|one| !one.scores.is_empty())
        .map(|one| {
            let means: Vec<f64> = one.scores.iter().map(|scores| mean(scores)).collect();
            let least = means.iter().copied().fold(f64::INFINITY, f64::min);
            let most = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            vec![
                format!("<code>{}</code>", escaped(&result_line(subject, &one.graph))),
                percent(mean(&means)),
                format!("{} to {}", percent(least), percent(most)),
                one.scores.len().to_string(),
            ]
        })
        .collect();
    format!(
        "<h2>Ranked again</h2>\n<p>Trained on all training images, longer and in larger networks, and measured on images \
         that the search has not seen.</p>\n{}",
        table(&["formula", "accuracy", "from, to", "seeds"], &rows)
    )
}

fn rejections(subject: &Subject<'_>) -> String {
    let mut rows = vec![];
    for reason in Reason::ALL {
        let found: Vec<&Candidate> = subject
            .candidates
            .iter()
            .filter(
                |candidate| matches!(&candidate.verdict, Some(Verdict::Rejected { reason: own, .. }) if *own == reason),
            )
            .collect();
        if found.is_empty() {
            continue;
        }
        let seconds: f64 = found.iter().map(|candidate| candidate.seconds).sum();
        let example = found.iter().find_map(|candidate| match &candidate.verdict {
            Some(Verdict::Rejected { detail, .. }) => Some(escaped(detail)),
            _ => None,
        });
        rows.push(vec![
            reason.name().to_owned(),
            found.len().to_string(),
            format!("{seconds:.0} s"),
            example.unwrap_or_default(),
        ]);
    }
    if rows.is_empty() {
        return String::new();
    }
    format!("<h2>Rejected</h2>\n{}", table(&["for", "layers", "cost", "for example"], &rows))
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
