//! The layers that were found: formulas, drawings, spellings and ancestors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use normact_ir::Layer;
use normact_search::{Candidate, INITIAL_NODES, Origin, mean};

use super::super::formula;
use super::markup::{Cell, code, count, counted, escaped, percent, points, table};
use super::{Findings, Ranked, is_fixed};

/// How many of the best layers are shown.
const BEST: usize = 10;

/// How many of them are unfolded.
const OPEN: usize = 3;

/// How many other spellings of a layer are shown.
const SPELLINGS: usize = 5;

/// A front with more rows is folded; of a longer line of ancestors, those with a formula of their own are shown.
const LONG: usize = 12;

/// The layers that no other beats in every network.
pub(super) fn front(findings: &Findings<'_>) -> String {
    let anchors = findings.subject.anchors;
    // With one network the front is its best layer, which comes first below anyway.
    if findings.front.is_empty() || anchors.len() < 2 {
        return String::new();
    }
    let row = |ranked: &Ranked<'_>| {
        let mut row = vec![Cell::Text(findings.name(&ranked.candidate.graph))];
        row.extend(ranked.scores.iter().map(|score| Cell::Number(percent(*score))));
        row.push(Cell::Number(format!("<b>{}</b>", percent(mean(ranked.scores)))));
        row.push(Cell::Text(findings.place(ranked.candidate)));
        row
    };
    let rows: Vec<Vec<Cell>> = findings.front.iter().map(|&place| row(&findings.ranked[place])).collect();
    let mut head = vec!["layer"];
    head.extend(anchors.iter().map(String::as_str));
    head.extend(["mean", "first met"]);
    let table = table("No other layer is as good as one of these in every network and better in one", &head, &rows);
    format!(
        "<h2>The Pareto front</h2>\n{}",
        if rows.len() <= LONG {
            table
        } else {
            format!("<details><summary>{} layers</summary>\n{table}</details>\n", count(rows.len()))
        }
    )
}

/// The best different layers that were found.
pub(super) fn best(findings: &Findings<'_>) -> String {
    let mut met: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    let shown: BTreeSet<&str> = findings.found().take(BEST).map(|ranked| ranked.candidate.key.as_str()).collect();
    for candidate in findings.subject.candidates.iter().filter(|candidate| shown.contains(candidate.key.as_str())) {
        met.entry(&candidate.key).or_default().push(candidate);
    }
    let layers: String = findings
        .found()
        .take(BEST)
        .zip(1..)
        .filter_map(|(ranked, rank)| card(findings, ranked, rank, &met[ranked.candidate.key.as_str()]))
        .collect();
    if layers.is_empty() { layers } else { format!("<h2>The best layers</h2>\n{layers}") }
}

/// One of the best, with everything about it. `met` are the candidates with its key.
fn card(findings: &Findings<'_>, ranked: &Ranked<'_>, rank: usize, met: &[&Candidate]) -> Option<String> {
    let layer = findings.subject.layers.simplified(&ranked.candidate.graph, &format!("found_{rank}")).ok()?;
    let anchors = findings.subject.anchors;
    let places: Vec<String> = anchors
        .iter()
        .zip(ranked.scores)
        .map(|(name, score)| format!("{} {}", escaped(name), percent(*score)))
        .collect();
    let open = if rank <= OPEN { " open" } else { "" };
    let mut text = format!(
        "<details class=\"layer\"{open}>\n<summary><b>{rank}. {} %</b> <span>{}</span></summary>\n<div><div>\n\
         <pre>{}</pre>\n",
        percent(mean(ranked.scores)),
        if anchors.len() > 1 { places.join(", ") } else { String::new() },
        escaped(&normact_syntax::print(&layer))
    );
    let graphs: BTreeSet<&str> = met.iter().map(|candidate| candidate.graph.as_str()).collect();
    let times: Vec<String> = findings
        .strategies()
        .into_iter()
        .map(|(name, runs)| (name, met.iter().filter(|one| runs.iter().any(|run| run.id == one.run)).count()))
        .filter(|(_, times)| *times > 0)
        .map(|(name, times)| format!("{} in {}", count(times), escaped(name)))
        .collect();
    let _ = writeln!(
        text,
        "<p>First met by {}. Met {}{} as {}.</p>",
        findings.place(ranked.candidate),
        counted(met.len(), "time", "times"),
        if times.len() > 1 { format!(" ({})", times.join(", ")) } else { String::new() },
        counted(graphs.len(), "graph", "different graphs")
    );
    text += &spellings(findings, &layer, met);
    let _ = writeln!(
        text,
        "<details><summary>As genes and as LaTeX</summary>\n<p>{}</p>\n<pre>{}</pre>\n</details>\n</div>\n\
         <div class=\"drawing\">{}</div></div>\n</details>",
        code(&ranked.candidate.graph),
        escaped(&normact_emit::latex(&layer)),
        drawing(&layer)
    );
    Some(text)
}

/// Equal forms that were met, as they were written.
fn spellings(findings: &Findings<'_>, simplified: &Layer, met: &[&Candidate]) -> String {
    let mut known = BTreeSet::from([formula::one_line(simplified)]);
    let mut items = vec![];
    let mut graphs = BTreeSet::new();
    for candidate in met.iter().filter(|candidate| graphs.insert(&candidate.graph)) {
        if items.len() == SPELLINGS {
            break;
        }
        let Ok(layer) = findings.subject.layers.layer(&candidate.graph) else { continue };
        let line = formula::one_line(&formula::tidied(layer.dag, "found"));
        if known.insert(line.clone()) {
            items.push(format!("<li>{}</li>\n", code(&line)));
        }
    }
    if items.is_empty() {
        return String::new();
    }
    format!("<h3>Equal forms that were met</h3>\n<ul>\n{}</ul>\n", items.concat())
}

/// The drawing of a layer as part of a page.
fn drawing(layer: &Layer) -> String {
    let svg = normact_emit::svg(layer);
    svg.find("<svg").map_or(String::new(), |start| svg[start..].to_owned())
}

/// The ancestors of the best layer, the first one first.
pub(super) fn lineage(findings: &Findings<'_>) -> String {
    let Some(best) = findings.found().next() else { return String::new() };
    let chain = ancestors(findings, best.candidate);
    let title = "<h2>Where the best comes from</h2>\n";
    if chain.len() == 1 {
        let place = findings.place(best.candidate);
        return format!("{title}<p>It was drawn at random ({place}) and has no ancestors.</p>\n");
    }
    let formulas: Vec<String> = chain.iter().map(|candidate| findings.name(&candidate.graph)).collect();
    let is_neutral = |place: usize| place > 0 && formulas[place - 1] == formulas[place];
    let row = |place: usize| {
        let (candidate, parent) = (chain[place], place.checked_sub(1).map(|parent| chain[parent]));
        let change =
            parent.and_then(Candidate::mean).zip(candidate.mean()).map(|(before, after)| points(after - before));
        let mut row = vec![
            Cell::Text(candidate.number.to_string()),
            Cell::Text(parent.map_or_else(|| origin(candidate), |parent| changes(findings, parent, candidate))),
            Cell::Text(if is_neutral(place) { "the same".to_owned() } else { formulas[place].clone() }),
        ];
        for anchor in 0..findings.subject.anchors.len() {
            let score = candidate.scores().and_then(|scores| scores.get(anchor));
            row.push(Cell::number(score.map(|score| percent(*score))));
        }
        row.push(Cell::number(candidate.mean().map(|score| format!("<b>{}</b>", percent(score)))));
        row.push(Cell::number(change));
        row
    };
    let mut head = vec!["number", "what changed", "formula"];
    head.extend(findings.subject.anchors.iter().map(String::as_str));
    head.extend(["mean", "change"]);
    let all: Vec<Vec<Cell>> = (0..chain.len()).map(row).collect();
    let all = table("From the first ancestor down to the best layer; scores in percent", &head, &all);
    let tables = if chain.len() <= LONG {
        all
    } else {
        let telling: Vec<Vec<Cell>> = (0..chain.len()).filter(|&place| !is_neutral(place)).map(row).collect();
        let caption =
            "The steps from the first ancestor down to the best layer that changed the formula; scores in percent";
        let every = counted(chain.len(), "layer", "layers");
        table(caption, &head, &telling)
            + &format!("<details><summary>All {every} of the line, neutral steps too</summary>\n{all}</details>\n")
    };
    let place = findings.place(best.candidate);
    format!(
        "{title}<p>The best layer is {place}. Genes are counted from {INITIAL_NODES}, after the input, zero, <code>v0</code> \
         and <code>v1</code>; one that the result does not use changes nothing for now.</p>\n{tables}"
    )
}

/// A candidate after its parent, its parent's parent, and so on.
fn ancestors<'a>(findings: &Findings<'a>, youngest: &'a Candidate) -> Vec<&'a Candidate> {
    let run = findings.by_run.get(&youngest.run).map_or(&[][..], Vec::as_slice);
    let mut chain = vec![youngest];
    let mut eldest = youngest;
    while let Origin::Child { parent, .. } = eldest.origin {
        let found = run.iter().find(|candidate| candidate.number == parent);
        // A damaged database is no reason to go round and round.
        let Some(found) = found.filter(|found| found.number < eldest.number) else { break };
        chain.push(found);
        eldest = found;
    }
    chain.reverse();
    chain
}

fn origin(candidate: &Candidate) -> String {
    match candidate.origin {
        Origin::Fresh => "drawn at random".to_owned(),
        Origin::Fixed => "given".to_owned(),
        Origin::Child { parent, .. } => format!("a child of {parent}, which is not here"),
    }
}

/// The genes in which a child differs from its parent.
fn changes(findings: &Findings<'_>, parent: &Candidate, child: &Candidate) -> String {
    let layer = findings.subject.layers.layer(&child.graph).ok();
    let live = layer.filter(|_| !is_fixed(child)).map(|layer| layer.dag.live());
    let changes: Vec<String> = parent
        .graph
        .split(' ')
        .zip(child.graph.split(' '))
        .zip(INITIAL_NODES..)
        .filter(|((before, after), _)| before != after)
        .map(|((before, after), gene)| {
            let is_used = live.as_ref().is_none_or(|live| live.get(gene).copied().unwrap_or(true));
            let unused = if is_used { "" } else { " (not used)" };
            format!("{gene}: {} → {}{unused}", code(before), code(after))
        })
        .collect();
    if changes.is_empty() { "the same genes again".to_owned() } else { changes.join("<br>") }
}
