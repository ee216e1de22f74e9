//! What a report counts and compares.

use std::collections::{BTreeMap, BTreeSet};

use normact_search::{Candidate, Reason, Run, Verdict, mean};

use super::chart::{self, Curve, Dot};
use super::markup::{Cell, count, counted, duration, escaped, percent, points, table};
use super::{Findings, extremes, is_fixed, was_judged};

/// All pairs of so many networks are drawn; of more, each with the first.
const ALL_PAIRS: usize = 4;

/// How many of the things found about rejected layers are listed for each reason.
const EXAMPLES: usize = 5;

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Another spelling of a layer that its run had met.
    Duplicate,
    Waiting,
    Trained,
    /// Trained, to scores that are not all finite.
    Diverged,
    Rejected(Reason),
}

impl Outcome {
    fn of(candidate: &Candidate) -> Self {
        match &candidate.verdict {
            _ if candidate.is_duplicate => Outcome::Duplicate,
            None => Outcome::Waiting,
            Some(Verdict::Rejected { reason, .. }) => Outcome::Rejected(*reason),
            Some(Verdict::Scored(_)) if candidate.scores().is_some() => Outcome::Trained,
            Some(Verdict::Scored(_)) => Outcome::Diverged,
        }
    }

    /// The name, for those that cost something or are shown for why they do not.
    fn verdict(self) -> String {
        match self {
            Outcome::Duplicate => "duplicate".to_owned(),
            Outcome::Waiting => "waiting".to_owned(),
            Outcome::Trained => "trained to the end".to_owned(),
            Outcome::Diverged => "scores that are no numbers".to_owned(),
            Outcome::Rejected(reason) => format!("rejected: {}", reason.name()),
        }
    }
}

/// The figures of the whole search, and the best of each strategy against the baselines.
pub(super) fn summary(findings: &Findings<'_>) -> String {
    let subject = findings.subject;
    let outcomes: Vec<Outcome> = subject.candidates.iter().map(Outcome::of).collect();
    let tally = |outcome: Outcome| outcomes.iter().filter(|&&one| one == outcome).count();
    let seconds: f64 = subject.candidates.iter().map(|candidate| candidate.seconds).sum();
    let judged = subject.candidates.iter().filter(|candidate| was_judged(candidate)).count();

    let mut tiles = vec![
        ("proposed".to_owned(), count(outcomes.len())),
        ("duplicates, reused".to_owned(), count(tally(Outcome::Duplicate))),
        ("different layers judged".to_owned(), count(judged)),
        ("trained to the end".to_owned(), count(tally(Outcome::Trained))),
    ];
    let rest = Reason::ALL.map(|reason| (Outcome::Rejected(reason), format!("rejected for {}", reason.name())));
    let rest = rest.into_iter().chain([
        (Outcome::Diverged, "with scores that are no numbers".to_owned()),
        (Outcome::Waiting, "waiting for a verdict".to_owned()),
    ]);
    tiles.extend(rest.filter(|(outcome, _)| tally(*outcome) > 0).map(|(outcome, name)| (name, count(tally(outcome)))));
    tiles.push(("judging".to_owned(), duration(seconds)));
    let tiles: String =
        tiles.into_iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n")).collect();
    format!("{}<dl class=\"tiles\">\n{tiles}</dl>\n{}", lead(findings), strategies(findings))
}

/// What was searched, in a sentence, and how far the search is.
fn lead(findings: &Findings<'_>) -> String {
    let subject = findings.subject;
    let strategies = findings.strategies();
    if strategies.is_empty() && subject.candidates.is_empty() {
        return "<p class=\"lead\">The search has not begun.</p>\n".to_owned();
    }
    let seeds = strategies.iter().map(|(_, runs)| runs.len()).max().unwrap_or(0);
    let names: Vec<String> = strategies.iter().map(|(name, _)| escaped(name)).collect();
    let networks: Vec<String> = subject.anchors.iter().map(|name| escaped(name)).collect();
    let budget: u64 = strategies.iter().flat_map(|(_, runs)| runs).map(|run| run.budget).sum();
    let judged: usize = strategies.iter().flat_map(|(_, runs)| runs).map(|run| judged_in(findings, run)).sum();
    let mut text = format!(
        "<p class=\"lead\">Layers of {} in {}: {}",
        counted(subject.layers.genes(), "gene", "genes"),
        counted(networks.len(), "network", "networks"),
        networks.join(", ")
    );
    if !names.is_empty() {
        text += &format!("; {} over {}", names.join(", "), counted(seeds, "seed", "seeds"));
    }
    text += ". A score is an accuracy in percent on images that were set aside; a mean is over the networks.</p>\n";
    if subject.candidates.iter().all(|candidate| candidate.verdict.is_none()) {
        text += "<p>No layer has a verdict yet.</p>\n";
    } else if (judged as u64) < budget {
        let part = 100.0 * judged as f64 / budget as f64;
        text += &format!("<p>{part:.0} % of the layers that the runs may judge have been judged.</p>\n");
    }
    text
}

fn judged_in(findings: &Findings<'_>, run: &Run) -> usize {
    findings.of_run(run).iter().filter(|candidate| was_judged(candidate)).count()
}

fn best_of(findings: &Findings<'_>, run: &Run) -> Option<f64> {
    findings.of_run(run).iter().filter_map(|candidate| candidate.mean()).reduce(f64::max)
}

/// The best of each strategy, and the baselines, each against every baseline.
fn strategies(findings: &Findings<'_>) -> String {
    let baselines = findings.baselines();
    let against = |value: Option<f64>, own: Option<&str>| {
        baselines
            .iter()
            .map(|(name, scores)| {
                let value = value.filter(|_| own != Some(name));
                Cell::number(value.map(|value| points(value - mean(scores))))
            })
            .collect::<Vec<_>>()
    };
    let mut rows = vec![];
    for (name, runs) in findings.strategies() {
        let bests: Vec<f64> = runs.iter().filter_map(|run| best_of(findings, run)).collect();
        let best = (!bests.is_empty()).then(|| mean(&bests));
        let (least, most) = extremes(&bests);
        let seconds: f64 = runs.iter().flat_map(|run| findings.of_run(run)).map(|candidate| candidate.seconds).sum();
        let mut row = vec![
            Cell::Text(escaped(name)),
            Cell::number(best.map(|best| format!("<b>{}</b>", percent(best)))),
            Cell::number(best.map(|_| format!("{} to {}", percent(least), percent(most)))),
        ];
        row.extend(against(best, None));
        row.extend([
            Cell::Number(runs.len().to_string()),
            Cell::Number(count(runs.iter().map(|run| judged_in(findings, run)).sum())),
            Cell::Number(duration(seconds)),
        ]);
        rows.push(row);
    }
    for (name, scores) in &baselines {
        let best = format!("<b>{}</b>", percent(mean(scores)));
        let mut row = vec![Cell::Text(escaped(name)), Cell::Number(best), Cell::number(None)];
        row.extend(against(Some(mean(scores)), Some(name)));
        row.extend((0..3).map(|_| Cell::number(None)));
        rows.push(row);
    }
    if rows.is_empty() {
        return String::new();
    }
    let names: Vec<String> = baselines.iter().map(|(name, _)| format!("against {name}")).collect();
    let mut head = vec!["strategy", "best", "least to most"];
    head.extend(names.iter().map(String::as_str));
    head.extend(["seeds", "layers judged", "judging"]);
    let caption = "The best mean score of each run, in the mean over seeds; differences are in percentage points";
    table(caption, &head, &rows)
}

/// The search curve.
pub(super) fn curve(findings: &Findings<'_>) -> String {
    let mut curves = vec![];
    for (name, runs) in findings.strategies() {
        let runs = runs.into_iter().map(|run| best_so_far(findings.of_run(run))).collect();
        curves.push(Curve { name: name.to_owned(), runs });
    }
    let baselines: Vec<(String, f64)> =
        findings.baselines().iter().map(|(name, scores)| ((*name).to_owned(), mean(scores))).collect();
    let Some(picture) = chart::curves(&curves, &baselines) else { return String::new() };
    let below: Vec<String> =
        picture.below.iter().map(|(name, score)| format!("{} at {} %", escaped(name), percent(*score))).collect();
    let below = if below.is_empty() { String::new() } else { format!("; below the picture: {}", below.join(", ")) };
    let keys: Vec<String> = (0..)
        .zip(&curves)
        .map(|(place, curve)| format!("<span class=\"key {}\"></span> {}", chart::color(place), escaped(&curve.name)))
        .collect();
    format!(
        "<h2>The search</h2>\n<figure><div class=\"curve\" tabindex=\"0\">{}</div><figcaption>{}. A line is the \
         best mean score so far, in the mean over seeds, from where each seed has a score; the band is the range between \
         the seeds. Dashed lines are the baselines{below}.</figcaption></figure>\n",
        picture.svg,
        keys.join(", ")
    )
}

/// After each layer that counts, in the order of verdicts, the best mean score up to there.
fn best_so_far(candidates: &[&Candidate]) -> Vec<Option<f64>> {
    let mut finished: Vec<&&Candidate> = candidates.iter().filter(|candidate| candidate.finish.is_some()).collect();
    finished.sort_by_key(|candidate| candidate.finish);
    let mut best: Option<f64> = None;
    let mut line = vec![];
    for candidate in finished {
        best = best.into_iter().chain(candidate.mean()).reduce(f64::max);
        if was_judged(candidate) {
            line.push(best);
        }
    }
    line
}

/// The scores in one network against those in another.
pub(super) fn scatter(findings: &Findings<'_>) -> String {
    let anchors = findings.subject.anchors;
    if findings.ranked.len() < 2 || anchors.len() < 2 {
        return String::new();
    }
    let front: BTreeSet<usize> = findings.front.iter().copied().collect();
    let dots: Vec<Dot> = findings
        .ranked
        .iter()
        .enumerate()
        .map(|(place, ranked)| Dot {
            scores: ranked.scores.to_vec(),
            is_front: front.contains(&place),
            name: is_fixed(ranked.candidate).then(|| ranked.candidate.graph.clone()),
        })
        .collect();
    let pairs = (0..anchors.len()).flat_map(|across| (across + 1..anchors.len()).map(move |up| [across, up]));
    let pairs = pairs.filter(|[across, _]| anchors.len() <= ALL_PAIRS || *across == 0);
    let pictures: String = pairs.filter_map(|pair| chart::scatter(&dots, anchors, pair)).collect();
    if pictures.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Across networks</h2>\n<figure><div class=\"row\">{pictures}</div><figcaption>\
         <span class=\"key c0\"></span> a layer that was trained, \
         <span class=\"key c1\"></span> one that no other beats in every network (the Pareto front), \
         <span class=\"key square c2\"></span> a baseline, in the colour of the front where it is one of it. The lowest tenth of each network is drawn at its \
         edge.</figcaption></figure>\n"
    )
}

/// What was rejected, why, and at which cost, with what was trained to compare.
pub(super) fn rejections(findings: &Findings<'_>) -> String {
    let candidates = findings.subject.candidates;
    let of = |outcome: Outcome| candidates.iter().filter(move |candidate| Outcome::of(candidate) == outcome);
    let is_rejected = |candidate: &Candidate| matches!(Outcome::of(candidate), Outcome::Rejected(_));
    if !candidates.iter().any(is_rejected) {
        return String::new();
    }
    let all: f64 = candidates.iter().map(|candidate| candidate.seconds).sum();
    let strategies = findings.strategies();
    let outcomes = Reason::ALL.map(Outcome::Rejected).into_iter().chain([Outcome::Diverged, Outcome::Trained]);
    let mut rows = vec![];
    for outcome in outcomes.filter(|outcome| of(*outcome).next().is_some()) {
        let seconds: f64 = of(outcome).map(|candidate| candidate.seconds).sum();
        // A verdict that another run paid for says nothing about the cost.
        let paid = of(outcome).filter(|candidate| candidate.seconds > 0.0).count();
        let mut row = vec![Cell::Text(outcome.verdict()), Cell::Number(count(of(outcome).count()))];
        for (_, runs) in &strategies {
            let own = runs.iter().flat_map(|run| findings.of_run(run));
            row.push(Cell::Number(count(own.filter(|candidate| Outcome::of(candidate) == outcome).count())));
        }
        row.extend([
            Cell::Number(duration(seconds)),
            Cell::number((all > 0.0).then(|| format!("{:.1} %", 100.0 * seconds / all))),
            Cell::number((paid > 0).then(|| duration(seconds / paid as f64))),
        ]);
        rows.push(row);
    }
    let mut head = vec!["verdict", "layers"];
    head.extend(strategies.iter().map(|(name, _)| *name));
    head.extend(["judging", "of all judging", "a layer"]);
    let mut text = String::from("<h2>Rejected</h2>\n");
    text += &table("Different layers of each run by their verdict, and what judging them cost", &head, &rows);
    for reason in Reason::ALL {
        let mut details: BTreeMap<&str, usize> = BTreeMap::new();
        for candidate in of(Outcome::Rejected(reason)) {
            if let Some(Verdict::Rejected { detail, .. }) = &candidate.verdict {
                *details.entry(detail).or_default() += 1;
            }
        }
        let mut details: Vec<(&str, usize)> = details.into_iter().collect();
        details.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        let items: String = details
            .iter()
            .take(EXAMPLES)
            .map(|(detail, times)| {
                let times =
                    if *times > 1 { format!(" ({})", counted(*times, "layer", "layers")) } else { String::new() };
                format!("<li>{}{times}</li>\n", escaped(detail))
            })
            .collect();
        if !items.is_empty() {
            let name = reason.name();
            text += &format!("<details><summary>What was found: {name}</summary>\n<ul>\n{items}</ul>\n</details>\n");
        }
    }
    text
}

/// What was trained again.
pub(super) fn reranked(findings: &Findings<'_>) -> String {
    let subject = findings.subject;
    if subject.reranked.is_empty() {
        return String::new();
    }
    let anchors = subject.reranked_in;
    let mut rows: Vec<Vec<Cell>> = vec![];
    for one in subject.reranked {
        // Seeds that went wrong are counted, and left out of the means.
        let (means, middle) = (one.means(), one.mean());
        let (least, most) = extremes(&means);
        let in_search = subject.candidates.iter().filter(|candidate| candidate.graph == one.graph);
        let mut row = vec![
            Cell::Text(findings.name(&one.graph)),
            Cell::number(one.kept.map(|place| format!("<b>{place}</b>"))),
            Cell::number(middle.map(|middle| format!("<b>{}</b>", percent(middle)))),
            Cell::number(one.deviation().map(|deviation| format!("± {}", percent(deviation)))),
            Cell::number(middle.map(|_| format!("{} to {}", percent(least), percent(most)))),
        ];
        for anchor in 0..anchors.len() {
            let seeds = one.scores.iter().filter(|scores| mean(scores).is_finite());
            let own: Vec<f64> = seeds.filter_map(|scores| scores.get(anchor).copied()).collect();
            row.push(Cell::number((!own.is_empty()).then(|| percent(mean(&own)))));
        }
        let of = if means.len() < one.scores.len() { format!(" of {}", one.scores.len()) } else { String::new() };
        row.push(Cell::Number(format!("{}{of}", means.len())));
        row.push(Cell::number(in_search.filter_map(Candidate::mean).next().map(percent)));
        rows.push(row);
    }
    let mut head = vec!["layer", "kept", "mean", "deviation", "least to most"];
    head.extend(anchors.iter().map(String::as_str));
    head.extend(["seeds", "in the search"]);
    let chosen: Vec<String> = subject
        .reranked
        .iter()
        .filter(|one| one.kept.is_some())
        .map(|one| format!("<li>{}</li>\n", findings.name(&one.graph)))
        .collect();
    let chosen = if chosen.is_empty() {
        String::new()
    } else {
        format!("<p>The final choice, the best first:</p>\n<ol>\n{}</ol>\n", chosen.concat())
    };
    format!(
        "<h2>Ranked again</h2>\n<p>Trained on all training images, longer and in larger networks, and measured on images \
         that the search has not seen.</p>\n{chosen}{}",
        table(
            "Accuracy in percent, in the mean over seeds; the deviation is the standard deviation between seeds of the \
             mean over networks",
            &head,
            &rows
        )
    )
}
