//! Checkpoints and weights on disk.
//!
//! A checkpoint is one safetensors file: `weights.*` and `velocities.*`, two networks of the same
//! form, and a header in the metadata that says which run it belongs to and how far that run is.
//! It replaces the one before it by a rename, so whenever the program is killed, a whole one is there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::model::ResNet;
use super::optimizer::Sgd;
use super::state::Progress;
use super::{CURVE_FILE, Job, METRICS_FILE, MOMENTUM, TrainConfig, WEIGHTS_FILE};
use crate::{Failure, files};

/// The file's name in the folder of a run.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// The format's number; a change that older programs cannot read raises it.
const VERSION: u64 = 1;
const HEADER_KEY: &str = "normact_checkpoint";
const LIMIT: u64 = 1 << 32;

/// A checkpoint that was read and found whole, not yet compared with a run.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Header,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    version: u64,
    layer: String,
    text: String,
    data: String,
    data_fingerprint: u64,
    device: String,
    config: TrainConfig,
    progress: Progress,
}

#[derive(Module, Debug)]
struct Networks {
    weights: ResNet,
    velocities: ResNet,
}

impl Checkpoint {
    /// Reads the checkpoint of the run in `folder`.
    ///
    /// # Errors
    /// Where there is none, or it is cut short, of another program, or of another version.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(CHECKPOINT_FILE);
        if !path.exists() {
            return Err(Failure::new(format!("there is no checkpoint at {}", path.display()))
                .help("point `--out` at the folder of an earlier run, or start a new run without `--resume`"));
        }
        let bytes = files::read(&path, LIMIT)?;
        let header = read_header(&bytes).map_err(|reason| {
            Failure::new(format!("{} {reason}", path.display()))
                .help("it cannot be continued; delete it, or give a new run another folder with `--out`")
        })?;
        Ok(Self { path, bytes, header })
    }

    /// What the run was started with.
    pub fn config(&self) -> &TrainConfig {
        &self.header.config
    }

    /// Where the run took place: `cpu` or `wgpu`.
    pub fn device(&self) -> &str {
        &self.header.device
    }

    /// Whether the run is over.
    pub fn is_complete(&self) -> bool {
        self.header.progress.history.len() == self.header.config.epochs
    }

    /// The run's state, for a job that is the same run.
    pub(super) fn restore(self, job: &Job<'_>) -> Result<(ResNet, Sgd, Progress), Failure> {
        self.header
            .compare(job)
            .map_err(|(difference, help)| Failure::new(format!("{} {difference}", self.path.display())).help(help))?;

        let weights = job.network()?;
        let velocities = Sgd::new(MOMENTUM, 0.0).velocities(&weights);
        let mut networks = Networks { weights, velocities };
        let mut store = SafetensorsStore::from_bytes(Some(self.bytes));
        let unfit = |reason: String| {
            Failure::new(format!("{} does not fit the network: {reason}", self.path.display()))
                .help("it is damaged, or was made by another version of this program; start a new run")
        };
        let applied = networks.load_from(&mut store).map_err(|error| unfit(error.to_string()))?;
        if let Some(name) = applied.unused.first() {
            return Err(unfit(format!("it holds {name}, which has no place there")));
        }

        let sgd = Sgd::new(MOMENTUM, job.config.weight_decay).with_velocities(&networks.velocities);
        Ok((networks.weights.train(), sgd, self.header.progress))
    }
}

/// Fails where a new run in `folder` would destroy an unfinished one.
pub(super) fn refuse_unfinished(folder: &Path) -> Result<(), Failure> {
    if !folder.join(CHECKPOINT_FILE).exists() {
        return Ok(());
    }
    let earlier = Checkpoint::read(folder)?;
    if earlier.is_complete() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} holds an unfinished run ({} of {} epochs)",
        folder.display(),
        earlier.header.progress.history.len(),
        earlier.header.config.epochs
    ))
    .help("continue it with `--resume`, choose another folder with `--out`, or delete this one"))
}

/// Removes the files of an earlier run, so that all files in `folder` are of one run.
pub(super) fn clear(folder: &Path) -> Result<(), Failure> {
    for name in [CHECKPOINT_FILE, WEIGHTS_FILE, METRICS_FILE, CURVE_FILE] {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::new(format!("cannot remove {} of an earlier run: {error}", path.display())));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Writes the checkpoint of `job` and gives its path.
pub(super) fn write(job: &Job<'_>, model: &ResNet, sgd: &Sgd, progress: &Progress) -> Result<PathBuf, Failure> {
    let header = Header {
        version: VERSION,
        layer: job.layer.name.clone(),
        text: job.text(),
        data: job.dataset.name.to_owned(),
        data_fingerprint: job.dataset.fingerprint(),
        device: job.device.name.to_owned(),
        config: job.config.clone(),
        progress: progress.clone(),
    };
    let header = serde_json::to_string(&header)
        .map_err(|error| Failure::new(format!("the checkpoint's header cannot be written as JSON: {error}")))?;
    // `valid` also brings running statistics up to date, which a visit of `model` would not.
    let networks = Networks { weights: model.valid(), velocities: sgd.velocities(model) };
    let path = job.out.join(CHECKPOINT_FILE);
    write_network(&networks, &[(HEADER_KEY, &header)], &path)?;
    Ok(path)
}

/// Writes the weights alone, with the layer's text beside them.
pub(super) fn write_weights(job: &Job<'_>, model: &ResNet, path: &Path) -> Result<(), Failure> {
    let text = job.text();
    let metadata = [
        ("normact_layer", job.layer.name.as_str()),
        ("normact_text", text.as_str()),
        ("normact_model", job.config.model.name()),
        ("normact_data", job.dataset.name),
    ];
    write_network(&model.valid(), &metadata, path)
}

fn write_network<M: Module>(network: &M, metadata: &[(&str, &str)], path: &Path) -> Result<(), Failure> {
    let empty = SafetensorsStore::from_bytes(None);
    let mut store = metadata.iter().fold(empty, |store, (key, value)| store.metadata(*key, *value));
    let bytes = network
        .save_into(&mut store)
        .and_then(|()| store.get_bytes())
        .map_err(|error| Failure::new(format!("the network cannot be put into {}: {error}", path.display())))?;
    files::write(path, &bytes)
}

/// The header of a whole checkpoint, or what is wrong with it.
fn read_header(bytes: &[u8]) -> Result<Header, String> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("is cut short or is not a safetensors file ({error})"))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| format!("has no header ({error})"))?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|map| map.get(HEADER_KEY))
        .ok_or("is a safetensors file, but not a checkpoint of `normact train`")?;

    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("has a damaged header ({error})"))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(VERSION) {
        let found = version.map_or("none".to_owned(), |version| version.to_string());
        return Err(format!("has the format version {found}; this program reads version {VERSION}"));
    }
    let header: Header = serde_json::from_value(value).map_err(|error| format!("has a damaged header ({error})"))?;

    if let Some((name, view)) = tensors.iter().find(|(_, view)| view.dtype() != Dtype::F32) {
        return Err(format!("holds {name} as {:?}, where a checkpoint has F32", view.dtype()));
    }
    Ok(header)
}

impl Header {
    /// Says how the checkpoint's run differs from `job`, and what to do about it.
    fn compare(&self, job: &Job<'_>) -> Result<(), (String, &'static str)> {
        if self.text != job.text() {
            return Err(if self.layer == job.layer.name {
                (
                    format!(
                        "was made by a layer that is also named {}, but has another formula or settings",
                        self.layer
                    ),
                    "resume with the formula and `--set` options the run was started with, or start a new run",
                )
            } else {
                (
                    format!("was made by the layer {}, not {}", self.layer, job.layer.name),
                    "name that layer, or start a new run in another folder with `--out`",
                )
            });
        }
        if self.data != job.dataset.name || self.data_fingerprint != job.dataset.fingerprint() {
            return Err((
                format!("was made with other images ({}, now {})", self.data, job.dataset.name),
                "give the same `--data` as the run was started with, or start a new run",
            ));
        }
        let differences = self.config.differences(&job.config);
        if !differences.is_empty() {
            return Err((
                format!("was made with other options: {}", differences.join(", ")),
                "leave these options away to continue with the run's own, or start a new run",
            ));
        }
        let Progress { history, step, .. } = &self.progress;
        let steps = job.steps_per_epoch();
        if history.len() > self.config.epochs || *step > steps || (history.len() == self.config.epochs && *step > 0) {
            return Err((
                format!("is damaged: it claims {} epochs and {step} of {steps} steps", history.len()),
                "start a new run",
            ));
        }
        Ok(())
    }
}
