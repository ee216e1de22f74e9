//! Fused execution against the f64 evaluator: outputs, running averages and every gradient, for all
//! layouts in memory.

use normact_cpu::{Compiled, Instructions, Lane, View, ViewMut};
use normact_ir::random::Space;
use normact_ir::{Buffers, Dag, Inputs, Mode, Shape, evaluate};
use normact_plan::{HELD_BLOCK, Sizes};
use normact_syntax::{Overrides, Source, compile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the elements lie in memory: the order of axes from the outermost, and gaps between runs.
#[derive(Debug, Clone, Copy)]
struct Memory {
    order: [usize; 3],
    gap: usize,
}

const CONTIGUOUS: Memory = Memory { order: [0, 1, 2], gap: 0 };
const MEMORIES: [(Memory, Lane); 6] = [
    (CONTIGUOUS, Lane::Positions),
    (CONTIGUOUS, Lane::Channels),
    (Memory { order: [0, 2, 1], gap: 0 }, Lane::Channels),
    (Memory { order: [0, 2, 1], gap: 3 }, Lane::Positions),
    (Memory { order: [1, 0, 2], gap: 5 }, Lane::Positions),
    (Memory { order: [2, 1, 0], gap: 1 }, Lane::Channels),
];

impl Memory {
    fn strides(self, dims: [usize; 3]) -> ([usize; 3], usize) {
        let mut strides = [0; 3];
        let mut reach = 1;
        for &axis in self.order.iter().rev() {
            strides[axis] = reach;
            reach = reach * dims[axis] + self.gap;
        }
        (strides, reach)
    }

    fn place(self, dims: [usize; 3], values: &[f64]) -> (Vec<f32>, [usize; 3]) {
        let (strides, len) = self.strides(dims);
        let mut data = vec![f32::NAN; len];
        for (index, value) in values.iter().enumerate() {
            data[offset(dims, strides, index)] = *value as f32;
        }
        (data, strides)
    }
}

fn offset(dims: [usize; 3], strides: [usize; 3], index: usize) -> usize {
    let at = [index / dims[2] / dims[1], index / dims[2] % dims[1], index % dims[2]];
    (0..3).map(|axis| at[axis] * strides[axis]).sum()
}

#[test]
fn built_in_layers_agree_with_the_evaluator() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    for file in std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers") {
        let path = file.expect("a folder can be listed").path();
        let text = std::fs::read_to_string(&path).expect("a layer is a text file");
        for layer in &compile(&Source::new(path.display().to_string(), &text), &Overrides::default()).layers {
            let shapes: [&[usize]; 6] =
                [&[3, 8, 4, 5], &[2, 6, 30, 40], &[4, 1024], &[1, 4, 1, 1], &[17, 3, 700], &[1, 64, 50, 41]];
            for (seed, dims) in shapes.iter().enumerate() {
                for mode in [Mode::Training, Mode::Evaluation] {
                    let case = Case::draw(&layer.layer.dag, &Shape::new(dims).unwrap(), seed as u64);
                    println!("{} {dims:?} {mode:?}", layer.layer.name);
                    let steady = case.compare(&layer.layer.dag, mode);
                    assert!(steady > 0.9, "{} {dims:?} {mode:?}: {steady} steady", layer.layer.name);
                }
            }
        }
    }
}

/// Values that are the same within groups, in statistics of other axes.
#[test]
fn values_of_groups_agree_with_the_evaluator() {
    for body in [
        "x * std[group(2)](x) * mean[channel](x)",
        "x + std[group(2)](x) * mean[batch](std[group(2)](x))",
        "v * x / std[group(2)](x) + w",
        "x + mean[layer](x * std[group(2)](x)) * mean[all](x / std[group(3)](x))",
        "v * x * mean[group(3)](x) + w * std[group(2)](x + w)",
    ] {
        let text = format!("layer l(x) {{ param v: scalar = 1\nparam w = 1\n{body} }}");
        let layer = compile(&Source::new("l.nact", &text), &Overrides::default()).layers.remove(0).layer;
        for dims in [&[3, 6, 4][..], &[2, 12, 33], &[1, 6, 3, 2]] {
            println!("{body} {dims:?}");
            let steady = Case::draw(&layer.dag, &Shape::new(dims).unwrap(), 3).compare(&layer.dag, Mode::Training);
            assert!(steady > 0.9, "{body} {dims:?}: {steady} steady");
        }
    }
}

#[test]
fn random_graphs_agree_with_the_evaluator() {
    let shapes: [&[usize]; 6] = [&[3, 6, 4], &[4, 4], &[2, 6, 3, 7], &[1, 8, 5], &[5, 2, 1], &[3, 8, 33, 21]];
    for (space, name) in [(Space::language(), "language"), (Space::evonorm(), "evonorm")] {
        let mut steady = 0.0;
        for seed in 0..500 {
            let layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
            let shape = Shape::new(shapes[seed as usize % shapes.len()]).unwrap();
            for mode in [Mode::Training, Mode::Evaluation] {
                println!("{name} seed {seed} {mode:?}");
                steady += Case::draw(&layer.dag, &shape, seed).compare(&layer.dag, mode) / 1000.0;
            }
        }
        println!("{name}: {steady:.2} of the elements compared");
        assert!(steady > 0.7, "{name}: only {steady:.2} of the elements could be compared");
    }
}

/// The vector instructions that this processor has.
fn instructions() -> impl Iterator<Item = Instructions> {
    [Instructions::Avx2, Instructions::Avx512].into_iter().filter(|instructions| instructions.is_available())
}

/// Chunks of single elements, of vectors that are not full, and of more than one chunk.
const ODD: [&[usize]; 8] =
    [&[1, 1, 1], &[2, 3, 5], &[1, 4, 17], &[3, 6, 33], &[2, 8, 64], &[5, 67], &[1, 3, 515], &[2, 2, 1031]];

#[test]
fn native_code_of_built_in_layers_agrees_with_the_interpreter() {
    let (mut cases, mut steady) = (0.0, 0.0);
    for layer in built_in_layers() {
        for (seed, dims) in ODD.iter().enumerate() {
            let calm = Case::draw(&layer, &Shape::new(dims).unwrap(), seed as u64);
            let changed = |change: fn(&mut Vec<f64>)| {
                let mut case = calm.clone();
                change(&mut case.inputs.x);
                case
            };
            let huge = changed(|x| x.iter_mut().for_each(|x| *x *= 1e30));
            let tiny = changed(|x| x.iter_mut().for_each(|x| *x *= 1e-30));
            let not_a_number = changed(|x| x[0] = f64::NAN);
            for case in [&calm, &huge, &tiny, &not_a_number] {
                for mode in [Mode::Training, Mode::Evaluation] {
                    steady += case.compare_native(&layer, mode);
                    cases += 1.0;
                }
            }
        }
    }
    println!("{:.3} of the elements compared", steady / cases);
    assert!(steady / cases > 0.8, "only {} of the elements could be compared", steady / cases);
}

#[test]
fn native_code_of_random_graphs_agrees_with_the_interpreter() {
    for (space, name) in [(Space::language(), "language"), (Space::evonorm(), "evonorm")] {
        let mut steady = 0.0;
        let (mut native, mut passes) = (0, 0);
        for seed in 0..300 {
            let layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed)).dag;
            for instructions in instructions() {
                let sizes = Sizes { samples: 2, channels: 6, positions: 35 };
                let compiled =
                    Compiled::with_instructions(&layer, Mode::Training, sizes, Lane::Positions, Some(instructions));
                native += compiled.native_sizes().iter().flatten().count();
                passes += compiled.native_sizes().len();
            }
            let case = Case::draw(&layer, &Shape::new(ODD[seed as usize % ODD.len()]).unwrap(), seed);
            for mode in [Mode::Training, Mode::Evaluation] {
                println!("{name} seed {seed} {mode:?}");
                steady += case.compare_native(&layer, mode) / 600.0;
            }
        }
        println!("{name}: {steady:.2} of the elements compared, {native} of {passes} passes native");
        assert!(native * 100 >= passes * 95, "{name}: only {native} of {passes} passes are native");
        assert!(steady > 0.7, "{name}: only {steady:.2} of the elements could be compared");
    }
}

#[test]
fn every_pass_of_the_built_in_layers_has_native_code() {
    let (mut passes, mut bytes) = (0, 0);
    for instructions in instructions() {
        for layer in built_in_layers() {
            for (mode, lane) in [Mode::Training, Mode::Evaluation].into_iter().zip([Lane::Positions, Lane::Channels]) {
                let sizes = Sizes { samples: 4, channels: 64, positions: 256 };
                let compiled = Compiled::with_instructions(&layer, mode, sizes, lane, Some(instructions));
                for size in compiled.native_sizes() {
                    passes += 1;
                    bytes += size.unwrap_or_else(|| panic!("{instructions:?} {mode:?} {lane:?}\n{layer:?}"));
                }
            }
        }
    }
    println!("{passes} passes, {bytes} bytes");
}

/// What is held is as large as a block, and must not become a tensor of its own.
#[test]
fn values_are_held_in_small_blocks_only() {
    let mut blocks_that_hold = 0;
    for layer in built_in_layers() {
        for lane in [Lane::Positions, Lane::Channels] {
            for channels in [64, 1024] {
                let sizes = Sizes { samples: 2, channels, positions: 1024 };
                for [elements, held] in Compiled::new(&layer, Mode::Training, sizes, lane).held() {
                    assert!(held == 0 || elements <= HELD_BLOCK, "{held} values of {elements} elements {layer:?}");
                    blocks_that_hold += usize::from(held > 0);
                }
            }
        }
    }
    assert!(blocks_that_hold > 0, "nothing is held at all");
}

#[test]
fn results_do_not_depend_on_the_number_of_cores() {
    let shapes: [&[usize]; 2] = [&[16, 12, 1031], &[1, 2, 200_000]];
    for name in ["evonorm_s0", "evonorm_b0", "affine"] {
        for dims in shapes {
            let layer = built_in(name);
            let case = Case::draw(&layer, &Shape::new(dims).unwrap(), 7);
            let found = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be made");
                pool.install(|| case.found(&layer, Mode::Training, MEMORIES[0], Instructions::detect()))
            };
            let bits = |threads| found(threads).into_iter().flatten().map(f64::to_bits).collect::<Vec<_>>();
            assert!(bits(1) == bits(3), "{name} {dims:?}");
        }
    }
}

/// A result so large that it is written past the caches, with rows that start at all kinds of addresses.
#[test]
fn native_code_writes_large_results_as_the_interpreter_does() {
    // The backward pass of the second sums up while it writes.
    ["gn_silu", "affine"].map(built_in).iter().for_each(|layer| large_results_agree(layer, Lane::Positions, 8));
}

/// The same where rows share vectors: channels last, and statistics at each position.
#[test]
fn native_code_writes_large_results_with_vectors_that_rows_share() {
    ["affine", "bn_relu"].map(built_in).iter().for_each(|layer| large_results_agree(layer, Lane::Channels, 24));
    large_results_agree(&built_in("rms_norm"), Lane::Positions, 24);
}

fn large_results_agree(layer: &Dag, lane: Lane, channels: usize) {
    let sizes = Sizes { samples: 3, channels, positions: (1 << 23) / 3 / channels + 19 };
    let strides = match lane {
        Lane::Positions => [sizes.channels * sizes.positions, sizes.positions, 1],
        Lane::Channels => [sizes.channels * sizes.positions, 1, sizes.channels],
    };
    let x: Vec<f32> = (0..sizes.elements()).map(|i| (i as f32 * 0.37).sin() + 0.1).collect();
    let ramp = |start: f32| (0..channels).map(|channel| start + 0.1 * channel as f32).collect::<Vec<_>>();
    let (gamma, beta) = (ramp(0.5), ramp(-1.0));
    let params: Vec<&[f32]> = [gamma.as_slice(), &beta].into_iter().take(layer.params().len()).collect();
    let running = ramp(1.0);
    let running = vec![running.as_slice(); Buffers::of(layer).list().len()];
    let view = View { data: &x, strides };
    let run = |instructions: Option<Instructions>| -> [Vec<f32>; 2] {
        let compiled = Compiled::with_instructions(layer, Mode::Training, sizes, lane, instructions);
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        let kept = compiled.forward(view, &params, &running, Some(ViewMut { data: &mut y, strides })).kept;
        compiled.backward(view, &params, &running, &kept, view, Some(ViewMut { data: &mut dx, strides }));
        [y, dx]
    };
    let expected = run(None);
    for instructions in instructions() {
        for (found, expected) in run(Some(instructions)).iter().zip(&expected) {
            let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 2e-5;
            assert!(found.iter().zip(expected).all(near), "{lane:?} {instructions:?}");
        }
    }
}

const INDEX_SETS: [&str; 6] = ["batch", "instance", "layer", "group(2)", "channel", "all"];

fn layer_of(body: &str) -> Dag {
    let text = format!("layer l(x) {{ {body} }}");
    compile(&Source::new("l.nact", &text), &Overrides::default()).layers.remove(0).layer.dag
}

/// Every way to run: each layout in memory, interpreted and with each kind of instructions.
fn ways() -> impl Iterator<Item = ((Memory, Lane), Option<Instructions>)> {
    let all: Vec<_> = instructions().map(Some).chain([None]).collect();
    MEMORIES.into_iter().flat_map(move |memory| all.clone().into_iter().map(move |instructions| (memory, instructions)))
}

/// Numbers around 10,000 with deviations of 1: as f32 they have three digits behind the point, and none of
/// what is left when the mean is subtracted may be lost.
#[test]
fn a_mean_far_from_zero_is_subtracted_without_loss() {
    for dims in [&[3, 6, 40][..], &[2, 4, 30, 30], &[5, 4, 1]] {
        for over in INDEX_SETS {
            for body in [format!("x - mean[{over}](x)"), format!("(x - mean[{over}](x)) / std[{over}](x)")] {
                let layer = layer_of(&body);
                let mut case = Case::draw(&layer, &Shape::new(dims).unwrap(), 11);
                case.inputs.x.iter_mut().for_each(|x| *x = f64::from((1e4 + *x) as f32));
                let expected = case.expected(&layer, Mode::Training);
                for (memory, instructions) in ways() {
                    let found = case.found(&layer, Mode::Training, memory, instructions);
                    for (list, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        for (found, expected) in found.iter().zip(expected) {
                            let close = (found - expected).abs() <= 2e-6 * (1.0 + expected.abs());
                            // A variance of nearly nothing has a steep root.
                            assert!(
                                close || list > 0 && expected.abs() > 1e3,
                                "{body} {dims:?} {memory:?} {instructions:?}, list {list}: {found}, not {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn equal_numbers_have_no_variance() {
    for dims in [&[3, 4, 49][..], &[8, 4, 30, 20], &[2, 4, 1031]] {
        for over in INDEX_SETS {
            // The derivative of a root at 0 is 0, or this would be infinite or NaN.
            let root = layer_of(&format!("x + std[{over}](x, eps = 0)"));
            let norm = layer_of(&format!("(x - mean[{over}](x)) / std[{over}](x)"));
            let plain = layer_of(&format!("x - mean[{over}](x)"));
            for number in [0.1, 1_000_003.312_5, 10_000.033_203_125, 1e-30, -1e30, 0.0] {
                let drawn = |layer: &Dag| {
                    let mut case = Case::draw(layer, &Shape::new(dims).unwrap(), 5);
                    case.inputs.x.fill(f64::from(number as f32));
                    case
                };
                let (root_case, norm_case, plain_case) = (drawn(&root), drawn(&norm), drawn(&plain));
                for (memory, instructions) in ways() {
                    let name = format!("{over} of {number} {dims:?} {memory:?} {instructions:?}");
                    let found = root_case.found(&root, Mode::Training, memory, instructions);
                    let [y, dx] = &found[..2] else { panic!("an output and a gradient") };
                    assert!(*y == root_case.inputs.x && *dx == root_case.dy, "root {name}");
                    for (layer, case) in [(&norm, &norm_case), (&plain, &plain_case)] {
                        let y = &case.found(layer, Mode::Training, memory, instructions)[0];
                        assert!(y.iter().all(|&y| y == 0.0), "{name}: {:?}", y.iter().find(|&&y| y != 0.0));
                    }
                }
            }
        }
    }
}

/// Squares of the deviations are far below the smallest f32, or far above the largest.
#[test]
fn tiny_and_huge_numbers_are_normalized_without_an_epsilon() {
    for dims in [&[3, 4, 49][..], &[2, 4, 30, 30]] {
        for over in INDEX_SETS {
            for body in
                [format!("(x - mean[{over}](x)) / std[{over}](x, eps = 0)"), format!("x / rms[{over}](x, eps = 0)")]
            {
                let layer = layer_of(&body);
                let plain = Case::draw(&layer, &Shape::new(dims).unwrap(), 2);
                // Without a factor of their own size: 1 / 1e-39 is beyond the largest f32.
                for scale in [1e-39, 1e-30, 1e30, 1e38] {
                    let mut case = plain.clone();
                    case.inputs.x.iter_mut().for_each(|x| *x = f64::from((scale * *x) as f32));
                    let expected = &case.expected(&layer, Mode::Training)[0];
                    for (memory, instructions) in ways() {
                        let found = &case.found(&layer, Mode::Training, memory, instructions)[0];
                        for (found, expected) in found.iter().zip(expected) {
                            // The smallest numbers have few digits.
                            let precision = 3e-6 + 5.0 * f64::from(f32::from_bits(1)) / scale;
                            let close = (found - expected).abs() <= precision * (1.0 + expected.abs());
                            assert!(
                                close,
                                "{body} {scale:e} {dims:?} {memory:?} {instructions:?}: {found}, not {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Neither planning nor code take more than time in proportion, or this would not end.
#[test]
fn a_formula_of_ten_thousand_functions_runs() {
    let steps: String = (0..10_000).map(|step| format!("let a{} = tanh(a{step})\n", step + 1)).collect();
    let text = format!("layer deep(x) {{ let a0 = x\n{steps} a10000 }}");
    let layer = compile(&Source::new("deep", &text), &Overrides::default()).layers.remove(0).layer;
    let sizes = Sizes { samples: 1, channels: 2, positions: 3 };
    let compiled = Compiled::new(&layer.dag, Mode::Training, sizes, Lane::Positions);
    let (x, strides) = ([0.5, -1.0, 2.0, 0.0, f32::NAN, 1e-30], [6, 3, 1]);
    let mut y = [7.0; 6];
    compiled.forward(View { data: &x, strides }, &[], &[], Some(ViewMut { data: &mut y, strides }));
    // tanh, so often, is about sqrt(3 / (2 n)).
    for (y, expected) in y.into_iter().zip([0.01225, -0.01225, 0.01225, 0.0]) {
        assert!((y - expected).abs() < 2e-5, "{y} instead of {expected}");
    }
    assert!(y[4].is_nan());
}

/// Indices beyond 2^31 bytes, and 2^29 elements.
#[test]
#[ignore = "needs 7 GiB of memory: part of `./test --long`"]
fn a_tensor_of_more_than_two_gibibytes_is_normalized_to_its_end() {
    let layer = built_in("gn_silu");
    let sizes = Sizes { samples: 3, channels: 64, positions: 2_900_000 };
    let strides = [sizes.channels * sizes.positions, sizes.positions, 1];
    let compiled = Compiled::new(&layer, Mode::Training, sizes, Lane::Positions);
    // The same numbers in every sample.
    let x: Vec<f32> = (0..sizes.elements()).map(|i| ((i % strides[0]) as f32 * 0.37).sin()).collect();
    assert!(4 * x.len() > 1 << 31);
    let mut y = vec![f32::NAN; x.len()];
    let params: [&[f32]; 2] = [&[1.5; 64], &[0.5; 64]];
    let view = View { data: &x, strides };
    let kept = compiled.forward(view, &params, &[], Some(ViewMut { data: &mut y, strides })).kept;
    let samples: Vec<&[f32]> = y.chunks(strides[0]).collect();
    assert!(samples[0].iter().all(|y| y.is_finite()) && samples[0] == samples[1] && samples[0] == samples[2]);
    let mut dx = y;
    compiled.backward(view, &params, &[], &kept, view, Some(ViewMut { data: &mut dx, strides }));
    let samples: Vec<&[f32]> = dx.chunks(strides[0]).collect();
    assert!(samples[0].iter().all(|dx| dx.is_finite()) && samples[0] == samples[1] && samples[0] == samples[2]);
}

fn built_in(name: &str) -> Dag {
    let path = format!("{}/../../grammar/layers/{name}.nact", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a built-in layer");
    compile(&Source::new(path, &text), &Overrides::default()).layers.remove(0).layer.dag
}

fn built_in_layers() -> Vec<Dag> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    let files = std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers");
    let layers = files.flat_map(|file| {
        let path = file.expect("a folder can be listed").path();
        let text = std::fs::read_to_string(&path).expect("a layer is a text file");
        compile(&Source::new(path.display().to_string(), &text), &Overrides::default()).layers
    });
    layers.map(|layer| layer.layer.dag).collect()
}

#[derive(Clone)]
struct Case {
    inputs: Inputs,
    dy: Vec<f64>,
}

impl Case {
    fn draw(dag: &Dag, shape: &Shape, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers =
            |len: usize| -> Vec<f64> { (0..len).map(|_| f64::from(rng.random_range(-2.0f32..2.0))).collect() };
        let mut inputs = Inputs::initial(dag, shape.clone(), numbers(shape.elements()));
        inputs.params.iter_mut().for_each(|values| *values = numbers(values.len()));
        inputs.state.iter_mut().for_each(|values| *values = numbers(values.len()).iter().map(|x| x.abs()).collect());
        Self { inputs, dy: numbers(shape.elements()) }
    }

    fn jittered(&self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut inputs = self.inputs.clone();
        let mut jitter = |x: &mut f64| *x *= 1.0 + 1e-6 * rng.random_range(-1.0..1.0);
        inputs.x.iter_mut().for_each(&mut jitter);
        inputs.params.iter_mut().flatten().for_each(&mut jitter);
        let mut dy = self.dy.clone();
        dy.iter_mut().for_each(&mut jitter);
        Self { inputs, dy }
    }

    fn expected(&self, dag: &Dag, mode: Mode) -> Vec<Vec<f64>> {
        let evaluation = evaluate(dag, &self.inputs, mode).expect("the inputs fit");
        let gradients = evaluation.gradients(&self.dy);
        let state = evaluation.state().iter().cloned();
        [evaluation.output(), gradients.x].into_iter().chain(gradients.params).chain(state).collect()
    }

    fn found(
        &self,
        dag: &Dag,
        mode: Mode,
        (memory, lane): (Memory, Lane),
        instructions: Option<Instructions>,
    ) -> Vec<Vec<f64>> {
        let shape = &self.inputs.shape;
        let sizes = Sizes { samples: shape.samples(), channels: shape.channels(), positions: shape.positions() };
        let dims = [sizes.samples, sizes.channels, sizes.positions];
        let compiled = Compiled::with_instructions(dag, mode, sizes, lane, instructions);
        let single = |lists: &[Vec<f64>]| -> Vec<Vec<f32>> {
            lists.iter().map(|list| list.iter().map(|&x| x as f32).collect()).collect()
        };
        let (params, running) = (single(&self.inputs.params), single(&self.inputs.state));
        let params: Vec<&[f32]> = params.iter().map(Vec::as_slice).collect();
        let running: Vec<&[f32]> = running.iter().map(Vec::as_slice).collect();
        let (x, strides) = memory.place(dims, &self.inputs.x);
        let (dy, dy_strides) = CONTIGUOUS.place(dims, &self.dy);
        let x = View { data: &x, strides };
        let dy = View { data: &dy, strides: dy_strides };
        let mut y = vec![f32::NAN; memory.strides(dims).1];
        let mut dx = y.clone();
        let into = Some(ViewMut { data: &mut y, strides });
        let forward = compiled.forward(x, &params, &running, into);
        let into = Some(ViewMut { data: &mut dx, strides });
        let backward = compiled.backward(x, &params, &running, &forward.kept, dy, into);
        let collect = |data: &[f32]| -> Vec<f64> {
            (0..sizes.elements()).map(|index| f64::from(data[offset(dims, strides, index)])).collect()
        };
        let params = backward.params.into_iter().zip(&self.inputs.params);
        let gradients = params.map(|(gradient, values)| gradient.unwrap_or_else(|| vec![0.0; values.len()]));
        let spread = |[samples, channels]: [usize; 2], values: &[f64]| -> Vec<f64> {
            let slot = |index: usize| {
                let (sample, channel) = (index / (dims[1] * dims[2]), index / dims[2] % dims[1]);
                sample * usize::from(samples > 1) * channels + channel * usize::from(channels > 1)
            };
            (0..sizes.elements()).map(|index| f64::from(values[slot(index)] as f32)).collect()
        };
        let y = match (compiled.broadcast_output(), &forward.output) {
            (Some(shape), Some(values)) => spread(shape, values),
            _ => collect(&y),
        };
        let dx = match (compiled.broadcast_input_gradient(), &backward.input) {
            (Some(shape), Some(values)) => spread(shape, values),
            _ if compiled.plan().joint.input_gradient.is_none() => vec![0.0; sizes.elements()],
            _ => collect(&dx),
        };
        let updates = forward.updates.into_iter().zip(&self.inputs.state);
        let state = updates.map(|(new, old)| new.unwrap_or_else(|| old.clone()));
        [y, dx].into_iter().chain(gradients).chain(state).collect()
    }

    fn compare(&self, dag: &Dag, mode: Mode) -> f64 {
        let expected = self.expected(dag, mode);
        let near: Vec<_> = (1..5).map(|seed| self.jittered(seed).expected(dag, mode)).collect();
        let (mut total, mut steady) = (0, 0);
        for (memory, lane) in MEMORIES {
            let found = self.found(dag, mode, (memory, lane), Instructions::detect());
            for (list, (expected, found)) in expected.iter().zip(&found).enumerate() {
                assert_eq!(expected.len(), found.len());
                let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
                for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
                    total += 1;
                    let spread = near.iter().map(|lists| (lists[list][index] - expected).abs()).fold(0.0, f64::max);
                    let calm = expected.is_finite() && expected.abs() < 1e12 && spread < 1e-3 * largest;
                    if !calm || near.iter().any(|lists| !lists[list][index].is_finite()) {
                        continue;
                    }
                    steady += 1;
                    let allowed = 1e-5 * expected.abs() + 2e-6 * largest + 30.0 * spread;
                    assert!(
                        (found - expected).abs() <= allowed,
                        "{memory:?} {lane:?}, list {list} at {index}: {found}, expected {expected}\n{:?}\n{dag:?}",
                        self.inputs.shape
                    );
                }
            }
        }
        f64::from(steady) / f64::from(total.max(1))
    }

    /// Compares native code with the interpreter, of which it differs in the order of sums and the rounding
    /// of products in them only: to 1e-5 of an element, 2e-6 of the largest one and 30 times what changes of
    /// 1e-6 in the inputs make. An element that these make infinite or NaN, or neither, is not compared.
    fn compare_native(&self, dag: &Dag, mode: Mode) -> f64 {
        let (mut total, mut steady) = (0, 0);
        for memory in &MEMORIES[..3] {
            let expected = self.found(dag, mode, *memory, None);
            let near: Vec<_> = (1..5).map(|seed| self.jittered(seed).found(dag, mode, *memory, None)).collect();
            for instructions in instructions() {
                let found = self.found(dag, mode, *memory, Some(instructions));
                for (list, (expected, found)) in expected.iter().zip(&found).enumerate() {
                    let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0, |a: f64, b| a.max(b.abs()));
                    for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
                        total += 1;
                        let near = || near.iter().map(|lists| lists[list][index]);
                        let spread = near().map(|near| (near - expected).abs()).fold(0.0, f64::max);
                        if near()
                            .any(|near| near.is_nan() != expected.is_nan() || near.is_finite() != expected.is_finite())
                            || expected.is_finite() && spread > 1e-3 * largest
                        {
                            continue;
                        }
                        steady += 1;
                        let allowed = 1e-5 * expected.abs() + 2e-6 * largest + 30.0 * spread;
                        assert!(
                            found == expected
                                || found.is_nan() && expected.is_nan()
                                || (found - expected).abs() <= allowed,
                            "{instructions:?} {memory:?}, list {list} at {index}: {found}, expected {expected}\n{:?}\n{dag:?}",
                            self.inputs.shape
                        );
                    }
                }
            }
        }
        if total == 0 { 1.0 } else { f64::from(steady) / f64::from(total) }
    }
}
