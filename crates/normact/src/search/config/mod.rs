//! A search as a file: TOML, a table for each theme, every key with a default.
//!
//! Everything that is wrong is reported in one run, each with its line. `reader` reads tables of any kind,
//! `check` knows what these cannot hold, `fingerprint` tells one search from another.

mod check;
mod fingerprint;
mod reader;

use std::path::{Path, PathBuf};

use normact_ir::Layer;
use normact_search::{Drawing, Evolution, Options, Run, Space, Strategy, Uniform};
use normact_syntax::nearest;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeString, DeValue};

use crate::anchors::{Anchor, Architecture, Stem};
use crate::fitness::{Rejection, TaskConfig};
use crate::{Failure, built_in, files, load};
pub(super) use fingerprint::Fingerprint;
use reader::{Reader, Table};

/// What `data` calls the images that come with the program.
pub(super) const DIGITS: &str = "digits";

/// The largest configuration that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A whole search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// What is compared, how long, where.
    pub search: SearchTable,
    /// Where layers are drawn from.
    pub space: SpaceTable,
    /// How evolution goes.
    pub evolution: Evolution,
    /// The tests before training.
    pub rejection: Rejection,
    /// The training.
    pub task: TaskConfig,
    /// The networks with the names they have in reports, in the order of the file: the tests begin with the
    /// first.
    pub anchors: Vec<(String, Anchor)>,
    /// What is done with the best in the end.
    pub rerank: RerankTable,
}

/// The table `[search]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchTable {
    /// The strategies that are compared: `evolution`, `random-tested` (random layers with the tests), `random`
    /// (random layers, all trained).
    pub strategies: Vec<String>,
    /// Each strategy is run once for each seed.
    pub seeds: Vec<u64>,
    /// Different layers that each run may have judged; a rejection for structure is free.
    pub budget: u64,
    /// How many layers a run may propose for each of its budget: a space with few layers has nothing new to offer
    /// in the end.
    pub proposals: u64,
    /// Layers to compare with: built-in ones, or files.
    pub baselines: Vec<String>,
    /// `digits`, or a folder with CIFAR-10 in its binary form.
    pub data: String,
    /// The seed of every training.
    pub training_seed: u64,
    /// The folder of the report, and of the database if that is not said.
    pub out: PathBuf,
    /// A path for SQLite or a `postgres://` URL; empty for `search.db` in the folder.
    pub database: String,
    /// Processes on this machine; their cores are shared out.
    pub workers: usize,
    /// Seconds after which another worker takes over what a worker that died had begun.
    pub lease_seconds: f64,
    /// Workers that may die over a layer before it is rejected; 0 for any number. Processes that are killed from
    /// outside count too.
    pub max_deaths: u64,
    /// Errors in judging a layer before it is rejected; 0 for any number.
    pub max_failures: u64,
}

impl Default for SearchTable {
    fn default() -> Self {
        Self {
            strategies: vec!["evolution".to_owned(), "random-tested".to_owned()],
            seeds: vec![1, 2, 3],
            budget: 1000,
            proposals: Run::PROPOSALS_PER_LAYER,
            baselines: vec!["bn_relu".to_owned()],
            data: "digits".to_owned(),
            training_seed: 0,
            out: PathBuf::from("runs/search"),
            database: String::new(),
            workers: 1,
            lease_seconds: 120.0,
            max_deaths: Options::MAX_DEATHS,
            max_failures: Options::MAX_FAILURES,
        }
    }
}

/// The table `[space]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceTable {
    /// Nodes that are drawn after the four initial ones.
    pub nodes: usize,
    /// Whether moments over samples are left out.
    pub batch_free: bool,
    /// Whether results that are the same at every position are candidates: mere statistics, through which a
    /// network sees no image. They are two thirds of what is drawn, and the quality test rejects them too.
    pub mere_statistics: bool,
    /// Whether all operations are as likely, or all primitives: a moment then counts once, and its index set is
    /// drawn after it. The paper leaves that open.
    pub uniform_over: Uniform,
    /// Whether an operation may have one node as both operands. The paper leaves that open.
    pub replacement: bool,
}

impl Default for SpaceTable {
    fn default() -> Self {
        let Drawing { uniform, replacement } = Drawing::default();
        Self { nodes: 10, batch_free: false, mere_statistics: true, uniform_over: uniform, replacement }
    }
}

/// The table `[rerank]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankTable {
    /// How many of the best layers are trained again, on all training images, and measured on held-out ones;
    /// 0 for none.
    pub top: usize,
    /// How many of them are kept, as the final choice.
    pub keep: usize,
    /// Steps of that training.
    pub steps: usize,
    /// It is done once for each seed.
    pub seeds: Vec<u64>,
    /// Multiplies the widths of the search's networks, where there are no others.
    pub width: f64,
    /// Multiplies their depths.
    pub depth: f64,
    /// Networks of its own, from the tables `[rerank.anchors.NAME]`; without them those of the search are taken.
    #[serde(skip)]
    pub anchors: Vec<(String, Anchor)>,
}

impl Default for RerankTable {
    fn default() -> Self {
        Self { top: 10, keep: 3, steps: 5000, seeds: vec![1, 2, 3], width: 2.0, depth: 1.0, anchors: vec![] }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or says something impossible: every problem with its line.
    pub fn read(path: &Path) -> Result<(Self, String), Failure> {
        let bytes = files::read(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is no text", path.display())))?;
        let config = Self::parse(&text, &path.display().to_string())?;
        Ok((config, text))
    }

    /// Reads a text that came from `name`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, name: &str) -> Result<Self, Failure> {
        let (mut reader, root) = Reader::parse(text);
        let config = read(&mut reader, &root);
        check::check(&config, &mut reader);
        reader.finish(name)?;
        Ok(config)
    }

    /// The place of the database.
    pub fn database(&self) -> String {
        if self.search.database.is_empty() {
            self.search.out.join("search.db").display().to_string()
        } else {
            self.search.database.clone()
        }
    }

    /// The space.
    pub fn space(&self) -> Space {
        let SpaceTable { nodes, batch_free, uniform_over: uniform, replacement, .. } = self.space;
        Space::evonorm(nodes, batch_free).drawn(Drawing { uniform, replacement })
    }

    /// The networks of ranking again, with the names they have in reports.
    pub fn rerank_anchors(&self) -> Vec<(String, Anchor)> {
        let RerankTable { width, depth, anchors, .. } = &self.rerank;
        if !anchors.is_empty() {
            return anchors.clone();
        }
        let larger = |anchor: Anchor| Anchor { width: anchor.width * width, depth: anchor.depth * depth, ..anchor };
        self.anchors.iter().map(|(name, anchor)| (name.clone(), larger(*anchor))).collect()
    }

    /// The baselines with their layers.
    ///
    /// # Errors
    /// A layer cannot be read any more.
    pub fn baselines(&self) -> Result<Vec<(String, Layer)>, Failure> {
        let read = |spec: &String| {
            let layer = load::layer(spec, &[])?;
            Ok((baseline_name(spec, &layer), layer))
        };
        self.search.baselines.iter().map(read).collect()
    }

    /// Every run: the baselines, then each strategy with each seed.
    pub fn runs(&self) -> Vec<Run> {
        let search = &self.search;
        let fixed = (!search.baselines.is_empty())
            .then(|| (Strategy::Fixed.name().to_owned(), 0, search.baselines.len() as u64));
        let strategies = search
            .strategies
            .iter()
            .flat_map(|strategy| search.seeds.iter().map(|&seed| (strategy.clone(), seed, search.budget)));
        let run = |(id, (strategy, seed, budget)): (usize, (String, u64, u64))| Run {
            id: id as i64,
            strategy,
            seed,
            budget,
            proposals: budget.saturating_mul(search.proposals),
        };
        fixed.into_iter().chain(strategies).enumerate().map(run).collect()
    }
}

/// What a search calls a baseline: a built-in layer by its name, one from a file by that of the layer, as the file
/// may lie elsewhere on another machine.
fn baseline_name(spec: &str, layer: &Layer) -> String {
    if built_in::source(spec).is_some() { spec.to_owned() } else { layer.name.clone() }
}

/// Every table of a file, as far as it can be read.
fn read(reader: &mut Reader<'_>, root: &Table<'_>) -> Config {
    let mut config = Config {
        search: SearchTable::default(),
        space: SpaceTable::default(),
        evolution: Evolution::default(),
        rejection: Rejection::default(),
        task: TaskConfig::default(),
        anchors: vec![],
        rerank: RerankTable::default(),
    };
    let tables = reader.tables("", root);
    for (at, name, table) in &tables {
        match *name {
            "search" => config.search = reader.table(name, table, config.search.clone()),
            "space" => config.space = reader.table(name, table, config.space.clone()),
            "evolution" => config.evolution = reader.table(name, table, config.evolution.clone()),
            "rejection" => config.rejection = reader.table(name, table, config.rejection),
            "anchors" => config.anchors = anchors(reader, name, table),
            "rerank" => config.rerank = rerank(reader, table),
            // Read below: what it takes for granted depends on the space.
            "task" => {}
            unknown => {
                let known = ["search", "space", "evolution", "rejection", "task", "anchors", "rerank"];
                reader.unknown("", unknown, *at, known.into_iter());
            }
        }
    }
    if config.space.batch_free {
        config.task = TaskConfig::batch_free();
    }
    if let Some((_, name, table)) = tables.iter().find(|(_, name, _)| *name == "task") {
        config.task = reader.table(name, table, config.task.clone());
    }
    config.rejection.mere_statistics = config.space.mere_statistics;
    if config.anchors.is_empty() && !reader.gives("anchors") {
        let published = |architecture: Architecture| (architecture.name().to_owned(), Anchor::search(architecture));
        config.anchors = Architecture::ALL.map(published).into();
    }
    config
}

/// The table `[rerank]`, which has tables of its own.
fn rerank(reader: &mut Reader<'_>, table: &Table<'_>) -> RerankTable {
    let is_own = |(key, value): &(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
        key.get_ref() == "anchors" && value.get_ref().is_table()
    };
    let keys: Table<'_> =
        table.iter().filter(|entry| !is_own(entry)).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut rerank = reader.table("rerank", &keys, RerankTable::default());
    if let Some(own) = table.iter().find(is_own).and_then(|(_, value)| value.get_ref().as_table()) {
        rerank.anchors = anchors(reader, "rerank.anchors", own);
    }
    rerank
}

/// Networks, each a table with a name of its own, in the order of the file.
fn anchors(reader: &mut Reader<'_>, within: &str, table: &Table<'_>) -> Vec<(String, Anchor)> {
    let mut anchors = vec![];
    for (at, name, table) in reader.tables(within, table) {
        let of = |wanted: &str| {
            let found = table.iter().find(|(key, _)| key.get_ref() == wanted);
            found.and_then(|(_, value)| value.get_ref().as_str())
        };
        let named = of("architecture").unwrap_or(name);
        let known = Architecture::ALL.map(Architecture::name);
        let Some(found) = Architecture::ALL.into_iter().find(|architecture| architecture.name() == named) else {
            let help = match nearest(named, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            reader.problem(at, format!("`{named}` is no network"), help);
            continue;
        };
        // A network for large images is the published one where nothing else is said.
        let is_large = of("stem").is_some_and(|stem| stem == Stem::ImageNet.name());
        let base = if is_large { Anchor::image_net(found) } else { Anchor::search(found) };
        anchors.push((name.to_owned(), reader.table(&format!("{within}.{name}"), table, base)));
    }
    anchors
}
