//! The learning curve as an SVG picture: accuracy on the left, loss in the middle and the names on the
//! right, a colour for each layer, a full line for held-out images and a faint one for training.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::ShapeStyle;

use super::EpochEnd;
use crate::Failure;

const PANEL: (u32, u32) = (480, 400);
const LEGEND_WIDTH: u32 = 200;
const LEGEND_ROW: u32 = 20;
const FONT: &str = "sans-serif";
/// Okabe and Ito's colours, which people with any colour vision can tell apart.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws the histories of one or more layers, each with its name.
///
/// # Errors
/// Where the drawing library fails.
pub fn draw(runs: &[(&str, &[EpochEnd])]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_into(&mut svg, runs).map_err(|error| Failure::new(format!("the learning curve cannot be drawn: {error}")))?;
    Ok(svg)
}

/// One of the two quantities, and how to read it from an epoch.
struct Panel {
    title: &'static str,
    train: fn(&EpochEnd) -> f64,
    held_out: fn(&EpochEnd) -> f64,
}

const ACCURACY: Panel = Panel {
    title: "accuracy, %",
    train: |epoch| epoch.train_accuracy * 100.0,
    held_out: |epoch| epoch.val_accuracy * 100.0,
};
const LOSS: Panel = Panel { title: "loss", train: |epoch| epoch.train_loss, held_out: |epoch| epoch.val_loss };

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), Box<dyn Error + 'a>>;

fn draw_into<'a>(svg: &'a mut String, runs: &[(&str, &[EpochEnd])]) -> Drawn<'a> {
    let legend_height = LEGEND_ROW * (runs.len() as u32 + 5);
    let size = (2 * PANEL.0 + LEGEND_WIDTH, PANEL.1.max(legend_height));
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (panels, legend) = root.split_horizontally(2 * PANEL.0);
    let (left, right) = panels.split_horizontally(PANEL.0);
    draw_panel(&left, &ACCURACY, runs)?;
    draw_panel(&right, &LOSS, runs)?;
    draw_legend(&legend, runs)?;
    root.present()?;
    Ok(())
}

fn draw_panel<'a>(area: &Area<'a>, panel: &Panel, runs: &[(&str, &[EpochEnd])]) -> Drawn<'a> {
    let epochs = runs.iter().map(|(_, history)| history.len()).max().unwrap_or(0);
    let values =
        runs.iter().flat_map(|(_, history)| *history).flat_map(|epoch| [(panel.train)(epoch), (panel.held_out)(epoch)]);
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-6);

    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.5..epochs.max(1) as f64 + 0.5, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .x_labels(epochs.clamp(2, 12))
        .x_label_formatter(&|epoch| if epoch.fract() == 0.0 { epoch.to_string() } else { String::new() })
        .light_line_style(TRANSPARENT)
        .label_style((FONT, 13))
        .draw()?;

    for (index, (_, history)) in runs.iter().enumerate() {
        let points = |of: fn(&EpochEnd) -> f64| history.iter().map(move |epoch| (epoch.epoch as f64, of(epoch)));
        chart.draw_series(LineSeries::new(points(panel.train), faint(index, runs.len())))?;
        chart.draw_series(LineSeries::new(points(panel.held_out), full(index, runs.len())))?;
        // A line through one epoch would not be seen.
        let dot = colour(index, runs.len()).filled();
        chart.draw_series(points(panel.held_out).map(|point| Circle::new(point, 2, dot)))?;
    }
    Ok(())
}

fn draw_legend<'a>(area: &Area<'a>, runs: &[(&str, &[EpochEnd])]) -> Drawn<'a> {
    let row = |row: usize, name: &str, style: ShapeStyle| {
        let y = (LEGEND_ROW * (row as u32 + 2)) as i32;
        area.draw(&PathElement::new([(8, y), (32, y)], style))?;
        area.draw(&Text::new(name.to_owned(), (40, y - 6), (FONT, 13)))
    };
    row(0, "held out", BLACK.stroke_width(2))?;
    row(1, "training", BLACK.mix(FAINT).stroke_width(2))?;
    for (index, (name, _)) in runs.iter().enumerate() {
        row(index + 3, name, full(index, runs.len()))?;
    }
    Ok(())
}

const FAINT: f64 = 0.35;

fn full(index: usize, count: usize) -> ShapeStyle {
    colour(index, count).stroke_width(2)
}

fn faint(index: usize, count: usize) -> ShapeStyle {
    colour(index, count).mix(FAINT).stroke_width(2)
}

/// The colour of one layer among `count`: a chosen one while they last, hues in equal steps otherwise.
fn colour(index: usize, count: usize) -> RGBAColor {
    match COLOURS.get(index) {
        Some(colour) if count <= COLOURS.len() => colour.to_rgba(),
        _ => HSLColor(index as f64 / count as f64, 0.75, 0.42).to_rgba(),
    }
}
