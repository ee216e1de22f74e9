//! The pictures of a report, as SVG within its page: colours of text and axes are those of the page.

use std::fmt::Write as _;

/// Colours that people with any kind of sight tell apart (Okabe and Ito).
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The best score so far of a strategy: for each run, after each layer; nothing before the first score.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) runs: Vec<Vec<Option<f64>>>,
}

/// A layer between two networks.
pub(super) struct Dot {
    pub(super) at: [f64; 2],
    pub(super) is_front: bool,
    /// The name, for fixed layers.
    pub(super) name: Option<String>,
}

/// A curve at one place, over its seeds.
struct Point {
    x: f64,
    mean: f64,
    least: f64,
    most: f64,
}

/// A range of scores with round ends, and the steps between.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if !(low.is_finite() && high.is_finite()) {
            return None;
        }
        let width = (high - low).max(0.01);
        let step = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].into_iter().find(|step| width / step <= 6.0);
        let step = step.unwrap_or(width / 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Some(Self { low, high: if high > low { high } else { low + step }, step })
    }

    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.high - self.low) * (to - from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|tick| self.low + tick as f64 * self.step)
    }
}

/// The search curve: a line for each strategy with the range between its seeds, and a line across for each
/// baseline. Nothing if there is no score.
pub(super) fn curves(curves: &[Curve], baselines: &[(String, f64)]) -> Option<String> {
    let (width, height, left, right, top, bottom) = (860.0, 400.0, 60.0, 130.0, 20.0, 50.0);
    let known = curves.iter().flat_map(|curve| &curve.runs).flatten().copied().flatten();
    // The first scores may be far below; what matters is near the top.
    let scale = Scale::of(known.chain(baselines.iter().map(|(_, score)| *score)))?;
    let length = curves.iter().flat_map(|curve| &curve.runs).map(Vec::len).max().unwrap_or(0).max(2);
    let x = |layers: usize| left + layers as f64 / (length - 1) as f64 * (width - left - right);
    let y = |score: f64| scale.place(score, height - bottom, top);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\"><title>The best score against layers judged</title>\n"
    );
    for tick in scale.ticks() {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.1} %</text>",
            width - right,
            left - 8.0,
            at + 4.0,
            tick * 100.0
        );
    }
    for part in 0..=4 {
        let layers = (length - 1) * part / 4;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(layers),
            height - bottom + 20.0,
            layers + 1
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">different layers judged</text>",
        (left + width - right) / 2.0,
        height - 8.0
    );
    // Labels at the right keep out of each other's way.
    let mut labels: Vec<(f64, String, &str)> = vec![];
    for (name, score) in baselines {
        let at = y(*score);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"currentColor\" \
             stroke-dasharray=\"4 4\" opacity=\"0.6\"/>",
            width - right
        );
        labels.push((at, super::escaped(name), "currentColor"));
    }
    for (curve, color) in curves.iter().zip(COLORS.iter().cycle()) {
        let longest = curve.runs.iter().map(Vec::len).max().unwrap_or(0);
        let mut points = vec![];
        for layer in 0..longest {
            // A run that has ended keeps its best.
            let values: Vec<f64> =
                curve.runs.iter().filter_map(|run| run.get(layer).or(run.last()).copied().flatten()).collect();
            if !values.is_empty() {
                let least = values.iter().copied().fold(f64::INFINITY, f64::min);
                let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                points.push(Point { x: x(layer), mean: values.iter().sum::<f64>() / values.len() as f64, least, most });
            }
        }
        let Some(last) = points.last() else { continue };
        let line = |value: fn(&Point) -> f64| -> Vec<String> {
            points.iter().map(|point| format!("{:.1},{:.1}", point.x, y(value(point)))).collect()
        };
        let mut band = line(|point| point.most);
        band.extend(line(|point| point.least).into_iter().rev());
        let _ = writeln!(
            svg,
            "<polygon points=\"{}\" fill=\"{color}\" opacity=\"0.15\"/>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>",
            band.join(" "),
            line(|point| point.mean).join(" ")
        );
        labels.push((y(last.mean), super::escaped(&curve.name), color));
    }
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = top - 8.0;
    for (at, name, color) in labels {
        free = (at + 4.0).max(free + 15.0);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{free:.1}\" style=\"fill:{color}\">{name}</text>",
            width - right + 8.0
        );
    }
    Some(svg + "</svg>")
}

/// Layers between two networks.
pub(super) fn scatter(dots: &[Dot], across: &str, up: &str) -> String {
    let (size, left, bottom, margin) = (340.0, 60.0, 50.0, 16.0);
    // What is far below the best says little: the lowest tenth is at the edge.
    let low = |axis: usize| {
        let mut values: Vec<f64> = dots.iter().map(|dot| dot.at[axis]).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 10).copied().unwrap_or(0.0)
    };
    let lows = [low(0), low(1)];
    let clamped = |dot: &Dot, axis: usize| dot.at[axis].max(lows[axis]);
    let scale = |axis: usize| Scale::of(dots.iter().map(|dot| clamped(dot, axis)));
    let (Some(horizontal), Some(vertical)) = (scale(0), scale(1)) else { return String::new() };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {size} {size}\" role=\"img\"><title>{} against {}</title>\n",
        super::escaped(up),
        super::escaped(across)
    );
    for tick in horizontal.ticks() {
        let at = horizontal.place(tick, left, size - margin);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{margin}\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>",
            size - bottom,
            size - bottom + 18.0,
            tick * 100.0
        );
    }
    for tick in vertical.ticks() {
        let at = vertical.place(tick, size - bottom, margin);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.1}</text>",
            size - margin,
            left - 6.0,
            at + 4.0,
            tick * 100.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}, %</text>\
         <text class=\"note\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}, %</text>",
        (left + size - margin) / 2.0,
        size - 8.0,
        super::escaped(across),
        (size - bottom + margin) / 2.0,
        super::escaped(up)
    );
    for dot in dots {
        let at = [
            horizontal.place(clamped(dot, 0), left, size - margin),
            vertical.place(clamped(dot, 1), size - bottom, margin),
        ];
        let tip = dot.name.as_ref().map_or(String::new(), |name| format!("{}: ", super::escaped(name)));
        let tip = format!("<title>{tip}{:.1} %, {:.1} %</title>", dot.at[0] * 100.0, dot.at[1] * 100.0);
        let _ = match (&dot.name, dot.is_front) {
            (Some(name), _) => writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" fill=\"{}\">{tip}</rect>\
                 <text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                at[0] - 4.0,
                at[1] - 4.0,
                COLORS[1],
                at[0] - 7.0,
                at[1] + 4.0,
                super::escaped(name)
            ),
            (None, true) => writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{}\" stroke=\"currentColor\" \
                 stroke-width=\"1.5\">{tip}</circle>",
                at[0], at[1], COLORS[0]
            ),
            (None, false) => writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{}\" opacity=\"0.6\">{tip}</circle>",
                at[0], at[1], COLORS[0]
            ),
        };
    }
    svg + "</svg>\n"
}
