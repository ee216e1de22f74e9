//! Several layers under the same conditions: the same initial weights, images, order and schedule.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use normact_ir::Layer;

use super::checkpoint::refuse_unfinished;
use super::{
    CHECKPOINT_FILE, CURVE_FILE, Checkpoint, Comparison, Ending, Event, Job, Observer, Row, TrainConfig, draw, train,
};
use crate::data::Dataset;
use crate::device::OpenDevice;
use crate::{Failure, files};

/// What a comparison is run under.
#[derive(Debug, Clone)]
pub struct Conditions<'a> {
    /// The images.
    pub dataset: &'a Dataset,
    /// What the user chose.
    pub config: TrainConfig,
    /// Where tensors live.
    pub device: &'a OpenDevice,
    /// The folder of the comparison; each layer has a folder in it.
    pub out: &'a Path,
    /// Continue what an interrupted comparison left in `out`.
    pub resume: bool,
}

/// Trains one layer after the other and draws all of them in one picture. Gives nothing where `stop`
/// was set before the end.
///
/// # Errors
/// As [`train`] has them.
pub fn compare(
    layers: &[Layer],
    conditions: &Conditions<'_>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Option<Comparison>, Failure> {
    let folders = folders(layers, conditions.out);
    if !conditions.resume {
        // All of them before the first is trained.
        folders.iter().try_for_each(|out| refuse_unfinished(out))?;
    }
    let mut results = Vec::new();
    let mut histories = Vec::new();
    for (layer, out) in layers.iter().zip(folders) {
        let saved =
            if conditions.resume && out.join(CHECKPOINT_FILE).exists() { Some(Checkpoint::read(&out)?) } else { None };
        let job = Job {
            layer,
            dataset: conditions.dataset,
            config: conditions.config.clone(),
            device: conditions.device,
            out: &out,
        };
        let run = train(&job, saved, observer, stop)?;
        if run.ending == Ending::Interrupted {
            return Ok(None);
        }
        results.push(Row {
            layer: layer.name.clone(),
            parameters: run.parameters,
            diverged: matches!(run.ending, Ending::Diverged(_)),
            last: run.history.last().cloned(),
            seconds: run.history.iter().map(|epoch| epoch.seconds).sum(),
        });
        histories.push((layer.name.as_str(), run.history));
    }

    let runs: Vec<_> = histories.iter().map(|(name, history)| (*name, history.as_slice())).collect();
    files::write(&conditions.out.join(CURVE_FILE), draw(&runs)?.as_bytes())?;
    let comparison = Comparison { seed: conditions.config.seed, results };
    observer.event(&Event::Compare(comparison.clone()))?;
    Ok(Some(comparison))
}

/// A folder for each layer, by its name; the second layer of a name has `-2` after it.
pub fn folders(layers: &[Layer], out: &Path) -> Vec<PathBuf> {
    layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let earlier = layers[..index].iter().filter(|other| other.name == layer.name).count();
            match earlier {
                0 => out.join(&layer.name),
                _ => out.join(format!("{}-{}", layer.name, earlier + 1)),
            }
        })
        .collect()
}

/// The comparison as people read it, best first.
pub fn table(comparison: &Comparison) -> String {
    let mut rows: Vec<&Row> = comparison.results.iter().collect();
    let accuracy = |row: &Row| match (&row.last, row.diverged) {
        (Some(last), false) => last.val_accuracy,
        _ => -1.0,
    };
    rows.sort_by(|a, b| accuracy(b).total_cmp(&accuracy(a)));

    let head = ["layer", "held out", "val loss", "train loss", "parameters", "images/s", "seconds"].map(str::to_owned);
    let body = rows.iter().map(|row| match (&row.last, row.diverged) {
        (Some(last), false) => [
            row.layer.clone(),
            format!("{:.2} %", last.val_accuracy * 100.0),
            format!("{:.4}", last.val_loss),
            format!("{:.4}", last.train_loss),
            row.parameters.to_string(),
            format!("{:.0}", last.images_per_second),
            format!("{:.1}", row.seconds),
        ],
        _ => {
            let none = || "-".to_owned();
            [row.layer.clone(), "diverged".to_owned(), none(), none(), row.parameters.to_string(), none(), none()]
        }
    });
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(body).collect();
    let widths: [usize; 7] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));

    let mut text = String::new();
    for line in lines {
        let [name, numbers @ ..] = line;
        text.push_str(&format!("{name:<width$}", width = widths[0]));
        for (number, width) in numbers.iter().zip(&widths[1..]) {
            text.push_str(&format!("  {number:>width$}"));
        }
        text.push('\n');
    }
    text
}
