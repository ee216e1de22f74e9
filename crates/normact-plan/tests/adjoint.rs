//! The joint graph against the reference evaluator: outputs, running averages and every gradient.

use normact_ir::random::Space;
use normact_ir::{Axes, Buffers, Channels, Dag, Inputs, Layer, Mode, Prim, Shape, evaluate};
use normact_plan::graph::{Expr, Graph, Operands, Statistic, ValueId};
use normact_plan::{Joint, Plan, Sizes, joint};
use normact_syntax::{Overrides, Source, compile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn built_in_layers_have_the_gradients_of_the_evaluator() {
    let mut count = 0;
    for layer in built_in_layers() {
        for (seed, dims) in [[3, 8, 4, 5], [2, 6, 3, 1], [1, 4, 1, 1]].iter().enumerate() {
            for mode in [Mode::Training, Mode::Evaluation] {
                let case = Case::draw(&layer.dag, &Shape::new(dims).unwrap(), seed as u64);
                let steady = case.compare(&layer.dag, mode);
                assert!(steady > 0.9, "{} {dims:?} {mode:?}: {steady} steady", layer.name);
                count += 1;
            }
        }
    }
    assert!(count >= 19 * 6, "{count}");
}

#[test]
fn little_is_kept_beside_the_input() {
    for layer in built_in_layers() {
        for [samples, channels, positions] in [[32, 128, 3136], [32, 64, 1024], [8, 16, 64], [64, 512, 1], [1, 3, 2]] {
            let sizes = Sizes { samples, channels, positions };
            let plan = Plan::new(&layer.dag, Mode::Training, sizes);
            let kept = 8 * plan.kept_slots(sizes);
            assert!(20 * kept <= 4 * sizes.elements(), "{}: {kept} bytes beside {sizes:?}", layer.name);
        }
    }
}

#[test]
fn plans_move_no_more_memory_than_a_hand_fused_layer() {
    let sizes = Sizes { samples: 32, channels: 64, positions: 1024 };
    for (name, traffic, cached) in [
        ("evonorm_s0", [3, 5], [2, 3]),
        ("gn_silu", [3, 5], [2, 3]),
        ("bn_relu", [3, 5], [2, 3]),
        ("evonorm_b0", [3, 5], [2, 3]),
        ("dyt", [2, 3], [2, 3]),
    ] {
        let layer = built_in_layers().into_iter().find(|layer| layer.name == name).expect("a built-in layer");
        let plan = Plan::new(&layer.dag, Mode::Training, sizes);
        assert_eq!((plan.traffic(), plan.cached_traffic()), (traffic, cached), "{name}");
    }
}

fn built_in_layers() -> Vec<Layer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    let files = std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers");
    let layers = files.flat_map(|file| {
        let path = file.expect("a folder can be listed").path();
        let text = std::fs::read_to_string(&path).expect("a layer is a text file");
        compile(&Source::new(path.display().to_string(), &text), &Overrides::default()).layers
    });
    layers.map(|layer| layer.layer).collect()
}

/// A reduction counts each channel of a group, also where its operand is the same for all of them.
#[test]
fn values_of_groups_have_the_gradients_of_the_evaluator() {
    let by_group = "std[group(2)](x)";
    let bodies = [
        format!("x * {by_group} * mean[channel](x)"),
        format!("x + {by_group} * mean[batch]({by_group})"),
        format!("x * tanh({by_group} * std[channel](x))"),
        format!("v * x / {by_group}"),
        format!("x + mean[layer](x * {by_group}) * mean[all](x / {by_group})"),
        format!("v * x * mean[group(3)](x) + w * {by_group}"),
        "w * mean[layer](x) + v * mean[group(2)](x) + mean[all](x)".to_owned(),
        "x + tanh(w) * mean[batch](mean[group(2)](w * x))".to_owned(),
    ];
    for body in bodies {
        let text = format!("layer l(x) {{ param v: scalar = 1\nparam w = 1\n{body} }}");
        let layer = compile(&Source::new("l.nact", &text), &Overrides::default()).layers.remove(0).layer;
        for dims in [&[3, 6, 4][..], &[2, 12], &[1, 6, 3, 2]] {
            println!("{body} {dims:?}");
            let steady = Case::draw(&layer.dag, &Shape::new(dims).unwrap(), 3).compare(&layer.dag, Mode::Training);
            assert!(steady > 0.9, "{steady} steady");
        }
    }
}

#[test]
fn random_graphs_have_the_gradients_of_the_evaluator() {
    let shapes: [&[usize]; 5] = [&[3, 6, 4], &[4, 4], &[2, 6, 3, 2], &[1, 8, 5], &[5, 2, 1]];
    for (space, name) in [(Space::language(), "language"), (Space::evonorm(), "evonorm")] {
        let mut steady = 0.0;
        for seed in 0..600 {
            let layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
            let shape = Shape::new(shapes[seed as usize % shapes.len()]).unwrap();
            for mode in [Mode::Training, Mode::Evaluation] {
                println!("{name} seed {seed} {mode:?}");
                steady += Case::draw(&layer.dag, &shape, seed).compare(&layer.dag, mode) / 1200.0;
            }
        }
        assert!(steady > 0.8, "{name}: only {steady:.2} of the elements could be compared");
    }
}

struct Case {
    inputs: Inputs,
    dy: Vec<f64>,
}

impl Case {
    fn draw(dag: &Dag, shape: &Shape, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers = |len: usize| -> Vec<f64> { (0..len).map(|_| rng.random_range(-2.0..2.0)).collect() };
        let mut inputs = Inputs::initial(dag, shape.clone(), numbers(shape.elements()));
        inputs.params.iter_mut().for_each(|values| *values = numbers(values.len()));
        inputs.state.iter_mut().for_each(|values| *values = numbers(values.len()).iter().map(|x| x.abs()).collect());
        Self { inputs, dy: numbers(shape.elements()) }
    }

    fn jittered(&self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut inputs = self.inputs.clone();
        inputs.x.iter_mut().for_each(|x| *x *= 1.0 + 1e-12 * rng.random_range(-1.0..1.0));
        Self { inputs, dy: self.dy.clone() }
    }

    /// The evaluator's output, gradient of `x` and gradients of the parameters.
    fn expected(&self, dag: &Dag, mode: Mode) -> Vec<Vec<f64>> {
        let evaluation = evaluate(dag, &self.inputs, mode).expect("the inputs fit");
        let gradients = evaluation.gradients(&self.dy);
        let state = evaluation.state().iter().cloned();
        [evaluation.output(), gradients.x].into_iter().chain(gradients.params).chain(state).collect()
    }

    /// Panics where the joint graph differs; the share of elements that could be compared.
    fn compare(&self, dag: &Dag, mode: Mode) -> f64 {
        let expected = self.expected(dag, mode);
        let near: Vec<_> = (1..4).map(|seed| self.jittered(seed).expected(dag, mode)).collect();
        let shape = &self.inputs.shape;
        let sizes = Sizes { samples: shape.samples(), channels: shape.channels(), positions: shape.positions() };
        let (mut total, mut steady) = (0, 0);
        // The joint graph, and the one a plan makes of it, with statistics of statistics.
        for joint in [joint(dag, mode, Some(sizes)), Plan::new(dag, mode, sizes).joint] {
            let found = Reference::new(&joint.graph, self).results(&joint, dag);
            self.compare_lists(&expected, &near, &found, &mut total, &mut steady);
        }
        f64::from(steady) / f64::from(total.max(1))
    }

    fn compare_lists(
        &self,
        expected: &[Vec<f64>],
        near: &[Vec<Vec<f64>>],
        found: &[Vec<f64>],
        total: &mut u32,
        steady: &mut u32,
    ) {
        for (list, (expected, found)) in expected.iter().zip(found).enumerate() {
            assert_eq!(expected.len(), found.len());
            let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
            for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
                *total += 1;
                let spread = near.iter().map(|lists| (lists[list][index] - expected).abs()).fold(0.0, f64::max);
                if !(expected.is_finite() && spread < 1e-6 * largest)
                    || near.iter().any(|l| !l[list][index].is_finite())
                {
                    continue;
                }
                *steady += 1;
                let allowed = 1e-10 * largest + 100.0 * spread;
                assert!(
                    (found - expected).abs() <= allowed,
                    "list {list} at {index}: {found}, expected {expected}\n{:?}",
                    self.inputs.shape
                );
            }
        }
    }
}

/// Evaluates a joint graph value by value, every value at full size.
struct Reference<'a> {
    graph: &'a Graph,
    sizes: [usize; 3],
    case: &'a Case,
}

impl<'a> Reference<'a> {
    fn new(graph: &'a Graph, case: &'a Case) -> Self {
        let shape = &case.inputs.shape;
        Self { graph, sizes: [shape.samples(), shape.channels(), shape.positions()], case }
    }

    fn results(&self, joint: &Joint, dag: &Dag) -> Vec<Vec<f64>> {
        let [_, channels, positions] = self.sizes;
        let values = self.values();
        let zeros = vec![0.0; self.case.inputs.x.len()];
        let mut results = vec![
            values[joint.output.index()].clone(),
            joint.input_gradient.map_or(zeros, |id| values[id.index()].clone()),
        ];
        for (param, gradient) in dag.params().iter().zip(&joint.param_gradients) {
            let len = param.extent.len(channels);
            results.push((0..len).map(|c| gradient.map_or(0.0, |id| values[id.index()][c * positions])).collect());
        }
        assert_eq!(joint.updates.len(), Buffers::of(dag).list().len());
        for (old, update) in self.case.inputs.state.iter().zip(&joint.updates) {
            let new = |c: usize, id: &ValueId| values[id.index()][c * positions];
            results.push((0..old.len()).map(|c| update.as_ref().map_or(old[c], |id| new(c, id))).collect());
        }
        results
    }

    fn values(&self) -> Vec<Vec<f64>> {
        let [samples, channels, positions] = self.sizes;
        let all = samples * channels * positions;
        let mut values: Vec<Vec<f64>> = vec![];
        for id in self.graph.ids() {
            let along_channels = |list: &[f64]| -> Vec<f64> {
                (0..all).map(|i| list[if list.len() == 1 { 0 } else { i / positions % channels }]).collect()
            };
            let value = match self.graph.expr(id) {
                Expr::Input => self.case.inputs.x.clone(),
                Expr::Upstream => self.case.dy.clone(),
                Expr::Constant(value) => vec![value.get(); all],
                Expr::Count { of, per } => vec![self.elements(of) / self.elements(per); all],
                Expr::Param(param) => along_channels(&self.case.inputs.params[param.index()]),
                Expr::Running(buffer) => along_channels(&self.case.inputs.state[buffer]),
                Expr::Prim(prim, Operands::One(a)) => values[a.index()].iter().map(|&a| prim.value(a, 0.0)).collect(),
                Expr::Prim(prim, Operands::Two(a, b)) => {
                    let pairs = values[a.index()].iter().zip(&values[b.index()]);
                    pairs.map(|(&a, &b)| if prim == Prim::Mul { a * b } else { prim.value(a, b) }).collect()
                }
                Expr::Reduce { statistic, operand, to } => self.reduce(statistic, operand, to, &values),
            };
            values.push(value);
        }
        values
    }

    fn reduce(&self, statistic: Statistic, operand: ValueId, to: Axes, values: &[Vec<f64>]) -> Vec<f64> {
        let axes = self.graph.axes(operand);
        let x = &values[operand.index()];
        // Elements along axes that the operand does not vary along are the same: count one of them.
        let counted = |i: usize| self.is_first(i, axes);
        let sum = |f: &dyn Fn(usize) -> f64| -> (Vec<f64>, Vec<f64>) {
            let mut sums = vec![0.0; x.len()];
            let mut counts = vec![0.0; x.len()];
            for i in (0..x.len()).filter(|&i| counted(i)) {
                sums[self.slot(i, to)] += f(i);
                counts[self.slot(i, to)] += 1.0;
            }
            let spread = |list: &[f64]| (0..x.len()).map(|i| list[self.slot(i, to)]).collect();
            (spread(&sums), spread(&counts))
        };
        let mean = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let (sums, counts) = sum(f);
            sums.iter().zip(&counts).map(|(sum, count)| sum / count).collect()
        };
        match statistic {
            Statistic::Sum => sum(&|i| x[i]).0,
            Statistic::Mean => mean(&|i| x[i]),
            Statistic::MeanSquare => mean(&|i| x[i] * x[i]),
            Statistic::Variance => {
                let centre = mean(&|i| x[i]);
                mean(&|i| (x[i] - centre[i]).powi(2))
            }
        }
    }

    fn elements(&self, axes: Axes) -> f64 {
        let [samples, channels, positions] = self.sizes;
        let groups = match axes.channels {
            Channels::One => 1,
            Channels::Groups(groups) => groups.count(channels).unwrap(),
            Channels::All => channels,
        };
        (if axes.samples { samples } else { 1 } * groups * if axes.positions { positions } else { 1 }) as f64
    }

    /// The first element of the slot of shape `axes` that element `i` falls into.
    fn slot(&self, i: usize, axes: Axes) -> usize {
        let [_, channels, positions] = self.sizes;
        let (sample, channel, position) = (i / positions / channels, i / positions % channels, i % positions);
        let channel = match axes.channels {
            Channels::One => 0,
            Channels::Groups(groups) => {
                let size = channels / groups.count(channels).unwrap();
                channel / size * size
            }
            Channels::All => channel,
        };
        let sample = if axes.samples { sample } else { 0 };
        (sample * channels + channel) * positions + if axes.positions { position } else { 0 }
    }

    fn is_first(&self, i: usize, axes: Axes) -> bool {
        let channels = if axes.channels == Channels::One { Channels::One } else { Channels::All };
        self.slot(i, Axes { channels, ..axes }) == i
    }
}
