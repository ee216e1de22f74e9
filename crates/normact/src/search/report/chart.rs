//! The pictures of a report, as SVG within its page: every colour is one of the page's, light or dark.

use std::fmt::Write as _;

use super::markup::escaped;

/// The style sheet has so many colours for series.
const COLORS: usize = 6;

/// The class with the colour of a series.
pub(super) fn color(place: usize) -> String {
    format!("c{}", place % COLORS)
}

/// The best score so far of a strategy: for each run, after each layer; nothing before the first score.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) runs: Vec<Vec<Option<f64>>>,
}

/// The drawn curves.
pub(super) struct Curves {
    pub(super) svg: String,
    /// The baselines below the picture.
    pub(super) below: Vec<(String, f64)>,
}

/// A layer between networks.
pub(super) struct Dot {
    pub(super) scores: Vec<f64>,
    pub(super) is_front: bool,
    /// The name, for fixed layers.
    pub(super) name: Option<String>,
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
        let width = (high - low).max(0.01);
        if low > high || !width.is_finite() {
            return None;
        }
        let magnitude = 10_f64.powf((width / 6.0).log10().floor());
        let step = [1.0, 2.0, 5.0].map(|round| round * magnitude).into_iter().find(|step| width / step <= 6.0);
        let step = step.unwrap_or(10.0 * magnitude);
        let (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        Some(Self { low, high: if high > low { high } else { low + step }, step })
    }

    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.high - self.low) * (to - from)
    }

    /// Where the ticks are, with their labels in percent.
    fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        let count = ((self.high - self.low) / self.step).round() as usize;
        let decimals = usize::from(self.step < 0.0099);
        (0..=count).map(move |tick| {
            let value = self.low + tick as f64 * self.step;
            // Adding zero turns -0.0 into 0.0.
            let percent = value * 100.0 + 0.0;
            // No accuracy is that large; a made-up score may be.
            (value, if percent.abs() < 1e4 { format!("{percent:.decimals$}") } else { format!("{percent:.0e}") })
        })
    }
}

/// The mean over runs with the least and the most, step by step.
struct Band {
    /// One at least.
    steps: Vec<Step>,
}

struct Step {
    /// Layers judged.
    layers: usize,
    mean: f64,
    least: f64,
    most: f64,
}

impl Band {
    /// From where every run has a score to where the shortest one ends: a mean over other runs at every place
    /// would fall as often as it rises. Runs without any score are left out.
    fn of(runs: &[Vec<Option<f64>>]) -> Option<Self> {
        let runs: Vec<&Vec<Option<f64>>> = runs.iter().filter(|run| run.iter().any(Option::is_some)).collect();
        let first = runs.iter().filter_map(|run| run.iter().position(Option::is_some)).max()?;
        let last = runs.iter().map(|run| run.len()).min()?;
        let steps = (first..last).map(|place| {
            let values = || runs.iter().filter_map(|run| run[place]);
            let mean = values().sum::<f64>() / runs.len() as f64;
            let (least, most) = super::extremes(&values().collect::<Vec<_>>());
            Step { layers: place + 1, mean, least, most }
        });
        let steps: Vec<_> = steps.collect();
        (!steps.is_empty()).then_some(Self { steps })
    }

    fn last(&self) -> &Step {
        &self.steps[self.steps.len() - 1]
    }

    /// The least that matters: the first scores may be far below everything that comes after.
    fn low(&self) -> f64 {
        self.steps[self.steps.len() / 10].least
    }
}

/// The search curve: a line for each strategy with the range between its seeds, and a line across for each
/// baseline. Nothing if there is no score.
pub(super) fn curves(curves: &[Curve], baselines: &[(String, f64)]) -> Option<Curves> {
    let (width, height, left, right, top, bottom) = (760.0, 400.0, 48.0, 128.0, 14.0, 46.0);
    let (plot_right, plot_bottom) = (width - right, height - bottom);
    let bands: Vec<(usize, &str, Band)> = (0..)
        .zip(curves)
        .filter_map(|(place, curve)| Some((place, curve.name.as_str(), Band::of(&curve.runs)?)))
        .collect();
    let floor = floor(&bands);
    let range = bands.iter().flat_map(|(_, _, band)| [band.low(), band.last().most]);
    let scale = Scale::of(range.chain(baselines.iter().map(|(_, score)| *score).filter(|score| *score >= floor)))?;
    let length = bands.iter().map(|(_, _, band)| band.last().layers).max().unwrap_or(1);
    let x = |layers: usize| left + layers as f64 / length as f64 * (plot_right - left);
    // What is below the picture is cut off; a bound keeps the numbers short.
    let y = |score: f64| scale.place(score, plot_bottom, top).clamp(-height, 2.0 * height);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"curve-title\">\
         <title id=\"curve-title\">Best mean score so far, in percent, against different layers judged</title>\n\
         <clipPath id=\"curve-area\"><rect x=\"{left}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
        top - 4.0,
        plot_right - left,
        plot_bottom - top + 4.0
    );
    for (value, label) in scale.ticks() {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left} {at:.1}H{plot_right}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 7.0,
            at + 4.0
        );
    }
    for layers in round_counts(length) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{layers}</text>",
            x(layers),
            plot_bottom + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">different layers judged</text>\
         <text class=\"note\" transform=\"translate(11 {}) rotate(-90)\" text-anchor=\"middle\">best mean score, \
         %</text>",
        (left + plot_right) / 2.0,
        height - 7.0,
        (top + plot_bottom) / 2.0
    );
    let mut labels = vec![];
    for (name, score) in baselines.iter().filter(|(_, score)| *score >= floor) {
        let at = y(*score);
        let _ = writeln!(svg, "<path class=\"baseline\" d=\"M{left} {at:.1}H{plot_right}\"/>");
        labels.push(Label { from: (plot_right, at), at, text: escaped(name), class: "note".to_owned() });
    }
    // They come after the labels, so that no thin line to a label covers a curve.
    let mut drawn = String::from("<g clip-path=\"url(#curve-area)\">\n");
    for (place, _, band) in &bands {
        let line = |value: fn(&Step) -> f64, is_reversed: bool| {
            stairs(band.steps.iter().map(|step| (x(step.layers), y(value(step)))), is_reversed)
        };
        let _ = writeln!(
            drawn,
            "<path class=\"band {}\" d=\"M{}L{}Z\"/>",
            color(*place),
            line(|step| step.most, false),
            line(|step| step.least, true)
        );
    }
    for (place, _, band) in &bands {
        let class = color(*place);
        let points = band.steps.iter().map(|step| (x(step.layers), y(step.mean)));
        let _ = writeln!(drawn, "<path class=\"line {class}\" d=\"M{}\"/>", stairs(points, false));
    }
    drawn.push_str("</g>\n");
    for (place, name, band) in &bands {
        let class = color(*place);
        let from = (x(band.last().layers), y(band.last().mean));
        if from.1 <= plot_bottom {
            let _ =
                writeln!(drawn, "<circle class=\"fill {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", from.0, from.1);
        }
        labels.push(Label { from, at: from.1, text: escaped(name), class: format!("series {class}") });
    }
    spread(&mut labels, 16.0, top, height - 6.0);
    for Label { from: (from_x, from_y), at, text, class } in labels {
        let (end, from_y) = (plot_right + 14.0, from_y.min(plot_bottom));
        let _ = writeln!(
            svg,
            "<path class=\"leader\" d=\"M{from_x:.1} {from_y:.1}H{plot_right}L{} {at:.1}\"/>\
             <text class=\"{class}\" x=\"{end}\" y=\"{:.1}\">{text}</text>",
            end - 2.0,
            at + 4.0
        );
    }
    let below = baselines.iter().filter(|(_, score)| *score < floor).cloned().collect();
    Some(Curves { svg: svg + &drawn + "</svg>\n", below })
}

/// Baselines so far below the curves that these would be flat in one picture with them are not drawn.
fn floor(bands: &[(usize, &str, Band)]) -> f64 {
    let low = bands.iter().map(|(_, _, band)| band.low()).fold(f64::INFINITY, f64::min);
    let high = bands.iter().map(|(_, _, band)| band.last().most).fold(f64::NEG_INFINITY, f64::max);
    if bands.is_empty() { f64::NEG_INFINITY } else { low - 2.0 * (high - low).max(0.05) }
}

/// About five round numbers from 0 to `length`.
fn round_counts(length: usize) -> impl Iterator<Item = usize> {
    let raw = (length as f64 / 5.0).max(1.0);
    let magnitude = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|round| round * magnitude).find(|step| *step >= raw);
    (0..=length).step_by(step.map_or(1, |step| step as usize).max(1))
}

/// A path that changes its height where the best changes; between, nothing is written.
fn stairs(points: impl Iterator<Item = (f64, f64)>, is_reversed: bool) -> String {
    let mut path = String::new();
    let points: Vec<(f64, f64)> = points.collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return path };
    if is_reversed {
        let _ = write!(path, "{:.1} {:.1}", last.0, last.1);
        for pair in points.windows(2).rev().filter(|pair| pair[0].1 != pair[1].1) {
            let _ = write!(path, "H{:.1}V{:.1}", pair[1].0, pair[0].1);
        }
        let _ = write!(path, "H{:.1}", first.0);
    } else {
        let _ = write!(path, "{:.1} {:.1}", first.0, first.1);
        for pair in points.windows(2).filter(|pair| pair[0].1 != pair[1].1) {
            let _ = write!(path, "H{:.1}V{:.1}", pair[1].0, pair[1].1);
        }
        let _ = write!(path, "H{:.1}", last.0);
    }
    path
}

/// A name beside something.
struct Label {
    from: (f64, f64),
    /// How far down it is.
    at: f64,
    text: String,
    class: String,
}

/// Moves labels apart, within the picture if there is room.
fn spread(labels: &mut [Label], distance: f64, top: f64, bottom: f64) {
    labels.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut free = top;
    for label in labels.iter_mut() {
        label.at = label.at.max(free);
        free = label.at + distance;
    }
    let mut free = bottom;
    for label in labels.iter_mut().rev() {
        label.at = label.at.min(free);
        free = label.at - distance;
    }
}

/// Layers between two networks.
pub(super) fn scatter(dots: &[Dot], anchors: &[String], [across, up]: [usize; 2]) -> Option<String> {
    let (size, left, bottom, margin) = (340.0, 44.0, 44.0, 12.0);
    let low = |axis: usize| {
        let mut values: Vec<f64> = dots.iter().map(|dot| dot.scores[axis]).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 10).copied()
    };
    let lows = [low(across)?, low(up)?];
    let at = |dot: &Dot| [dot.scores[across].max(lows[0]), dot.scores[up].max(lows[1])];
    let [horizontal, vertical] =
        [Scale::of(dots.iter().map(|dot| at(dot)[0]))?, Scale::of(dots.iter().map(|dot| at(dot)[1]))?];
    let place = |dot: &Dot| {
        let [x, y] = at(dot);
        (horizontal.place(x, left, size - margin), vertical.place(y, size - bottom, margin))
    };
    let (across_name, up_name) = (escaped(&anchors[across]), escaped(&anchors[up]));
    let id = format!("scatter-{across}-{up}");
    let mut svg = format!(
        "<svg viewBox=\"0 0 {size} {size}\" role=\"img\" aria-labelledby=\"{id}\">\
         <title id=\"{id}\">Scores on {up_name} against scores on {across_name}</title>\n"
    );
    for (value, label) in horizontal.ticks() {
        let x = horizontal.place(value, left, size - margin);
        let end = size - bottom;
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {margin}V{end}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            end + 16.0
        );
    }
    for (value, label) in vertical.ticks() {
        let y = vertical.place(value, size - bottom, margin);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left} {y:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            size - margin,
            left - 6.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{across_name}, %</text>\
         <text class=\"note\" transform=\"translate(11 {}) rotate(-90)\" text-anchor=\"middle\">{up_name}, %</text>",
        (left + size - margin) / 2.0,
        size - 8.0,
        (size - bottom + margin) / 2.0
    );
    // Thousands of dots are one path of lines without length, each place once.
    let others = dots.iter().filter(|dot| !dot.is_front && dot.name.is_none());
    let mut places: Vec<String> = others.map(place).map(|(x, y)| format!("M{x:.0} {y:.0}h0")).collect();
    places.sort_unstable();
    places.dedup();
    let _ = writeln!(svg, "<path class=\"dots c0\" d=\"{}\"/>", places.concat());
    let tip = |dot: &Dot| {
        let [x, y] = [across, up].map(|axis| super::markup::percent(dot.scores[axis]));
        let name = dot.name.as_ref().map_or(String::new(), |name| format!("{}: ", escaped(name)));
        format!("<title>{name}{across_name} {x} %, {up_name} {y} %</title>")
    };
    for dot in dots.iter().filter(|dot| dot.is_front && dot.name.is_none()) {
        let (x, y) = place(dot);
        let _ = writeln!(svg, "<circle class=\"front c1\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\">{}</circle>", tip(dot));
    }
    let mut labels = vec![];
    for (dot, name) in dots.iter().filter_map(|dot| Some((dot, dot.name.as_ref()?))) {
        let (x, y) = place(dot);
        let class = if dot.is_front { "c1" } else { "c2" };
        let _ = writeln!(
            svg,
            "<rect class=\"front {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\">{}</rect>",
            x - 4.0,
            y - 4.0,
            tip(dot)
        );
        labels.push(Label { from: (x, y), at: y, text: escaped(name), class: String::new() });
    }
    spread(&mut labels, 13.0, margin, size - bottom);
    for Label { from: (x, _), at, text, .. } in labels {
        // Above the diagonal, where there are fewer dots, unless there is no room.
        let room = 7.0 * text.chars().count() as f64;
        let (x, anchor) = if x - 8.0 - room > left { (x - 8.0, "end") } else { (x + 8.0, "start") };
        let _ = writeln!(
            svg,
            "<text class=\"halo\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            at + 4.0
        );
    }
    Some(svg + "</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_the_same_runs_everywhere() {
        let (none, some) = (None, |score: f64| Some(score));
        let runs = [
            vec![none, some(0.5), some(0.7), some(0.9)],
            vec![some(0.1), some(0.1), some(0.3)],
            vec![none, none],
            vec![],
        ];
        let band = Band::of(&runs).unwrap();
        let steps: Vec<_> = band.steps.iter().map(|step| (step.layers, step.mean, step.least, step.most)).collect();
        assert_eq!(steps, [(2, 0.3, 0.1, 0.5), (3, 0.5, 0.3, 0.7)]);
        assert!(Band::of(&runs[2..]).is_none() && Band::of(&[]).is_none());
        assert!(Band::of(&[vec![none, some(0.5)], vec![some(0.5)]]).is_none(), "they never have scores together");
    }

    #[test]
    fn stairs_change_where_the_height_does() {
        let points = [(0.0, 9.0), (1.0, 9.0), (2.0, 5.0), (3.0, 5.0)];
        assert_eq!(stairs(points.into_iter(), false), "0.0 9.0H2.0V5.0H3.0");
        assert_eq!(stairs(points.into_iter(), true), "3.0 5.0H2.0V9.0H0.0");
    }

    #[test]
    fn scales_have_round_ends() {
        let labels = |values: &[f64]| -> Vec<String> {
            Scale::of(values.iter().copied()).unwrap().ticks().map(|(_, label)| label).collect()
        };
        assert_eq!(labels(&[0.713, 0.902]), ["70", "75", "80", "85", "90", "95"]);
        assert_eq!(labels(&[0.5]), ["50.0", "50.2"]);
        assert!(Scale::of([].into_iter()).is_none() && Scale::of([-f64::MAX, f64::MAX].into_iter()).is_none());
    }

    #[test]
    fn labels_keep_apart_and_inside() {
        let label = |at| Label { from: (0.0, at), at, text: String::new(), class: String::new() };
        let mut labels = [label(95.0), label(10.0), label(12.0), label(94.0)];
        spread(&mut labels, 10.0, 0.0, 100.0);
        assert_eq!(labels.map(|label| label.at), [10.0, 20.0, 90.0, 100.0]);
    }
}
