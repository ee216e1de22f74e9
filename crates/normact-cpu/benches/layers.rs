//! Fused layers against the time a copy of the same tensor takes, without Burn around them:
//! `cargo bench -p normact-cpu --bench layers -- [channels-last] [LAYER | N,C,H,W]...`.
//!
//! The ideal is the number of full-size reads and writes of the plan, each at the speed of a read or
//! write of a copy by all cores between buffers that exist already.

use std::hint::black_box;
use std::time::Instant;

use normact_cpu::{Compiled, Lane, View, ViewMut};
use normact_ir::{Inputs, Mode, Shape};
use normact_plan::Sizes;
use normact_syntax::{Overrides, Source, compile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// How many runs are timed at least, and for how many milliseconds.
const RUNS: usize = 15;
const LONG: f64 = 50.0;

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_channels_last = wanted.iter().any(|arg| arg == "channels-last");
    wanted.retain(|arg| arg != "channels-last");
    let lane = if is_channels_last { Lane::Channels } else { Lane::Positions };
    let dims = |text: &String| -> Option<[usize; 4]> {
        let sizes: Option<Vec<usize>> = text.split(',').map(|size| size.parse().ok()).collect();
        sizes?.try_into().ok()
    };
    let mut shapes: Vec<[usize; 4]> = wanted.iter().filter_map(dims).collect();
    let mut names: Vec<&str> = wanted.iter().filter(|text| dims(text).is_none()).map(String::as_str).collect();
    if shapes.is_empty() {
        shapes = vec![[32, 128, 56, 56], [32, 64, 32, 32], [8, 16, 8, 8]];
    }
    if names.is_empty() {
        names = vec!["evonorm_s0", "evonorm_b0", "bn_relu", "gn_silu"];
    }
    for dims in shapes {
        let shape = Shape::new(&dims).expect("four axes");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut numbers = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-2.0f32..2.0)).collect() };
        let (x, dy) = (numbers(shape.elements()), numbers(shape.elements()));
        let (mut y, mut dx) = (vec![1.0; x.len()], vec![1.0; x.len()]);
        let [copy, _] = times(|| {
            let chunk = x.len().div_ceil(16);
            y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| y.copy_from_slice(x));
        });
        println!("{shape}: copy {copy:.3} ms");
        for name in &names {
            let path = format!("{}/../../grammar/layers/{name}.nact", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).expect("a built-in layer");
            let layer = compile(&Source::new(path, &text), &Overrides::default()).layers.remove(0).layer;
            let sizes = Sizes { samples: dims[0], channels: dims[1], positions: dims[2] * dims[3] };
            let inputs = Inputs::initial(&layer.dag, shape.clone(), vec![]);
            let params: Vec<Vec<f32>> =
                inputs.params.iter().map(|values| values.iter().map(|&x| x as f32).collect()).collect();
            let running: Vec<Vec<f32>> =
                inputs.state.iter().map(|values| values.iter().map(|&x| x as f32).collect()).collect();
            let running: Vec<&[f32]> = running.iter().map(Vec::as_slice).collect();
            let params: Vec<&[f32]> = params.iter().map(Vec::as_slice).collect();
            let start = Instant::now();
            let compiled = Compiled::new(&layer.dag, Mode::Training, sizes, lane);
            let planning = start.elapsed().as_secs_f64() * 1e3;
            let Sizes { channels, positions, .. } = sizes;
            let strides = match lane {
                Lane::Positions => [channels * positions, positions, 1],
                Lane::Channels => [channels * positions, 1, channels],
            };
            let mut kept = vec![];
            let [forward, fastest_forward] = times(|| {
                let view = View { data: &x, strides };
                kept = compiled.forward(view, &params, &running, Some(ViewMut { data: &mut y, strides })).kept;
            });
            let [backward, fastest_backward] = times(|| {
                let (x, dy) = (View { data: &x, strides }, View { data: &dy, strides });
                let into = Some(ViewMut { data: &mut dx, strides });
                black_box(compiled.backward(x, &params, &running, &kept, dy, into));
            });
            let [f, b] = compiled.plan().cached_traffic();
            let ratio = |time: f64, passes: usize| time / (copy / 2.0 * passes as f64);
            println!(
                "  {name:12} planned in {planning:5.2} ms, forward {forward:8.4} ms ({:.2} x {f} passes), \
                 backward {backward:8.4} ms ({:.2} x {b}), both {:.2}; fastest {fastest_forward:.4} + \
                 {fastest_backward:.4} ms",
                ratio(forward, f),
                ratio(backward, b),
                ratio(forward + backward, f + b),
            );
        }
    }
}

/// The median of the times in milliseconds, and the shortest, which other work on the machine changes less.
fn times(mut run: impl FnMut()) -> [f64; 2] {
    let mut times: Vec<f64> = vec![];
    let begin = Instant::now();
    while times.len() < RUNS || begin.elapsed().as_secs_f64() * 1e3 < LONG {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0]]
}
