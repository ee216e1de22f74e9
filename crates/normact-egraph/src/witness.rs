//! The search for an input on which two layers differ.
//!
//! When two layers have different keys, or a proof of their equality fails, a [`Witness`] settles
//! the matter: an input, parameters and an element where the results differ. It is meant to be read
//! by a person, so small shapes are tried first and numbers get as few decimals as will do.
//!
//! **What counts.** Layers are evaluated with error bounds, as for the
//! [fingerprint](crate::fingerprint), so rounding is never a difference: two values differ if they
//! are further apart than four times their bounds and than 1e-6 of their size. One value defined
//! and the other not is a difference of [`Kind::Definedness`]. The [`Relation`] says which inputs
//! count.
//!
//! **Parameters.** A layer stays what it is when parameters of one class (same extent, same initial
//! value) are renamed. An input with values for the parameters is therefore a witness only if the
//! layers differ under every bijection between the parameters of a class. Where one layer has fewer
//! parameters of a class than the other, it is given parameters without influence to make up for
//! it. At initial values all bijections come to the same, so these are tried first. If there are
//! more than [`MAX_MATCHINGS`] bijections, only values that are equal within each class are tried:
//! the search finds less, and what it finds is still a witness. The witness reports the bijection
//! under which the layers come closest.
//!
//! **Evaluation mode.** If training mode shows nothing and the caller asks for it, both layers take
//! one training step from their initial state and are compared on another input in evaluation mode,
//! which shows differences of momentum and of biased and unbiased variances.

use normact_ir::{Buffers, Dag, Extent, Inputs, Mode, ParamId, Running, Shape, bessel, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fingerprint::{
    Bounded, Class, EVERYTHING, Plan, Sizes, Slots, Sources, Step, Work, average, falling_factorial,
};
use crate::normal::Relation;

/// The most bijections between parameters that are tried: `6!`.
pub const MAX_MATCHINGS: usize = 720;

/// How two results differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two different numbers.
    Values,
    /// One is a number and the other is undefined.
    Definedness,
}

/// An input on which two layers differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Witness {
    /// What the first layer reads.
    pub inputs_a: Inputs,
    /// What the second layer reads: the same `x`, and parameters as matched.
    pub inputs_b: Inputs,
    /// The mode in which they differ. In evaluation mode the inputs hold the running averages.
    pub mode: Mode,
    /// The first layer's result in row-major order; NaN where it is undefined or rounding errors
    /// decide what it is.
    pub y_a: Vec<f64>,
    /// The second layer's.
    pub y_b: Vec<f64>,
    /// The flat index of the largest relative difference, or where just one is defined.
    pub element: usize,
    /// How they differ there.
    pub kind: Kind,
    /// For each parameter of the first layer that has a counterpart, its name and that of the
    /// counterpart.
    pub matching: Vec<(String, String)>,
}

/// Searches for an input that separates two layers, trying `attempts` inputs in training mode and,
/// with `evaluation`, as many in evaluation mode. A few hundred attempts reach every combination of
/// shape, kind of input and kind of parameters.
pub fn separate(a: &Dag, b: &Dag, relation: Relation, evaluation: bool, seed: u64, attempts: usize) -> Option<Witness> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pair = Pair::new(a, b);
    let shapes = shapes(&pair, relation)?;
    let keeps_state = pair.sides.iter().any(|side| !side.buffers.list().is_empty());
    let modes = [(Mode::Training, true), (Mode::Evaluation, evaluation && keeps_state)];
    for (mode, _) in modes.into_iter().filter(|(_, wanted)| *wanted) {
        for attempt in 0..attempts {
            let shape = &shapes[attempt * shapes.len() / attempts];
            let point = Point::draw(&pair, relation, mode, shape, attempt, &mut rng);
            if let Some(found) = pair.differ_at(&point, relation, &mut rng) {
                return Some(pair.witness_of_short_numbers(point, found, relation, &mut rng));
            }
        }
    }
    None
}

/// Shapes to try, small ones first, with channels that every exact number of groups divides.
fn shapes(pair: &Pair<'_>, relation: Relation) -> Option<Vec<Shape>> {
    let dims: &[&[usize]] = match relation {
        Relation::Exact => &[
            &[1, 1],
            &[2, 1],
            &[1, 2],
            &[1, 1, 2],
            &[2, 2],
            &[2, 2, 2],
            &[3, 3],
            &[2, 3, 4],
            &[2, 3, 2, 2],
            &[2, 36, 1, 2],
        ],
        Relation::AlmostEverywhere => &[&[2, 2, 2], &[2, 2, 3], &[2, 3, 2], &[3, 3, 4], &[2, 5, 2, 2], &[2, 36, 1, 3]],
    };
    let [a, b] = pair.sides.each_ref().map(|side| &side.plan);
    let multiple = a.channels_multiple(b)?;
    let shapes = dims.iter().map(|dims| {
        let mut dims = dims.to_vec();
        dims[1] *= multiple;
        Shape::new(&dims).expect("the dimensions above are not zero and the multiple is small")
    });
    Some(shapes.collect())
}

/// One layer, ready to be evaluated.
struct Side<'dag> {
    dag: &'dag Dag,
    plan: Plan,
    buffers: Buffers,
    slots: Slots,
}

/// The parameters of a class in both layers.
struct Members {
    extent: Extent,
    of_a: Vec<ParamId>,
    of_b: Vec<ParamId>,
}

impl Members {
    /// How many parameters both have, once the smaller side is made up.
    fn count(&self) -> usize {
        self.of_a.len().max(self.of_b.len())
    }
}

/// For each class and each of its parameters in the second layer, the number of its counterpart.
type Matching = Vec<Vec<usize>>;

struct Pair<'dag> {
    sides: [Side<'dag>; 2],
    classes: Vec<Members>,
    matchings: Vec<Matching>,
    /// Whether there are more matchings than are listed.
    too_many: bool,
}

/// An input to both layers.
#[derive(Clone)]
struct Point {
    mode: Mode,
    shape: Shape,
    x: Vec<f64>,
    /// The input of the training step before, in evaluation mode.
    before: Vec<f64>,
    /// For each class, the values of its parameters; `None` for the initial values.
    params: Option<Vec<Vec<Vec<f64>>>>,
}

/// How two layers differ at a point, under the matching where they come closest.
struct Difference {
    kind: Kind,
    element: usize,
    /// Relative to the larger number; infinite for a difference of definedness.
    size: f64,
    matching: usize,
    results: [Outcome; 2],
}

/// What a layer makes of a point.
#[derive(Clone)]
struct Outcome {
    inputs: Inputs,
    /// Values and error bounds in row-major order.
    y: Vec<(f64, f64)>,
}

impl<'dag> Pair<'dag> {
    fn new(a: &'dag Dag, b: &'dag Dag) -> Self {
        let sides =
            [a, b].map(|dag| Side { dag, plan: Plan::of(dag), buffers: Buffers::of(dag), slots: Slots::default() });
        let mut classes: Vec<(Class, Members)> = Vec::new();
        for (number, side) in sides.iter().enumerate() {
            for &id in &side.plan.params {
                let class = Class::of(side.dag, id);
                let index = classes.iter().position(|(known, _)| *known == class).unwrap_or_else(|| {
                    let extent = side.dag.param(id).extent;
                    classes.push((class, Members { extent, of_a: Vec::new(), of_b: Vec::new() }));
                    classes.len() - 1
                });
                let members = &mut classes[index].1;
                if number == 0 { &mut members.of_a } else { &mut members.of_b }.push(id);
            }
        }
        let classes: Vec<Members> = classes.into_iter().map(|(_, members)| members).collect();
        let (matchings, too_many) = match list_matchings(&classes) {
            Some(matchings) => (matchings, false),
            None => (vec![classes.iter().map(|members| (0..members.of_b.len()).collect()).collect()], true),
        };
        Self { sides, classes, matchings, too_many }
    }

    /// Whether the layers differ at a point in a way that counts.
    fn differ_at(&mut self, point: &Point, relation: Relation, rng: &mut ChaCha8Rng) -> Option<Difference> {
        let found = self.difference(point)?;
        match relation {
            Relation::Exact => Some(found),
            Relation::AlmostEverywhere => {
                let nearby = self.difference(&point.moved(rng))?;
                (nearby.kind == found.kind).then_some(found)
            }
        }
    }

    /// The least difference at a point over all matchings; `None` if there is none under one of them.
    fn difference(&mut self, point: &Point) -> Option<Difference> {
        let a = self.outcome(0, point, 0)?;
        let count = if point.matchings_agree() { 1 } else { self.matchings.len() };
        let mut closest: Option<Difference> = None;
        for matching in 0..count {
            let b = self.outcome(1, point, matching)?;
            let (kind, element, size) = largest_difference(&a.y, &b.y)?;
            if closest.as_ref().is_none_or(|closest| size < closest.size) {
                closest = Some(Difference { kind, element, size, matching, results: [a.clone(), b] });
            }
        }
        closest
    }

    /// What one layer makes of a point.
    fn outcome(&mut self, side: usize, point: &Point, matching: usize) -> Option<Outcome> {
        let mut inputs = Inputs::initial(self.sides[side].dag, point.shape.clone(), point.x.clone());
        if let Some(values) = &point.params {
            for ((members, values), places) in self.classes.iter().zip(values).zip(&self.matchings[matching]) {
                let (ids, places) = match side {
                    0 => (&members.of_a, None),
                    _ => (&members.of_b, Some(places)),
                };
                for (number, id) in ids.iter().enumerate() {
                    inputs.params[id.index()].clone_from(&values[places.map_or(number, |places| places[number])]);
                }
            }
        }
        self.sides[side].outcome(inputs, point)
    }

    /// The witness at a point, or at one with fewer decimals that shows the same kind of difference.
    fn witness_of_short_numbers(
        &mut self,
        point: Point,
        found: Difference,
        relation: Relation,
        rng: &mut ChaCha8Rng,
    ) -> Witness {
        for decimals in 0..3 {
            let short = point.rounded(decimals);
            if let Some(same) = self.differ_at(&short, relation, rng)
                && same.kind == found.kind
            {
                return self.witness(&short, same);
            }
        }
        self.witness(&point, found)
    }

    fn witness(&self, point: &Point, found: Difference) -> Witness {
        let mut matching = Vec::new();
        for (members, places) in self.classes.iter().zip(&self.matchings[found.matching]) {
            for (number, &a) in members.of_a.iter().enumerate() {
                if let Some(b) = places.iter().position(|&place| place == number) {
                    let name = |side: usize, id: ParamId| self.sides[side].dag.param(id).name.clone();
                    matching.push((name(0, a), name(1, members.of_b[b])));
                }
            }
        }
        let shown =
            |y: &[(f64, f64)]| y.iter().map(|&(y, error)| if error.is_finite() { y } else { f64::NAN }).collect();
        let [a, b] = found.results;
        Witness {
            y_a: shown(&a.y),
            y_b: shown(&b.y),
            inputs_a: a.inputs,
            inputs_b: b.inputs,
            mode: point.mode,
            element: found.element,
            kind: found.kind,
            matching,
        }
    }
}

impl Side<'_> {
    /// `None` if the layer does not fit the shape.
    fn outcome(&mut self, mut inputs: Inputs, point: &Point) -> Option<Outcome> {
        let mut statistics = Vec::new();
        if point.mode == Mode::Evaluation {
            let training = Inputs { x: point.before.clone(), ..inputs };
            let state = evaluate(self.dag, &training, Mode::Training).ok()?.state().to_vec();
            self.run(&training, &[]);
            statistics = self.running_averages(&training, &state);
            inputs = Inputs { x: point.x.clone(), state, ..training };
        }
        self.run(&inputs, &statistics);
        let output = self.slots.value(self.plan.output);
        let Sizes { samples, positions, channels } = sizes_of(&inputs.shape);
        let mut y = Vec::with_capacity(inputs.shape.elements());
        for sample in 0..samples {
            for channel in 0..channels {
                y.extend((0..positions).map(|position| output.at(sample, position, channel)));
            }
        }
        Some(Outcome { inputs, y })
    }

    fn run(&mut self, inputs: &Inputs, statistics: &[Option<Bounded>]) {
        let x = channels_last(&inputs.shape, &inputs.x);
        let param = |id: ParamId, values: &mut Vec<f64>| values.extend_from_slice(&inputs.params[id.index()]);
        let sources = Sources { x: &x, param: &param, statistics };
        self.plan.run(sizes_of(&inputs.shape), EVERYTHING, &sources, &mut self.slots);
    }

    /// For each step that reads a running average, the average after the training step that the
    /// slots hold. The numbers are those of `state`; what the evaluator here finds for them gives
    /// the error bounds.
    fn running_averages(&self, before: &Inputs, state: &[Vec<f64>]) -> Vec<Option<Bounded>> {
        let mut batch = Bounded::default();
        let mut running = |step: &Step| {
            let Work::Moment(op, operand) = step.work else { return None };
            let buffer = self.buffers.of_node(step.node)?;
            let tracking = self.buffers.list()[buffer].tracking;
            let operand = self.slots.value(operand);
            average(operand, op, before.shape.channels(), &mut batch);
            let correction = match tracking.running {
                Running::Unbiased => bessel(operand.sizes.elements() / batch.sizes.elements()),
                Running::Biased => 1.0,
            };
            let momentum = tracking.momentum.get();
            let mut after = batch.clone();
            for (channel, (value, error)) in after.values.iter_mut().zip(&mut after.errors).enumerate() {
                let old = before.state[buffer][channel];
                let expected = (1.0 - momentum) * old + momentum * correction * *value;
                if expected.is_nan() {
                    continue;
                }
                let given = state[buffer][channel];
                *error = momentum * correction * *error + (given - expected).abs() + f64::EPSILON * expected.abs();
                *value = if given.is_finite() { given } else { 1.0 };
                if !error.is_finite() {
                    *error = f64::INFINITY;
                }
            }
            Some(after)
        };
        self.plan.steps.iter().map(&mut running).collect()
    }
}

impl Point {
    fn draw(
        pair: &Pair<'_>,
        relation: Relation,
        mode: Mode,
        shape: &Shape,
        attempt: usize,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let patterns: &[Pattern] = match relation {
            Relation::Exact => &Pattern::ALL,
            Relation::AlmostEverywhere => &Pattern::IRREGULAR,
        };
        let choices: &[Choice] = match relation {
            Relation::Exact => &[Choice::Initial, Choice::Random, Choice::SomeZero],
            Relation::AlmostEverywhere => &[Choice::Initial, Choice::Random],
        };
        // The lengths of the lists have no common divisor, so all combinations are reached.
        let pattern = patterns[attempt % patterns.len()];
        let choice = choices[attempt % choices.len()];
        let elements = shape.elements();
        let x = pattern.draw(elements, rng);
        let before = match mode {
            Mode::Training => Vec::new(),
            Mode::Evaluation => pattern.draw(elements, rng),
        };
        let params = match choice {
            Choice::Initial => None,
            Choice::Random | Choice::SomeZero => Some(
                pair.classes
                    .iter()
                    .map(|members| {
                        let mut draw = || -> Vec<f64> {
                            let zero = choice == Choice::SomeZero && rng.random_bool(0.5);
                            let value = |rng: &mut ChaCha8Rng| if zero { 0.0 } else { decimal(normal(rng), 2) };
                            (0..members.extent.len(shape.channels())).map(|_| value(rng)).collect()
                        };
                        let first = draw();
                        let more = 1..members.count();
                        let rest = more.map(|_| if pair.too_many { first.clone() } else { draw() });
                        std::iter::once(first.clone()).chain(rest).collect()
                    })
                    .collect(),
            ),
        };
        Self { mode, shape: shape.clone(), x, before, params }
    }

    /// Whether every matching gives the second layer the same values.
    fn matchings_agree(&self) -> bool {
        match &self.params {
            None => true,
            Some(classes) => classes.iter().all(|values| values.windows(2).all(|pair| pair[0] == pair[1])),
        }
    }

    /// A point nearby, irregular in all its digits. Initial values of parameters stay.
    fn moved(&self, rng: &mut ChaCha8Rng) -> Self {
        let agree = self.matchings_agree();
        let mut nearby = self.clone();
        let mut shift = |values: &mut Vec<f64>| {
            // Zeros move as well: they are where accidents happen.
            let size = values.iter().fold(0.0, |size: f64, value| size.max(value.abs()));
            let step = 0.01 * if size > 0.0 { size } else { 1.0 };
            values.iter_mut().for_each(|value| *value += rng.random_range(-step..step));
        };
        shift(&mut nearby.x);
        shift(&mut nearby.before);
        for values in nearby.params.iter_mut().flatten() {
            values.iter_mut().for_each(&mut shift);
            if agree {
                let first = values[0].clone();
                values.fill(first);
            }
        }
        nearby
    }

    fn rounded(&self, decimals: i32) -> Self {
        let mut short = self.clone();
        let lists = [&mut short.x, &mut short.before].into_iter();
        for value in lists.chain(short.params.iter_mut().flatten().flatten()).flatten() {
            *value = decimal(*value, decimals);
        }
        short
    }
}

/// What parameters are set to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Initial,
    Random,
    SomeZero,
}

/// What inputs look like.
#[derive(Clone, Copy)]
enum Pattern {
    /// Normal numbers of this size.
    Normal(f64),
    Positive,
    Negative,
    Zeros,
    /// One number everywhere.
    Constant,
    /// A normal number or zero.
    SomeZero,
    /// -1, 0, 1 or 2.
    Integers,
}

impl Pattern {
    const IRREGULAR: [Pattern; 7] = [
        Pattern::Normal(1.0),
        Pattern::Positive,
        Pattern::Negative,
        Pattern::Normal(10.0),
        Pattern::Normal(1e3),
        Pattern::Normal(1e-6),
        Pattern::Normal(1e6),
    ];

    const ALL: [Pattern; 11] = [
        Pattern::Normal(1.0),
        Pattern::Zeros,
        Pattern::Constant,
        Pattern::Positive,
        Pattern::Negative,
        Pattern::SomeZero,
        Pattern::Integers,
        Pattern::Normal(10.0),
        Pattern::Normal(1e3),
        Pattern::Normal(1e-6),
        Pattern::Normal(1e6),
    ];

    fn draw(self, elements: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let common = decimal(normal(rng), 3);
        let mut element = || match self {
            // Dividing by a power of ten keeps small numbers short.
            Pattern::Normal(size) if size < 1.0 => decimal(normal(rng), 3) / (1.0 / size).round(),
            Pattern::Normal(size) => decimal(size * normal(rng), 3),
            Pattern::Positive => decimal(normal(rng), 3).abs(),
            Pattern::Negative => -decimal(normal(rng), 3).abs(),
            Pattern::Zeros => 0.0,
            Pattern::Constant => common,
            Pattern::SomeZero if rng.random_bool(0.5) => 0.0,
            Pattern::SomeZero => decimal(normal(rng), 3),
            Pattern::Integers => f64::from(rng.random_range(-1..=2)),
        };
        (0..elements).map(|_| element()).collect()
    }
}

/// A normal number (Box and Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// The nearest number with so many decimals.
fn decimal(value: f64, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    // Adding zero turns -0 into 0.
    (value * unit).round() / unit + 0.0
}

/// The largest difference that is one: its kind, the element, and its relative size. Values come
/// before definedness.
fn largest_difference(a: &[(f64, f64)], b: &[(f64, f64)]) -> Option<(Kind, usize, f64)> {
    let mut found: Option<(Kind, usize, f64)> = None;
    for (element, (&(a, ea), &(b, eb))) in a.iter().zip(b).enumerate() {
        let either = ea + eb;
        match (a.is_nan(), b.is_nan()) {
            (true, true) => {}
            (false, false) => {
                let (gap, size) = ((a - b).abs(), a.abs().max(b.abs()));
                let is_larger = !matches!(found, Some((Kind::Values, _, largest)) if gap / size <= largest);
                if gap > 4.0 * either && gap > 1e-6 * size && is_larger {
                    found = Some((Kind::Values, element, gap / size));
                }
            }
            (a_undefined, _) => {
                // What is lost may be undefined as well.
                let defined_for_sure = if a_undefined { eb } else { ea }.is_finite();
                if defined_for_sure && found.is_none() {
                    found = Some((Kind::Definedness, element, f64::INFINITY));
                }
            }
        }
    }
    found
}

/// Every way to match the parameters of the classes; `None` if there are more than
/// [`MAX_MATCHINGS`].
fn list_matchings(classes: &[Members]) -> Option<Vec<Matching>> {
    let mut matchings: Vec<Matching> = vec![Vec::new()];
    for members in classes {
        let mut longer = Vec::new();
        for places in injections(members.of_b.len(), members.count())? {
            longer
                .extend(matchings.iter().map(|matching| [matching.as_slice(), std::slice::from_ref(&places)].concat()));
            if longer.len() > MAX_MATCHINGS {
                return None;
            }
        }
        matchings = longer;
    }
    Some(matchings)
}

/// Every list of `count` different numbers below `limit`, the identity first; `None` if there are
/// more than [`MAX_MATCHINGS`].
fn injections(count: usize, limit: usize) -> Option<Vec<Vec<usize>>> {
    if falling_factorial(limit, count) > MAX_MATCHINGS {
        return None;
    }
    let mut lists = vec![Vec::new()];
    for _ in 0..count {
        let mut longer = Vec::new();
        for list in &lists {
            let free = (0..limit).filter(|place| !list.contains(place));
            longer.extend(free.map(|place| [list.as_slice(), &[place]].concat()));
        }
        lists = longer;
    }
    Some(lists)
}

fn sizes_of(shape: &Shape) -> Sizes {
    Sizes { samples: shape.samples(), positions: shape.positions(), channels: shape.channels() }
}

/// The elements in the evaluator's order: samples, positions, channels.
fn channels_last(shape: &Shape, x: &[f64]) -> Vec<f64> {
    let Sizes { samples, positions, channels } = sizes_of(shape);
    let mut ordered = Vec::with_capacity(x.len());
    for sample in 0..samples {
        for position in 0..positions {
            ordered.extend((0..channels).map(|channel| x[(sample * channels + channel) * positions + position]));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use normact_ir::random::Space;
    use normact_ir::{Builder, Op, Operands, Prim, Scalar};

    use super::*;
    use crate::fingerprint::formula::layer;
    use crate::fingerprint::{Fingerprint, Fingerprinter};

    const ATTEMPTS: usize = 300;

    fn search(a: &str, b: &str, relation: Relation) -> Option<Witness> {
        separate(&layer(a), &layer(b), relation, true, 1, ATTEMPTS)
    }

    fn equal(a: &str, b: &str, relation: Relation) {
        let witness = search(a, b, relation);
        assert!(witness.is_none(), "{a} and {b} are equal: {witness:?}");
    }

    fn differ(a: &str, b: &str, relation: Relation) -> Witness {
        let witness = search(a, b, relation).unwrap_or_else(|| panic!("{a} and {b} differ"));
        let reversed = search(b, a, relation).unwrap_or_else(|| panic!("{b} and {a} differ"));
        assert_eq!((witness.mode, witness.kind), (reversed.mode, reversed.kind));
        witness
    }

    #[test]
    fn equal_layers_have_no_witness() {
        for relation in [Relation::Exact, Relation::AlmostEverywhere] {
            equal("(add x (mul v=1 x))", "(mul (add w=1 1) x)", relation);
            equal("(var/layer x)", "(add (mean/layer (square x)) (neg (square (mean/layer x))))", relation);
            equal("(mul x (sigmoid x))", "(div x (add 1 (exp (neg x))))", relation);
            equal("(add (mul x a=1) (tanh b=1))", "(add (mul x b=1) (tanh a=1))", relation);
            equal("(mul x a=1)", "(mul x (add a=1 (mul 0 b=1)))", relation);
            equal("(mean/group=6 x)", "(mean/group=6 (mean/instance x))", relation);
        }
    }

    #[test]
    fn what_is_equal_almost_everywhere_can_differ_exactly() {
        let both = |a: &str, b: &str, kind: Kind| {
            equal(a, b, Relation::AlmostEverywhere);
            let witness = differ(a, b, Relation::Exact);
            assert_eq!(witness.kind, kind, "{witness:?}");
            witness
        };
        let witness = both("(div x x)", "1", Kind::Definedness);
        assert!(witness.y_a[witness.element].is_nan());
        assert_eq!(witness.y_b[witness.element], 1.0);
        both("(square (sign x))", "1", Kind::Values);
        both("(div (mul x v=1) v=1)", "x", Kind::Definedness);
        both("(div (mul x (var/batch x)) (var/batch x))", "x", Kind::Definedness);
    }

    #[test]
    fn differences_almost_everywhere() {
        let both = |a: &str, b: &str, kind: Kind| {
            for relation in [Relation::AlmostEverywhere, Relation::Exact] {
                assert_eq!(differ(a, b, relation).kind, kind, "{a} and {b}");
            }
        };
        both("(div (max x 0) (max x 0))", "1", Kind::Definedness);
        both("(div (mul x v=0) v=0)", "x", Kind::Definedness);
        both("(sigmoid (div 1 0))", "1", Kind::Definedness);
        both("(mean/group x)", "(mean/instance x)", Kind::Values);
        both("(mean/group<3 x)", "(mean/group=2 x)", Kind::Values);
        both("(std/layer x)", "(std/layer/1e-3 x)", Kind::Values);
        both("(add (mul x a=1) (tanh b=1))", "(add (mul x a=1) (tanh a=1))", Kind::Values);
        both("(mul x a=1)", "(mul x a:1)", Kind::Values);
        both("(mul x (add 1 v=0))", "x", Kind::Values);
    }

    #[test]
    fn running_statistics_differ_in_evaluation_mode() {
        let settings = ["/0.1/biased", "/0.1/unbiased", "/0.2/biased"].map(|rest| format!("(std/batch/1e-5{rest} x)"));
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let witness = differ(&settings[a], &settings[b], Relation::AlmostEverywhere);
            assert_eq!(witness.mode, Mode::Evaluation);
            assert_ne!(witness.inputs_a.state, witness.inputs_b.state);
            let (a, b) = (layer(&settings[a]), layer(&settings[b]));
            assert!(separate(&a, &b, Relation::Exact, false, 1, ATTEMPTS).is_none());
        }
        equal("(mean/batch x)", "(mean/batch (mean/batch x))", Relation::AlmostEverywhere);
    }

    #[test]
    fn witnesses_are_small_and_complete() {
        let witness = differ("(mul x (add v=1 1))", "(mul (square x) (add w=1 1))", Relation::Exact);
        assert_eq!(witness.inputs_a.shape.dims(), [1, 1]);
        assert_eq!(witness.inputs_a.x, witness.inputs_b.x);
        assert_eq!(witness.matching, [("v".to_owned(), "w".to_owned())]);
        assert_eq!(witness.inputs_a.x[0], decimal(witness.inputs_a.x[0], 1));
        let y = evaluate(&layer("(mul x (add v=1 1))"), &witness.inputs_a, witness.mode).unwrap().output();
        assert_eq!(y, witness.y_a);
    }

    #[test]
    fn matchings_are_all_different_pairings() {
        assert_eq!(injections(2, 3).map(|lists| lists.len()), Some(6));
        assert_eq!(injections(3, 3).map(|lists| lists[0].clone()), Some(vec![0, 1, 2]));
        assert_eq!(injections(6, 6).map(|lists| lists.len()), Some(720));
        assert_eq!(injections(7, 7), None);
        let sum = |count: usize, last: &str| {
            let terms = (1..count).map(|number| format!("v{number}=1"));
            terms.fold(format!("(mul x {last})"), |sum, term| format!("(add {sum} (tanh {term}))"))
        };
        // Seven parameters: only values that are equal are tried.
        equal(&sum(7, "w=1"), &sum(7, "w=1").replace('v', "u"), Relation::AlmostEverywhere);
        differ(&sum(7, "w=1"), &sum(7, "(exp w=1)"), Relation::AlmostEverywhere);
    }

    #[test]
    fn a_layer_does_not_differ_from_itself() {
        let seed = 17;
        for space in [Space::evonorm(), Space::language()] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for number in 0..200 {
                let dag = space.draw(&mut rng).dag;
                for relation in [Relation::Exact, Relation::AlmostEverywhere] {
                    let witness = separate(&dag, &dag.normalized(), relation, true, number, 60);
                    assert!(witness.is_none(), "seed {seed}, graph {number}: {witness:?}");
                }
            }
        }
    }

    #[test]
    fn a_perturbed_layer_is_found_out() {
        let seed = 19;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for number in 0..200 {
            let dag = Space::evonorm().draw(&mut rng).dag;
            let Some(perturbed) = perturbed(&dag) else { continue };
            for relation in [Relation::Exact, Relation::AlmostEverywhere] {
                let witness = separate(&dag, &perturbed, relation, false, number, ATTEMPTS);
                assert!(witness.is_some(), "seed {seed}, graph {number}");
            }
        }
    }

    /// The layer with its output times 1.001; `None` where the output is lost or nothing.
    fn perturbed(dag: &Dag) -> Option<Dag> {
        let mut builder = Builder::new();
        for param in dag.params() {
            builder.declare(param.clone()).unwrap();
        }
        let mut nodes = Vec::new();
        for id in dag.ids() {
            let operands: Vec<_> = dag.operands(id).iter().map(|operand| nodes[operand.index()]).collect();
            nodes.push(builder.append(dag.op(id), Operands::from_slice(&operands).unwrap()).unwrap());
        }
        let factor = builder.constant(Scalar::new(1.001).unwrap());
        let output = builder.append(Op::Prim(Prim::Mul), Operands::Two(nodes[dag.output().index()], factor)).unwrap();
        let mut side = Side { dag, plan: Plan::of(dag), buffers: Buffers::of(dag), slots: Slots::default() };
        let shape = Shape::new(&[2, 3, 3]).unwrap();
        let x = (1..=18).map(|x| f64::from(x * 37 % 19) / 7.0 - 1.0).collect();
        side.run(&Inputs::initial(dag, shape, x), &[]);
        let output_now = side.slots.value(side.plan.output);
        let visible = |(&y, &error): (&f64, &f64)| y.abs() > 1e3 * error && y != 0.0;
        output_now.values.iter().zip(&output_now.errors).any(visible).then(|| builder.finish(output))
    }

    #[test]
    fn witnesses_and_fingerprints_agree() {
        let seed = 23;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut fingerprinter = Fingerprinter::new();
        let mut space = Space::evonorm();
        // Small graphs, so that some pairs are equal.
        space.nodes = 3;
        let layers: Vec<Dag> = (0..60).map(|_| space.draw(&mut rng).dag).collect();
        for (index, a) in layers.iter().enumerate() {
            for b in &layers[..index] {
                let (of_a, of_b) = (fingerprinter.of(a), fingerprinter.of(b));
                if of_a == Fingerprint::Unstable || of_b == Fingerprint::Unstable {
                    continue;
                }
                let witness = separate(a, b, Relation::AlmostEverywhere, false, seed, ATTEMPTS);
                assert_eq!(of_a == of_b, witness.is_none(), "seed {seed}: {a:?}, {b:?}, {witness:?}");
            }
        }
    }
}
