//! A report as a table and as bars.

use std::fmt::Write as _;

use super::{Figures, Report};

/// A report as a table, one line for each way to run a layer.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} {:?}, f32; a copy takes {:.3} ms", report.device, report.shape, report.copy_ms);
    let width = rows(report).map(|(name, _, _)| name.len()).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "{:width$}  {:>11}  {:>16}  {:>9}  {:>8}  {:>11}  {:>7}  {:>6}  {:>6}",
        "", "forward", "forward+backward", "of fused", "of ideal", "first step", "kernels", "kept", "peak"
    );
    for layer in &report.layers {
        let ideal = report.copy_ms / 2.0 * report.ideal_passes.get(&layer.layer).copied().unwrap_or(5) as f64;
        let input = 4 * report.shape.iter().product::<usize>();
        for (name, figures) in ways(layer) {
            let _ = writeln!(
                text,
                "{name:width$}  {:>8.3} ms  {:>13.3} ms  {:>8.2}x  {:>7.2}x  {:>8.1} ms  {:>7}  {:>6}  {:>6}",
                figures.forward_ms,
                figures.forward_backward_ms,
                figures.forward_backward_ms / layer.fused.forward_backward_ms,
                figures.forward_backward_ms / ideal,
                figures.first_ms,
                kernels(figures),
                share(figures.saved_bytes, input),
                share(figures.peak_bytes, input),
            );
        }
    }
    text
}

/// The times of forward and backward as bars, the longest `width` characters long.
pub fn bars(report: &Report, width: usize) -> String {
    let longest = rows(report).map(|(_, figures, _)| figures.forward_backward_ms).fold(0.0, f64::max);
    let name_width = rows(report).map(|(name, _, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, figures, ideal) in rows(report) {
        let cells = |time: f64| ((time / longest * width as f64).round() as usize).clamp(1, width);
        let (length, mark) = (cells(figures.forward_backward_ms), cells(ideal));
        let bar: String = (1..=width.min(length.max(mark)))
            .map(|cell| match (cell <= length, cell == mark) {
                (_, true) => '|',
                (true, false) => '#',
                (false, false) => ' ',
            })
            .collect();
        let _ = writeln!(text, "{name:name_width$}  {bar} {:.3} ms", figures.forward_backward_ms);
    }
    let _ = writeln!(text, "| is the ideal number of passes at the speed of a copy");
    text
}

fn rows(report: &Report) -> impl Iterator<Item = (String, &Figures, f64)> {
    report.layers.iter().flat_map(move |layer| {
        let ideal = report.copy_ms / 2.0 * report.ideal_passes.get(&layer.layer).copied().unwrap_or(5) as f64;
        ways(layer).into_iter().map(move |(name, figures)| (name, figures, ideal))
    })
}

fn ways(layer: &super::LayerFigures) -> Vec<(String, &Figures)> {
    let name = |way: &str| format!("{} {way}", layer.layer);
    let default = if layer.fused.path == "fused" { name("fused") } else { name("default") };
    let mut ways = vec![(default, &layer.fused), (name("op by op"), &layer.op_by_op)];
    ways.extend(layer.burn.as_ref().map(|burn| (name("Burn's own"), burn)));
    ways
}

/// Kernels forward and backward.
fn kernels(figures: &Figures) -> String {
    match (figures.kernels_forward, figures.kernels_backward) {
        (Some(forward), Some(backward)) => format!("{forward} + {backward}"),
        _ => "-".to_owned(),
    }
}

/// Bytes as a multiple of the input's.
fn share(bytes: Option<usize>, input: usize) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.2}x", bytes as f64 / input as f64))
}
