//! What a configuration cannot be, although each of its keys could be read.

use std::collections::BTreeSet;
use std::path::Path;

use normact_search::{MAX_GENES, Strategy};

use super::reader::Reader;
use super::{Config, DIGITS};
use crate::anchors::Anchor;
use crate::fitness::MeasureOn;
use crate::{Failure, Impossible, load};

/// More changes than a genotype has genes say nothing that fresh drawing does not.
const MAX_MUTATIONS: usize = MAX_GENES;

/// Notes every problem.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    search(config, reader);
    evolution(config, reader);
    training(config, reader);
    rerank(config, reader);
}

/// Notes those that hold, each at its key: `table.key`, what is wrong, and what to do.
fn note(reader: &mut Reader<'_>, checks: &[(bool, &str, &str, &str)]) {
    for (is_wrong, key, message, help) in checks {
        if *is_wrong {
            let name = key.rsplit('.').next().unwrap_or(key);
            reader.problem_at(&[key], format!("`{name}`: {message}"), (*help).to_owned());
        }
    }
}

/// Options that are not possible, of the table at `path`.
fn note_impossible(reader: &mut Reader<'_>, path: &str, problems: Vec<Impossible>) {
    for Impossible { key, message, help } in problems {
        reader.problem_at(&[&format!("{path}.{key}")], message, help);
    }
}

fn search(config: &Config, reader: &mut Reader<'_>) {
    let search = &config.search;
    let known = [Strategy::Evolution, Strategy::RandomTested, Strategy::Random].map(Strategy::name);
    for strategy in search.strategies.iter().filter(|strategy| !known.contains(&strategy.as_str())) {
        let help = format!("there are {}", known.join(", "));
        reader.problem_at(&["search.strategies"], format!("there is no strategy `{strategy}`"), help);
    }
    let mut names = vec![];
    for layer in &search.baselines {
        match baseline(layer) {
            Ok(name) => names.push(name),
            Err(failure) => {
                // What is wrong within a file has lines of its own.
                let message = failure.message.trim_end().trim_start_matches("error: ").to_owned();
                reader.problem_at(&["search.baselines"], message, failure.help);
            }
        }
    }
    twice(reader, "search.baselines", &names);
    twice(reader, "search.strategies", &search.strategies);
    twice(reader, "search.seeds", &search.seeds);
    let has_data = search.data == DIGITS || Path::new(&search.data).is_dir();
    note(
        reader,
        &[
            (search.seeds.is_empty(), "search.seeds", "there is no seed", "give one or more numbers"),
            (
                search.strategies.is_empty() && search.baselines.is_empty(),
                "search.strategies",
                "there is nothing to run",
                "name a strategy or a baseline",
            ),
            (search.budget == 0, "search.budget", "the budget is 0", "give 1 or more"),
            (search.budget > i64::MAX as u64 / 100, "search.budget", "the budget is too large", "give up to 1e16"),
            (search.proposals == 0, "search.proposals", "a run that proposes nothing tries nothing", "give 1 or more"),
            (
                !(1..=1024).contains(&search.workers),
                "search.workers",
                "so many processes are not possible",
                "give 1 to 1024",
            ),
            (
                !(search.lease_seconds >= 1.0 && search.lease_seconds < 1e6),
                "search.lease_seconds",
                "a lease of that length is not possible",
                "give 1 second to 1e6",
            ),
            (
                !has_data,
                "search.data",
                "the folder of the data is not there",
                "give `digits`, or the folder with CIFAR-10's binary files",
            ),
        ],
    );
}

/// The name of a baseline that can be read.
fn baseline(spec: &str) -> Result<String, Failure> {
    if spec == "-" {
        return Err(Failure::new("a baseline cannot come from standard input").help("write it to a file"));
    }
    load::layer(spec, &[]).map(|layer| super::baseline_name(spec, &layer))
}

fn evolution(config: &Config, reader: &mut Reader<'_>) {
    let evolution = &config.evolution;
    note(
        reader,
        &[
            (
                !(1..=MAX_GENES).contains(&config.space.nodes),
                "space.nodes",
                "so many nodes are not possible",
                "give 1 to 1000",
            ),
            (evolution.population == 0, "evolution.population", "nobody could have children", "give 1 or more"),
            (
                !(evolution.tournament > 0.0 && evolution.tournament <= 1.0),
                "evolution.tournament",
                "that is no share",
                "give a number above 0, up to 1",
            ),
            (
                !(0.0..=1.0).contains(&evolution.fresh),
                "evolution.fresh",
                "that is no chance",
                "give a number from 0 to 1",
            ),
            (
                evolution.mutations == 0 && evolution.fresh < 1.0,
                "evolution.mutations",
                "without mutations a child is its parent",
                "give 1 or more",
            ),
            (
                evolution.mutations > MAX_MUTATIONS,
                "evolution.mutations",
                "so many mutations leave nothing of a parent",
                "give up to 1000",
            ),
        ],
    );
}

fn training(config: &Config, reader: &mut Reader<'_>) {
    let Config { task, rejection, anchors, .. } = config;
    note_impossible(reader, "task", task.problems());
    note_impossible(reader, "rejection", rejection.problems());
    let quality = rejection.quality.map_or(0, |quality| quality.steps);
    if quality > task.steps && task.steps > 0 {
        let message = format!("the quality test has {quality} steps, more than the training with {}", task.steps);
        let help = "train for longer, test earlier, or leave the test out".to_owned();
        // The test and the training are two tables: what the file says is at fault, not a default.
        let keys = if reader.gives("rejection.quality.steps") {
            ["rejection.quality.steps", "task.steps"]
        } else {
            ["task.steps", "space.batch_free"]
        };
        reader.problem_at(&keys, message, help);
    }
    if task.measure_on == MeasureOn::HeldOut {
        let help = "leave it out: ranking again measures on the held-out images".to_owned();
        reader.problem_at(&["task.measure_on"], "a search must not see the held-out images", help);
    }
    for (name, anchor) in anchors {
        note_impossible(reader, &format!("anchors.{name}"), anchor.problems());
    }
}

fn rerank(config: &Config, reader: &mut Reader<'_>) {
    let rerank = &config.rerank;
    if rerank.top == 0 {
        return;
    }
    twice(reader, "rerank.seeds", &rerank.seeds);
    note(
        reader,
        &[
            (
                rerank.seeds.is_empty(),
                "rerank.seeds",
                "there is no seed to rank again with",
                "give one or more numbers, or `top = 0`",
            ),
            (rerank.steps == 0, "rerank.steps", "ranking again needs steps", "give 1 or more, or `top = 0`"),
            (
                rerank.keep > rerank.top && reader.gives("rerank.keep"),
                "rerank.keep",
                "more are kept than are ranked again",
                "give a number up to `top`",
            ),
        ],
    );
    if !rerank.anchors.is_empty() {
        for (name, anchor) in &rerank.anchors {
            note_impossible(reader, &format!("rerank.anchors.{name}"), anchor.problems());
        }
        for key in ["rerank.width", "rerank.depth"] {
            if reader.gives(key) {
                let message = "the tables `[rerank.anchors.NAME]` say how large the networks are";
                reader.problem_at(&[key], message, "leave out the one or the others".to_owned());
            }
        }
        return;
    }
    let mut is_scale = true;
    for (key, value) in [("rerank.width", rerank.width), ("rerank.depth", rerank.depth)] {
        if !(value > 0.0 && value.is_finite()) {
            is_scale = false;
            let help = "give a number above 0; 1 leaves the networks of the search as they are".to_owned();
            reader.problem_at(&[key], format!("networks {value} times as large are not possible"), help);
        }
    }
    // A scale that is too large is so for several networks, and told of the first.
    let mut told = BTreeSet::new();
    for (_, anchor) in config.anchors.iter().filter(|(_, anchor)| is_scale && anchor.problems().is_empty()) {
        let larger = Anchor { width: anchor.width * rerank.width, depth: anchor.depth * rerank.depth, ..*anchor };
        for problem in larger.problems().into_iter().filter(|problem| told.insert(problem.key)) {
            let key = format!("rerank.{}", problem.key);
            reader.problem_at(&[&key], format!("ranking again, {}", problem.message), problem.help);
        }
    }
}

fn twice(reader: &mut Reader<'_>, key: &str, values: &[impl Ord + std::fmt::Display]) {
    let (mut seen, mut told) = (BTreeSet::new(), BTreeSet::new());
    for value in values {
        if !seen.insert(value) && told.insert(value) {
            reader.problem_at(&[key], format!("`{value}` is there twice"), None);
        }
    }
}
