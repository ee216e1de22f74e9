//! A search as a file: TOML, a table for each theme, every key with a default.
//!
//! Everything that is wrong is reported in one run, each with its line. The tables are ordinary serde
//! structs: what a table may hold is what its defaults have when they are written out, and each key is read
//! on its own, so that one mistake hides no other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use normact_search::{Evolution, Options, Run, Space, Strategy, Winner};
use normact_syntax::nearest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::anchors::{Anchor, Architecture};
use crate::data::Dataset;
use crate::fitness::{MeasureOn, Rejection, TaskConfig};
use crate::{Failure, built_in, files};

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
    pub evolution: EvolutionTable,
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
    /// Built-in layers to compare with.
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
}

impl Default for SpaceTable {
    fn default() -> Self {
        Self { nodes: 10, batch_free: false, mere_statistics: true }
    }
}

/// The table `[evolution]`; see [`Evolution`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvolutionTable {
    /// The most recent layers that can have children.
    pub population: usize,
    /// The share of them in a tournament.
    pub tournament: f64,
    /// How its winner is found.
    pub winner: WinnerName,
    /// Mutations of a child.
    pub mutations: usize,
    /// The chance that a layer is drawn at random instead.
    pub fresh: f64,
    /// Random layers before the first child.
    pub initial: usize,
}

/// How a winner is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WinnerName {
    /// The highest mean over the networks.
    Average,
    /// One that no other dominates.
    Pareto,
}

impl Default for EvolutionTable {
    fn default() -> Self {
        let Evolution { population, tournament, winner, mutations, fresh, initial } = Evolution::default();
        let winner = match winner {
            Winner::Average => WinnerName::Average,
            Winner::Pareto => WinnerName::Pareto,
        };
        Self { population, tournament, winner, mutations, fresh, initial }
    }
}

/// The table `[rerank]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankTable {
    /// How many of the best layers are trained again, on all training images, and measured on held-out ones;
    /// 0 for none.
    pub top: usize,
    /// Steps of that training.
    pub steps: usize,
    /// It is done once for each seed.
    pub seeds: Vec<u64>,
    /// Multiplies the widths of the networks.
    pub width: f64,
    /// Multiplies their depths.
    pub depth: f64,
}

impl Default for RerankTable {
    fn default() -> Self {
        Self { top: 10, steps: 5000, seeds: vec![1, 2, 3], width: 2.0, depth: 1.0 }
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
        let mut reader = Reader { text, problems: vec![] };
        let config = reader.config();
        if reader.problems.is_empty() {
            return Ok(config);
        }
        reader.problems.sort_by_key(|problem| problem.at);
        let mut message = String::new();
        for Problem { at, message: problem, help } in &reader.problems {
            let (line, column) = reader.place(*at);
            let _ = writeln!(message, "error: {name}:{line}:{column}: {problem}");
            let _ = help.as_ref().map(|help| writeln!(message, "  help: {help}"));
        }
        Err(Failure::rendered(message))
    }

    /// What tells this search from others: everything that verdicts or the order of candidates depend on. Of
    /// the data it holds what they are, not where: that may differ from machine to machine.
    pub fn fingerprint(&self, dataset: &Dataset) -> String {
        let search = SearchTable {
            data: format!("{} {:016x}", dataset.name, dataset.fingerprint()),
            out: PathBuf::new(),
            database: String::new(),
            workers: 0,
            lease_seconds: 0.0,
            max_deaths: 0,
            max_failures: 0,
            ..self.search.clone()
        };
        let decisive = Self { search, rerank: RerankTable::default(), ..self.clone() };
        serde_json::to_string(&decisive).unwrap_or_else(|error| unreachable!("plain data: {error}"))
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
        Space::evonorm(self.space.nodes, self.space.batch_free)
    }

    /// How evolution goes.
    pub fn evolution(&self) -> Evolution {
        let EvolutionTable { population, tournament, winner, mutations, fresh, initial } = self.evolution;
        let winner = match winner {
            WinnerName::Average => Winner::Average,
            WinnerName::Pareto => Winner::Pareto,
        };
        Evolution { population, tournament, winner, mutations, fresh, initial }
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

struct Problem {
    at: usize,
    message: String,
    help: Option<String>,
}

struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

type Table<'a> = DeTable<'a>;

impl Reader<'_> {
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn problem(&mut self, at: usize, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.problems.push(Problem { at, message: message.into(), help: help.into() });
    }

    fn config(&mut self) -> Config {
        let mut config = Config {
            search: SearchTable::default(),
            space: SpaceTable::default(),
            evolution: EvolutionTable::default(),
            rejection: Rejection::default(),
            task: TaskConfig::default(),
            anchors: vec![],
            rerank: RerankTable::default(),
        };
        let root = match DeTable::parse(self.text) {
            Ok(root) => root.into_inner(),
            Err(error) => {
                self.problem(error.span().map_or(0, |span| span.start), error.message().to_owned(), None);
                return config;
            }
        };
        // Where the values of a table stand, for what is contradictory.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (key, value) in &root {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let known = ["search", "space", "evolution", "rejection", "task", "anchors", "rerank"];
            if !known.contains(&name) {
                self.unknown("", name, at, known.into_iter());
                continue;
            }
            let DeValue::Table(table) = value.get_ref() else {
                self.problem(at, format!("`{name}` is a table"), format!("write `[{name}]` above its keys"));
                continue;
            };
            for (key, value) in table {
                places.insert(format!("{name}.{}", key.get_ref()), value.span().start);
            }
            match name {
                "search" => config.search = self.table(name, table, config.search.clone()),
                "space" => config.space = self.table(name, table, config.space.clone()),
                "evolution" => config.evolution = self.table(name, table, config.evolution.clone()),
                "rejection" => config.rejection = self.table(name, table, config.rejection),
                "task" => config.task = self.table(name, table, config.task.clone()),
                "rerank" => config.rerank = self.table(name, table, config.rerank.clone()),
                _ => config.anchors = self.anchors(table),
            }
        }
        if config.anchors.is_empty() && self.problems.is_empty() {
            config.anchors = Architecture::ALL
                .into_iter()
                .map(|architecture| (architecture.name().to_owned(), Anchor::search(architecture)))
                .collect();
        }
        self.contradictions(&config, &places);
        config
    }

    fn unknown<'k>(&mut self, table: &str, key: &str, at: usize, known: impl Iterator<Item = &'k str> + Clone) {
        let place = if table.is_empty() { "there is no table".to_owned() } else { format!("`[{table}]` has no key") };
        let help = match nearest(key, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it may have {}", known.collect::<Vec<_>>().join(", ")),
        };
        self.problem(at, format!("{place} `{key}`"), help);
    }

    /// A table with defaults; each key is read on its own.
    fn table<T: Serialize + DeserializeOwned>(&mut self, name: &str, table: &Table<'_>, defaults: T) -> T {
        let mut values = object(&defaults);
        for (key, value) in table {
            let (key, at) = (key.get_ref().as_ref(), key.span().start);
            let Some(default) = values.get(key).cloned() else {
                self.unknown(name, key, at, values.keys().map(String::as_str));
                continue;
            };
            let value = match self.merged(&format!("{name}.{key}"), value, &default) {
                Some(value) => value,
                None => continue,
            };
            let mut tried = values.clone();
            tried.insert(key.to_owned(), value);
            match serde_json::from_value::<T>(Value::Object(tried.clone())) {
                Ok(_) => values = tried,
                Err(error) => self.problem(at, format!("`{key}` cannot be that: {error}"), None),
            }
        }
        serde_json::from_value(Value::Object(values)).unwrap_or(defaults)
    }

    /// A value of TOML as JSON; a table takes what it does not say from `default`, and `false` in the place of
    /// a table leaves that out.
    fn merged(&mut self, name: &str, value: &Spanned<DeValue<'_>>, default: &Value) -> Option<Value> {
        match (value.get_ref(), default) {
            (DeValue::Boolean(false), Value::Object(_)) => Some(Value::Null),
            (DeValue::Table(table), Value::Object(known)) => {
                let mut values = known.clone();
                for (key, value) in table {
                    let (key, at) = (key.get_ref().as_ref(), key.span().start);
                    match known.get(key) {
                        Some(default) => {
                            let value = self.merged(&format!("{name}.{key}"), value, default)?;
                            values.insert(key.to_owned(), value);
                        }
                        None => self.unknown(name, key, at, known.keys().map(String::as_str)),
                    }
                }
                Some(Value::Object(values))
            }
            (other, _) => match json(other) {
                Ok(value) => Some(value),
                Err(problem) => {
                    self.problem(value.span().start, format!("`{name}` is {problem}"), None);
                    None
                }
            },
        }
    }

    fn anchors(&mut self, table: &Table<'_>) -> Vec<(String, Anchor)> {
        let mut anchors = vec![];
        for (key, value) in table {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let DeValue::Table(table) = value.get_ref() else {
                self.problem(at, format!("`{name}` is a table"), format!("write `[anchors.{name}]` above its keys"));
                continue;
            };
            let architecture = table.iter().find(|(key, _)| key.get_ref().as_ref() == "architecture");
            let named = match architecture.map(|(_, value)| value.get_ref()) {
                Some(DeValue::String(architecture)) => architecture.as_ref(),
                _ => name,
            };
            let known = Architecture::ALL.map(Architecture::name);
            let Some(found) = Architecture::ALL.into_iter().find(|architecture| architecture.name() == named) else {
                let help = match nearest(named, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                self.problem(at, format!("`{named}` is no network"), help);
                continue;
            };
            let anchor = self.table(&format!("anchors.{name}"), table, Anchor::search(found));
            if let Err(failure) = anchor.check() {
                self.problem(at, failure.message, failure.help);
            }
            anchors.push((at, (name.to_owned(), anchor)));
        }
        anchors.sort_by_key(|(at, _)| *at);
        anchors.into_iter().map(|(_, anchor)| anchor).collect()
    }

    /// What cannot be, although each key could.
    fn contradictions(&mut self, config: &Config, places: &BTreeMap<String, usize>) {
        // The test of quality and the training are two tables: what the file says is at fault, not a default.
        let at = |key: &str| {
            let other = if key == "rejection.quality" { "task.steps" } else { key };
            places.get(key).or_else(|| places.get(other)).copied().unwrap_or(0)
        };
        let Config { search, space, evolution, rejection, task, rerank, .. } = config;
        let known = [Strategy::Evolution, Strategy::RandomTested, Strategy::Random].map(Strategy::name);
        for strategy in search.strategies.iter().filter(|strategy| !known.contains(&strategy.as_str())) {
            let message = format!("there is no strategy `{strategy}`");
            self.problem(at("search.strategies"), message, format!("there are {}", known.join(", ")));
        }
        for layer in search.baselines.iter().filter(|layer| built_in::source(layer).is_none()) {
            let help = nearest(layer, built_in::names()).map(|near| format!("did you mean `{near}`?"));
            self.problem(at("search.baselines"), format!("there is no built-in layer `{layer}`"), help);
        }
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let quality = rejection.quality;
        let too_long = format!(
            "the test has {} steps, more than the training with {}",
            quality.map_or(0, |quality| quality.steps),
            task.steps
        );
        let checks = [
            (search.seeds.is_empty(), "search.seeds", "there is no seed"),
            (
                search.strategies.is_empty() && search.baselines.is_empty(),
                "search.strategies",
                "there is nothing to run",
            ),
            (search.budget == 0, "search.budget", "the budget is 0"),
            (search.budget > i64::MAX as u64 / 100, "search.budget", "the budget is too large"),
            (search.proposals == 0, "search.proposals", "nothing could be proposed"),
            (search.workers == 0 || search.workers > 1024, "search.workers", "workers are 1 to 1024"),
            (
                !(search.lease_seconds >= 1.0 && search.lease_seconds < 1e6),
                "search.lease_seconds",
                "a lease takes 1 second to 1e6",
            ),
            (space.nodes == 0 || space.nodes > normact_search::MAX_GENES, "space.nodes", "nodes are 1 to 1000"),
            (evolution.population == 0, "evolution.population", "nobody could have children"),
            (
                !(evolution.tournament > 0.0 && evolution.tournament <= 1.0),
                "evolution.tournament",
                "a share is above 0, up to 1",
            ),
            (!share(evolution.fresh), "evolution.fresh", "a chance is from 0 to 1"),
            (
                evolution.mutations == 0 && evolution.fresh < 1.0,
                "evolution.mutations",
                "without mutations a child is its parent",
            ),
            (
                quality.is_some_and(|quality| !share(quality.accuracy)),
                "rejection.quality",
                "an accuracy is from 0 to 1",
            ),
            (quality.is_some_and(|quality| quality.steps > task.steps), "rejection.quality", &too_long),
            (
                !search.data.is_empty() && search.data != "digits" && !Path::new(&search.data).is_dir(),
                "search.data",
                "the folder of the data is not there",
            ),
            (task.measure_on == MeasureOn::HeldOut, "task.measure_on", "a search must not see the held-out images"),
            (rerank.top > 0 && rerank.seeds.is_empty(), "rerank.seeds", "there is no seed to rank again with"),
            (rerank.top > 0 && rerank.steps == 0, "rerank.steps", "ranking again needs steps"),
        ];
        for (is_wrong, key, message) in checks {
            if is_wrong {
                let name = key.rsplit('.').next().unwrap_or(key);
                self.problem(at(key), format!("`{name}`: {message}"), None);
            }
        }
        if let Err(failure) = rejection.check() {
            self.problem(at("rejection.stability"), failure.message, failure.help);
        }
        for (name, anchor) in &config.anchors {
            let larger = Anchor { width: anchor.width * rerank.width, depth: anchor.depth * rerank.depth, ..*anchor };
            if let Err(failure) = larger.check()
                && rerank.top > 0
                && anchor.check().is_ok()
            {
                self.problem(at("rerank.width"), format!("ranking again, {name}: {}", failure.message), failure.help);
            }
        }
        for (key, names) in [("search.baselines", &search.baselines), ("search.strategies", &search.strategies)] {
            let mut seen = std::collections::BTreeSet::new();
            for name in names.iter().filter(|name| !seen.insert(name.as_str())) {
                self.problem(at(key), format!("`{name}` is there twice"), None);
            }
        }
        let mut names = search.seeds.clone();
        names.sort_unstable();
        names.dedup();
        if names.len() != search.seeds.len() {
            self.problem(at("search.seeds"), "`seeds`: a seed is there twice", None);
        }
    }
}

fn object(defaults: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(defaults) {
        Ok(Value::Object(object)) => object,
        other => unreachable!("a table is an object: {other:?}"),
    }
}

/// A value as JSON, or what it is that cannot be.
fn json(value: &DeValue<'_>) -> Result<Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(integer) => {
            let (digits, radix) = (integer.as_str().replace('_', ""), integer.radix());
            match i64::from_str_radix(&digits, radix) {
                Ok(number) => Value::from(number),
                // Seeds may be larger than a signed number.
                Err(_) => u64::from_str_radix(&digits, radix).map_err(|_| "an integer of more than 64 bits")?.into(),
            }
        }
        DeValue::Float(float) => {
            let number = float.as_str().replace('_', "").parse().map_err(|_| "no number")?;
            serde_json::Number::from_f64(number).ok_or("not a finite number")?.into()
        }
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| json(value.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Ok::<_, &str>((key.to_string(), json(value.get_ref())?))
            };
            Value::Object(table.iter().map(member).collect::<Result<_, _>>()?)
        }
        DeValue::Datetime(_) => return Err("a date, which no key takes"),
    })
}
