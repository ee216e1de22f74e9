//! `normact search`: evolve layers, compare with random search and fixed layers, and tell what came of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use normact_emit::Options;
use normact_search::{Candidate, End, Origin, place_of, ranked};
use serde::Serialize;

use super::targets::{self, Language};
use super::{Outcome, note, print, print_json, stop_on_interrupt};
use crate::device::{self, DeviceChoice};
use crate::search::{self, Config, History, Layers, Line, Reranked, Work};
use crate::{Failure, files};

const EXAMPLES: &str = "\
Examples:
  normact search examples/search/digits.toml            search, rank the best again, write the report
  normact search report examples/search/digits.toml     the report alone, also while a search is under way
  normact search top examples/search/digits.toml --count 3 --emit rust --out layers
  normact search big.toml --worker                      take part, on any machine that reaches the database

A search that was stopped or killed goes on where it stopped when it is started again. Every table and key of
CONFIG has a default; docs/search.md lists them.";

/// Search for layers: evolution against random search, on several networks at once
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// The search, in TOML
    #[arg(value_name = "CONFIG", required = true)]
    config: Option<PathBuf>,

    #[command(flatten)]
    work: WorkArgs,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Clone, clap::Args)]
struct WorkArgs {
    /// Only take part, without showing anything, until all is done
    #[arg(long)]
    worker: bool,

    /// Where to run
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t = DeviceChoice::Cpu)]
    device: DeviceChoice,

    /// Print the results as JSON, an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Write the report of a search, complete or not
    #[command(after_help = "Examples:\n  normact search report digits.toml --out report.html")]
    Report {
        /// The search, in TOML
        #[arg(value_name = "CONFIG")]
        config: PathBuf,

        /// The page to write [default: report.html in the folder of the search]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,

        /// Print the results as JSON, an object a line
        #[arg(long)]
        json: bool,
    },
    /// Print the best layers, or emit them
    Top(TopArgs),
    /// Train the best layers again, longer and in larger networks, and measure them on held-out images
    #[command(after_help = "Examples:\n  normact search rerank digits.toml")]
    Rerank {
        /// The search, in TOML
        #[arg(value_name = "CONFIG")]
        config: PathBuf,

        #[command(flatten)]
        work: WorkArgs,
    },
}

const TOP_EXAMPLES: &str = "\
Examples:
  normact search top digits.toml --count 3 --emit rust --out layers
  normact search top digits.toml --reranked";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = TOP_EXAMPLES)]
struct TopArgs {
    /// The search, in TOML
    #[arg(value_name = "CONFIG")]
    config: PathBuf,

    /// Those that ranking again keeps, the best on held-out images first, in place of the best of the search
    #[arg(long)]
    reranked: bool,

    /// How many [default: 10; with --reranked as many as are kept]
    #[arg(long, value_name = "N")]
    count: Option<usize>,

    /// Emit them in a language, as `normact emit` does
    #[arg(long, value_enum, value_name = "TARGET", requires = "out")]
    emit: Option<Language>,

    /// The folder to emit to
    #[arg(long, value_name = "DIR", requires = "emit")]
    out: Option<PathBuf>,

    /// The number of channels, for ONNX
    #[arg(long, value_name = "COUNT", requires = "emit", value_parser = clap::value_parser!(u32).range(1..))]
    channels: Option<u32>,

    /// Print a JSON object for each
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    match (&args.action, &args.config) {
        (None, Some(file)) => work(file, &args.work, Work::Everything),
        (Some(Action::Rerank { config, work: options }), _) => work(config, options, Work::RankingAgain),
        (Some(Action::Report { config, out, json }), _) => report(&Config::read(config)?.0, out.clone(), *json),
        (Some(Action::Top(args)), _) => top(args),
        (None, None) => unreachable!("clap asks for the configuration"),
    }
}

fn work(file: &Path, args: &WorkArgs, what: Work) -> Result<Outcome, Failure> {
    let (config, text) = Config::read(file)?;
    let opened = device::open(args.device)?;
    if what == Work::Everything {
        search::begin(&config, &text, &opened)?;
    }
    let stop = stop_on_interrupt("after this training")?;
    if args.worker {
        search::stop_at_end_of_input(stop);
        search::run_worker(&config, &opened, what, false, stop)?;
        return Ok(Outcome::Success);
    }
    match what {
        Work::Everything => note(&format!(
            "{} runs, {} layers in all, {} networks, {} on {}: {}",
            config.runs().len(),
            config.runs().iter().map(|run| run.budget).sum::<u64>(),
            config.anchors.len(),
            config.search.data,
            opened.name,
            place_of(&config.database())
        )),
        Work::RankingAgain if config.rerank.top == 0 => {
            return Err(Failure::new("the file says to rank no layer again").help("give `top` in `[rerank]` a number"));
        }
        Work::RankingAgain => note(&format!(
            "training the best {} again: {} steps, {} seeds, measured on held-out images",
            config.rerank.top,
            config.rerank.steps,
            config.rerank.seeds.len()
        )),
    }
    let device_name = args.device.to_possible_value().map_or("cpu".to_owned(), |value| value.get_name().to_owned());
    match search::run(&config, file, &opened, &device_name, what, stop)? {
        End::Complete => report(&config, None, args.json),
        End::Stopped if args.json => print_json(&Line::Stopped).map(|()| Outcome::Success),
        End::Stopped => {
            note(&Line::Stopped.to_string());
            Ok(Outcome::Success)
        }
    }
}

fn report(config: &Config, out: Option<PathBuf>, as_json: bool) -> Result<Outcome, Failure> {
    let history = History::read(config)?;
    let page = search::page(config, &history)?;
    let path = match out {
        Some(path) => path,
        None => {
            let folder = &config.search.out;
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))?;
            folder.join("report.html")
        }
    };
    files::write(&path, page.as_bytes())?;
    let mut lines = search::summary(config, &history)?;
    lines.push(Line::Report { path: path.display().to_string() });
    for line in &lines {
        if as_json { print_json(line)? } else { print(&format!("{line}\n"))? }
    }
    Ok(Outcome::Success)
}

/// One of the best layers. In JSON its keys are stable.
#[derive(Serialize)]
struct Top<'a> {
    place: usize,
    run: i64,
    number: u64,
    key: &'a str,
    mean: f64,
    scores: BTreeMap<String, f64>,
    held_out: Option<HeldOut>,
    formula: String,
}

/// What ranking again made of it.
#[derive(Serialize)]
struct HeldOut {
    mean: f64,
    deviation: Option<f64>,
    seeds: usize,
}

fn top(args: &TopArgs) -> Result<Outcome, Failure> {
    let (config, _) = Config::read(&args.config)?;
    let (history, layers) = (History::read(&config)?, Layers::of(&config)?);
    let best: Vec<&Candidate> =
        ranked(&history.candidates).into_iter().filter(|candidate| candidate.origin != Origin::Fixed).collect();
    if best.is_empty() {
        return Err(Failure::new("the search has found no layer yet").help("run `normact search CONFIG` first"));
    }
    let reranked_as =
        |candidate: &Candidate| history.reranked.iter().find(|one| one.graph == candidate.graph && one.kept.is_some());
    let chosen: Vec<&Candidate> = if args.reranked {
        let of_graph = |one: &Reranked| best.iter().copied().find(|candidate| candidate.graph == one.graph);
        history.kept().filter_map(of_graph).take(args.count.unwrap_or(usize::MAX)).collect()
    } else {
        best.iter().copied().take(args.count.unwrap_or(10)).collect()
    };
    if chosen.is_empty() && args.count != Some(0) {
        return Err(Failure::new("the best layers have not all been ranked again")
            .help("run `normact search rerank CONFIG` first"));
    }
    let networks: Vec<String> = config.anchors.iter().map(|(name, _)| name.clone()).collect();
    for (place, candidate) in (1..).zip(chosen) {
        let name = format!("{}_{place}", if args.reranked { "kept" } else { "found" });
        let layer = layers.simplified(&candidate.graph, &name)?;
        let (Some(mean), Some(scores)) = (candidate.mean(), candidate.scores()) else { continue };
        let held_out = reranked_as(candidate)
            .and_then(|one| Some(HeldOut { mean: one.mean()?, deviation: one.deviation(), seeds: one.means().len() }));
        let top = Top {
            place,
            run: candidate.run,
            number: candidate.number,
            key: &candidate.key,
            mean,
            scores: search::named(&networks, scores),
            held_out,
            formula: normact_syntax::print(&layer),
        };
        if args.json {
            print_json(&top)?
        } else {
            print(&shown(&top, &networks))?
        }
        if let Some((language, folder)) = args.emit.zip(args.out.as_ref()) {
            let channels = args.channels.map(|channels| channels as usize);
            let options = Options { source: Some(top.formula.clone()), channels, rank: Some(4), weights: vec![] };
            for path in targets::write(&layer, language, &options, vec![], folder)? {
                note(&format!("wrote {}", path.display()));
            }
        }
    }
    Ok(Outcome::Success)
}

/// The formula under what it scored.
fn shown(top: &Top<'_>, networks: &[String]) -> String {
    let in_network = |name: &String| Some(format!("{name} {:.1} %", top.scores.get(name)? * 100.0));
    let places: Vec<String> = networks.iter().filter_map(in_network).collect();
    let held_out = top.held_out.as_ref().map_or(String::new(), |HeldOut { mean, deviation, seeds }| {
        let spread = deviation.map_or(String::new(), |deviation| format!(" ± {:.2}", deviation * 100.0));
        format!("// held out {:.2} %{spread} over {seeds} seeds\n", mean * 100.0)
    });
    format!("{held_out}// {}\n{}\n", places.join(", "), top.formula)
}
