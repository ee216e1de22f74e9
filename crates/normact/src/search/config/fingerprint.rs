//! What tells one search from another: the options that verdicts or the order of candidates depend on, the data,
//! and the device.
//!
//! A later program has keys that an earlier one did not know, and may have other defaults, yet a search that was
//! begun with the earlier one is to go on. So a fingerprint holds what differs from `base.json`, which never
//! changes: where a default changes, it stays; where a key is added, it gains that key with the value that means
//! what programs did before. A change to the search itself, after which the same options give other candidates
//! or verdicts, raises [`VERSION`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Config;
use crate::Failure;
use crate::built_in;
use crate::data::Dataset;

/// The version of the search: of how layers are drawn, changed, judged and trained, options apart.
const VERSION: u32 = 1;

const BASE: &str = include_str!("base.json");

/// More differences than these are only counted.
const TOLD: usize = 4;

/// What tells a search from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    version: u32,
    /// Options that differ from the base: `task.steps` and the like.
    options: BTreeMap<String, Value>,
    /// The data themselves, and not where they lie: that may differ from machine to machine.
    data: String,
    /// The kind of device, which decides how numbers are rounded.
    device: String,
}

impl Fingerprint {
    /// That of a search with such images on such a device.
    pub(crate) fn new(config: &Config, dataset: &Dataset, device: &str) -> Result<Self, Failure> {
        Ok(Self {
            version: VERSION,
            options: options(config)?,
            data: format!("{} {:016x}", dataset.name, dataset.fingerprint()),
            device: device.to_owned(),
        })
    }

    /// That of a search with the data and the device of another: for looking at what one has come to, where
    /// neither is at hand.
    pub(crate) fn with_the_means_of(config: &Config, known: &Self) -> Result<Self, Failure> {
        Ok(Self { version: VERSION, options: options(config)?, ..known.clone() })
    }

    /// The form in which a database holds it.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| unreachable!("plain data: {error}"))
    }

    /// Reads what a database holds.
    ///
    /// # Errors
    /// Another program wrote it.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let known: Option<Self> = serde_json::from_str(text).ok();
        known.filter(|known| known.version == VERSION).ok_or_else(|| {
            Failure::new("the database holds a search that was begun by another version of the program")
                .help("use that version, or another database")
        })
    }

    /// Refuses to go on with the search of a database that has another fingerprint.
    pub(crate) fn check(&self, known: &Self) -> Result<(), Failure> {
        let differences = self.differences(known);
        if differences.is_empty() {
            return Ok(());
        }
        let mut told = differences[..differences.len().min(TOLD)].join(", ");
        if differences.len() > TOLD {
            told += &format!(", and {} more", differences.len() - TOLD);
        }
        Err(Failure::new(format!("the database holds a search with another configuration: {told}"))
            .help("give each search a database of its own, or use the file that this one was begun with"))
    }

    /// What differs, in words.
    fn differences(&self, known: &Self) -> Vec<String> {
        let base = base();
        let shown = |options: &BTreeMap<String, Value>, key: &str| {
            let value = options.get(key).or_else(|| base.get(key));
            value.map_or("the default".to_owned(), Value::to_string)
        };
        let keys: BTreeSet<&String> = self.options.keys().chain(known.options.keys()).collect();
        let mut differences: Vec<String> = keys
            .into_iter()
            .filter(|key| self.options.get(*key) != known.options.get(*key))
            .map(|key| format!("{key} is {} there and {} here", shown(&known.options, key), shown(&self.options, key)))
            .collect();
        for (name, here, there) in [("data", &self.data, &known.data), ("device", &self.device, &known.device)] {
            if here != there {
                differences.push(format!("the {name} is {there} there and {here} here"));
            }
        }
        differences
    }
}

/// The options of the base by their paths.
fn base() -> BTreeMap<String, Value> {
    let base: Value = serde_json::from_str(BASE).unwrap_or_else(|error| unreachable!("base.json is JSON: {error}"));
    let mut options = BTreeMap::new();
    flatten("", &base, &mut options);
    options
}

/// What decides about a search and differs from the base.
fn options(config: &Config) -> Result<BTreeMap<String, Value>, Failure> {
    let tables = serde_json::to_value(config).unwrap_or_else(|error| unreachable!("plain data: {error}"));
    let mut options = BTreeMap::new();
    for table in ["search", "space", "evolution", "rejection", "task"] {
        flatten(table, &tables[table], &mut options);
    }
    // Where a search is kept and who works on it is not what it is.
    for key in ["data", "out", "database", "workers", "lease_seconds", "max_deaths", "max_failures"] {
        options.remove(&format!("search.{key}"));
    }
    options.insert("search.baselines".to_owned(), baselines(config)?);
    let base = base();
    options.retain(|key, value| base.get(key) != Some(value));
    // Other tests than the base has, or none.
    for table in ["rejection.quality", "rejection.stability"] {
        if tables.pointer(&format!("/{}", table.replace('.', "/"))).is_some_and(Value::is_null) {
            options.insert(table.to_owned(), Value::Bool(false));
        }
    }
    options.insert("anchors".to_owned(), anchors(config, &base));
    Ok(options)
}

/// The values within a value by their paths; an array is a value.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        value => drop(into.insert(path.to_owned(), value.clone())),
    }
}

/// Layers from files are what is in them: the key tells equal ones, which have one verdict.
fn baselines(config: &Config) -> Result<Value, Failure> {
    let named = config.baselines()?.into_iter().map(|(name, layer)| {
        let is_built_in = built_in::source(&name).is_some();
        let key = normact_egraph::key(&layer.dag).0;
        Value::String(if is_built_in { name } else { format!("{name} {key}") })
    });
    Ok(named.collect())
}

/// The networks in their order, each with its name and what differs from the base.
fn anchors(config: &Config, base: &BTreeMap<String, Value>) -> Value {
    let own = |(name, anchor): &(String, crate::anchors::Anchor)| {
        let options = serde_json::to_value(anchor).unwrap_or_else(|error| unreachable!("plain data: {error}"));
        let mut members = Map::new();
        members.insert("name".to_owned(), Value::String(name.clone()));
        for (key, value) in options.as_object().into_iter().flatten() {
            if base.get(&format!("anchor.{key}")) != Some(value) {
                members.insert(key.clone(), value.clone());
            }
        }
        Value::Object(members)
    };
    config.anchors.iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;

    fn fingerprint(text: &str) -> Fingerprint {
        let config = Config::parse(text, "test.toml").unwrap();
        Fingerprint::new(&config, &digits::load(), "cpu").unwrap()
    }

    fn refused(known: &str, here: &str) -> String {
        fingerprint(here).check(&fingerprint(known)).unwrap_err().message
    }

    /// Databases hold this text. A key that is added to the program must not change it, so `base.json` gains that
    /// key too; a default that changes has to appear here.
    #[test]
    fn an_empty_file_differs_from_the_base_in_nothing_but_its_networks() {
        let text = fingerprint("").text();
        let options = r#"{"anchors":[{"architecture":"resnet-50","name":"resnet-50","width":0.25},"#;
        let others = r#"{"architecture":"mobilenet-v2","name":"mobilenet-v2","width":0.5},"#;
        let last = r#"{"architecture":"efficientnet-b0","name":"efficientnet-b0","width":0.5}]}"#;
        let data = r#""data":"digits 06cfb55d86628a6a","device":"cpu"}"#;
        assert_eq!(text, format!(r#"{{"version":1,"options":{options}{others}{last},{data}"#));
        assert_eq!(Fingerprint::read(&text), Ok(fingerprint("")));
    }

    #[test]
    fn every_option_that_decides_is_told_apart() {
        let file = "[search]\nbudget = 7\nout = \"a\"\nworkers = 2\n[rerank]\ntop = 1\n";
        fingerprint("[search]\nbudget = 7\nout = \"b\"\n").check(&fingerprint(file)).unwrap();
        let check = |known, here, expected| {
            let expected = format!("the database holds a search with another configuration: {expected}");
            assert_eq!(refused(known, here), expected);
        };
        check(file, "", "search.budget is 7 there and 1000 here");
        let (one, two) = ("[rejection]\nquality = false", "[rejection]\nquality = { steps = 3 }");
        check(
            one,
            two,
            "rejection.quality is false there and the default here, rejection.quality.steps is 100 there and 3 here",
        );
        check("", "[task]\nlearning_rate = 0.2", "task.learning_rate is 0.1 there and 0.2 here");
        check(
            "[space]\nbatch_free = true",
            "",
            "space.batch_free is true there and false here, task.schedule is \"cosine\" there and \"constant\" here, task.steps is 5000 there and 2000 here",
        );
        let networks = refused("[anchors.resnet-50]", "[anchors.resnet-50]\nresolution = 16");
        assert!(networks.contains("anchors is [{") && networks.contains("\"resolution\":16"), "{networks}");
        let many =
            refused("", "[evolution]\nfresh = 0.1\ntournament = 0.1\npopulation = 1\ninitial = 2\nmutations = 5");
        assert!(many.ends_with(", and 1 more"), "{many}");
    }

    #[test]
    fn another_device_is_refused_and_results_can_be_looked_at_without_one() {
        let config = Config::parse("", "test.toml").unwrap();
        let on = |device: &str| Fingerprint::new(&config, &digits::load(), device).unwrap();
        let failure = on("wgpu").check(&on("cpu")).unwrap_err();
        assert!(failure.message.ends_with("the device is cpu there and wgpu here"), "{failure}");
        let looked = Fingerprint::with_the_means_of(&config, &on("cpu")).unwrap();
        looked.check(&on("cpu")).unwrap();
    }

    #[test]
    fn what_another_program_wrote_is_refused() {
        for known in ["", "{}", r#"{"version":9,"options":{},"data":"","device":""}"#] {
            let failure = Fingerprint::read(known).unwrap_err();
            assert!(failure.message.contains("begun by another version of the program"), "{failure}");
        }
    }
}
