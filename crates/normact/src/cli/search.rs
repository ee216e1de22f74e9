//! `normact search`: evolve layers, compare with random search and fixed layers, and tell what came of it.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::{Subcommand, ValueEnum};
use normact_emit::{Options, Target, emit};
use normact_search::{Candidate, End, Store, Verdict, place_of};
use serde::Serialize;

use super::{Outcome, note, print, print_json, stop_on_interrupt};
use crate::device::{self, DeviceChoice};
use crate::search::{self, Config};
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

    /// Only take part in the search, without showing anything
    #[arg(long)]
    worker: bool,

    /// Where to run
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t = DeviceChoice::Cpu)]
    device: DeviceChoice,

    #[command(subcommand)]
    action: Option<Action>,
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
    },
    /// Print the best layers, or emit them
    #[command(after_help = "Examples:\n  normact search top digits.toml --count 3 --emit rust --out layers")]
    Top {
        /// The search, in TOML
        #[arg(value_name = "CONFIG")]
        config: PathBuf,

        /// How many
        #[arg(long, value_name = "N", default_value_t = 10)]
        count: usize,

        /// Emit them in a language, as `normact emit` does
        #[arg(long, value_enum, value_name = "TARGET", requires = "out")]
        emit: Option<Language>,

        /// The folder to emit to
        #[arg(long, value_name = "DIR", requires = "emit")]
        out: Option<PathBuf>,

        /// Print a JSON object for each
        #[arg(long)]
        json: bool,
    },
    /// Train the best layers again, longer and in larger networks, and measure them on held-out images
    #[command(after_help = "Examples:\n  normact search rerank digits.toml")]
    Rerank {
        /// The search, in TOML
        #[arg(value_name = "CONFIG")]
        config: PathBuf,

        /// Where to run
        #[arg(long, value_enum, value_name = "DEVICE", default_value_t = DeviceChoice::Cpu)]
        device: DeviceChoice,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A module for Burn
    Rust,
    /// A torch.nn.Module
    Pytorch,
    /// A function on JAX arrays, and a Flax module
    Jax,
}

impl Language {
    fn target(self) -> Target {
        match self {
            Language::Rust => Target::Rust,
            Language::Pytorch => Target::Pytorch,
            Language::Jax => Target::Jax,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    match (&args.action, &args.config) {
        (None, Some(file)) => search(args, file),
        (Some(Action::Report { config, out }), _) => {
            let (config, _) = Config::read(config)?;
            report(&config, out.clone())
        }
        (Some(Action::Top { config, count, emit, out, json }), _) => {
            let (config, _) = Config::read(config)?;
            top(&config, *count, emit.zip(out.clone()), *json)
        }
        (Some(Action::Rerank { config, device }), _) => {
            let (config, _) = Config::read(config)?;
            let stop = stop_on_interrupt("after this training")?;
            if rerank(&config, *device, stop)? == End::Stopped {
                return Ok(stopped());
            }
            report(&config, None)
        }
        (None, None) => unreachable!("clap asks for the configuration"),
    }
}

fn search(args: &Args, file: &std::path::Path) -> Result<Outcome, Failure> {
    let (config, text) = Config::read(file)?;
    let opened = device::open(args.device)?;
    search::begin(&config, &text, &opened)?;
    let stop = stop_on_interrupt("after this layer")?;
    if args.worker {
        search::stop_at_end_of_input(stop);
        search::run_worker(&config, &opened, false, stop)?;
        return Ok(Outcome::Success);
    }
    let runs = config.runs();
    note(&format!(
        "{} runs, {} layers in all, {} networks, {} on {}: {}",
        runs.len(),
        runs.iter().map(|run| run.budget).sum::<u64>(),
        config.anchors.len(),
        config.search.data,
        opened.name,
        place_of(&config.database())
    ));
    let device_name = args.device.to_possible_value().map_or("cpu".to_owned(), |value| value.get_name().to_owned());
    if search::run(&config, file, &opened, &device_name, stop)? == End::Stopped {
        return Ok(stopped());
    }
    if config.rerank.top > 0 && rerank(&config, args.device, stop)? == End::Stopped {
        return Ok(stopped());
    }
    report(&config, None)
}

fn stopped() -> Outcome {
    note("stopped; start it again to go on");
    Outcome::Success
}

/// What the database holds of a search.
fn candidates(config: &Config) -> Result<Vec<Candidate>, Failure> {
    let mut store = Store::open_existing(&config.database()).map_err(|error| search::failure(&error))?;
    store.config().map_err(|error| search::failure(&error))?;
    store.candidates().map_err(|error| search::failure(&error))
}

fn rerank(config: &Config, choice: DeviceChoice, stop: &AtomicBool) -> Result<End, Failure> {
    let opened = device::open(choice)?;
    let candidates = candidates(config)?;
    note(&format!(
        "training the best {} again: {} steps, {} seeds, measured on held-out images",
        config.rerank.top,
        config.rerank.steps,
        config.rerank.seeds.len()
    ));
    let end = search::rerank(config, &candidates, &opened, stop, &mut |one| {
        note(&format!("  {}  {}", percent(&one.means()), one.graph));
    })?;
    if end == End::Complete {
        for one in search::reranked(config, &candidates)? {
            print(&format!("held out {}  {}\n", percent(&one.means()), one.graph))?;
        }
    }
    Ok(end)
}

/// A mean with its spread: `97.3 % ± 0.4`.
fn percent(values: &[f64]) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let spread = values.iter().fold(0.0, |spread: f64, value| spread.max((value - mean).abs()));
    format!("{:.2} % ± {:.2}", mean * 100.0, spread * 100.0)
}

fn report(config: &Config, out: Option<PathBuf>) -> Result<Outcome, Failure> {
    let candidates = candidates(config)?;
    let page = search::page(config, &candidates)?;
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
    for line in search::summary(config, &candidates) {
        print(&format!("{line}\n"))?;
    }
    print(&format!("report   {}\n", path.display()))?;
    Ok(Outcome::Success)
}

#[derive(Serialize)]
struct Top<'a> {
    place: usize,
    run: i64,
    number: u64,
    key: &'a str,
    scores: &'a [f64],
    formula: String,
}

fn top(config: &Config, count: usize, emitted: Option<(Language, PathBuf)>, as_json: bool) -> Result<Outcome, Failure> {
    let (space, fixed) = (config.space(), search::baselines(config)?);
    let candidates: Vec<Candidate> = candidates(config)?;
    let own: Vec<Candidate> =
        candidates.into_iter().filter(|candidate| !fixed.iter().any(|(name, _)| *name == candidate.graph)).collect();
    let best = search::best(&own, count);
    if best.is_empty() {
        return Err(Failure::new("the search has found no layer yet").help("run `normact search CONFIG` first"));
    }
    for (place, candidate) in best.into_iter().enumerate() {
        let mut layer = search::layer_of(&candidate.graph, &space, &fixed)?;
        layer.name = format!("found_{}", place + 1);
        layer.dag = normact_egraph::simplify(&layer.dag, &normact_egraph::SimplifyBudget::default()).dag;
        let Some(Verdict::Scored(scores)) = &candidate.verdict else { continue };
        let formula = normact_syntax::print(&layer);
        if as_json {
            let (run, number, key) = (candidate.run, candidate.number, candidate.key.as_str());
            print_json(&Top { place: place + 1, run, number, key, scores, formula })?;
        } else {
            let places: Vec<String> = config
                .anchors
                .iter()
                .zip(scores)
                .map(|((name, _), score)| format!("{name} {:.1} %", score * 100.0))
                .collect();
            print(&format!("// {}\n{formula}\n", places.join(", ")))?;
        }
        if let Some((language, folder)) = &emitted {
            let options =
                Options { source: Some(normact_syntax::print(&layer)), channels: None, rank: None, weights: vec![] };
            let files_of = emit(&layer, language.target(), &options)
                .map_err(|error| Failure::new(error.to_string()).help(error.help()))?;
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))?;
            for file in files_of {
                let path = folder.join(&file.name);
                files::write(&path, &file.bytes)?;
                note(&format!("wrote {}", path.display()));
            }
        }
    }
    Ok(Outcome::Success)
}
