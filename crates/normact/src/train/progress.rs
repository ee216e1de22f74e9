//! Progress of a run on standard error: a bar while an epoch is under way, a line when it is done.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};

use super::{EpochEnd, Event, StepReport};

/// The bar of the epoch under way. It shows only where standard error is a terminal; the lines are
/// written anywhere.
#[derive(Debug)]
pub struct Bars {
    bar: Option<ProgressBar>,
    layer: String,
    epochs: usize,
}

impl Bars {
    /// Nothing to show yet.
    pub fn new() -> Self {
        Self { bar: None, layer: String::new(), epochs: 0 }
    }

    /// Shows an event that concerns people watching.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Start(start) => {
                self.layer.clone_from(&start.layer);
                self.epochs = start.config.epochs;
                self.note(&format!(
                    "training {} in {} ({} parameters) on {}: {} images of {}, {} held out",
                    start.layer,
                    start.config.model.name(),
                    start.parameters,
                    start.device,
                    start.train_images,
                    start.data,
                    start.held_out_images
                ));
                if start.resumed_epochs > 0 || start.resumed_steps > 0 {
                    self.note(&format!(
                        "continuing after {} epochs and {} steps",
                        start.resumed_epochs, start.resumed_steps
                    ));
                }
            }
            Event::Epoch(epoch) => {
                self.clear();
                self.note(&epoch_line(epoch, self.epochs));
            }
            Event::Interrupted(_) | Event::Diverged(_) | Event::End(_) => self.clear(),
            Event::Checkpoint(_) | Event::Compare(_) => {}
        }
    }

    /// Moves the bar.
    pub fn steps(&mut self, report: &StepReport) {
        let layer = &self.layer;
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:32}] {pos}/{len} {msg} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            ProgressBar::new(report.steps as u64)
                .with_style(style)
                .with_prefix(format!("{layer} {}/{}", report.epoch, report.epochs))
        });
        bar.set_position(report.step as u64);
        bar.set_message(format!(
            "loss {:.4}  accuracy {:.1} %  {:.0} images/s",
            report.loss,
            report.accuracy * 100.0,
            report.images_per_second
        ));
    }

    /// Writes a line without disturbing the bar.
    pub fn note(&self, line: &str) {
        // Progress is a courtesy: where nobody can read it, the run goes on.
        let write = || drop(writeln!(std::io::stderr(), "{line}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

fn epoch_line(epoch: &EpochEnd, epochs: usize) -> String {
    format!(
        "epoch {:>width$}/{epochs}  loss {:.4}  accuracy {:5.1} %  held out: loss {:.4}  accuracy {:5.1} %  {:.0} images/s  {:.1} s",
        epoch.epoch,
        epoch.train_loss,
        epoch.train_accuracy * 100.0,
        epoch.val_loss,
        epoch.val_accuracy * 100.0,
        epoch.images_per_second,
        epoch.seconds,
        width = epochs.to_string().len(),
    )
}
