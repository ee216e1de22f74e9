//! Random layers of the search space, fused against operation by operation, one by one:
//! `cargo bench --bench graphs -- [GRAPHS] [cpu | wgpu]`.
//!
//! A step is forward and backward to the gradients of the input and of every parameter. The two ways take
//! turns, and each figure is the median of several steps. Where the two are within a fifth of each other they are
//! timed again, ten times as long, whichever seems faster.

use std::time::Instant;

use burn::tensor::{Device, DeviceKind, Tensor, TensorData};
use normact_burn::{NormAct, Path, upstream};
use normact_ir::random::Space;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SHAPES: [[usize; 4]; 2] = [[8, 16, 8, 8], [16, 32, 16, 16]];
const FIRST_SEED: u64 = 3000;
const TURNS: usize = 9;

fn main() {
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1000);
    let device = if std::env::args().any(|arg| arg == "wgpu") {
        let options = Device::wgpu_options().device_kind(DeviceKind::DefaultDevice);
        options.init().expect("an adapter; Mesa's Vulkan drivers have one that needs no GPU")
    } else {
        Device::flex()
    };
    let device = device.autodiff();
    for dims in SHAPES {
        let mut ratios = vec![];
        let mut not_fused = 0;
        let mut slower = vec![];
        for seed in FIRST_SEED..FIRST_SEED + count {
            let layer = Space::evonorm().draw(&mut ChaCha8Rng::seed_from_u64(seed));
            let fused = NormAct::new(&layer, dims[1], &device).expect("the layer fits");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut tensor = || -> Tensor<4> {
                let numbers: Vec<f32> = (0..dims.iter().product()).map(|_| rng.random_range(-2.0f32..2.0)).collect();
                Tensor::from_data(TensorData::new(numbers, dims), &device)
            };
            let (x, dy) = (tensor(), tensor());
            if fused.path(&x) != Path::Fused {
                not_fused += 1;
                continue;
            }
            let op_by_op = fused.clone().op_by_op();
            let mut times = compare(&fused, &op_by_op, &x, &dy, TURNS);
            if (0.8..1.25).contains(&(times[1] / times[0])) {
                times = compare(&fused, &op_by_op, &x, &dy, 10 * TURNS);
            }
            let ratio = times[1] / times[0];
            if ratio < 1.0 {
                slower.push((seed, ratio, times));
            }
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share) as usize];
        println!(
            "{dims:?}, seeds {FIRST_SEED} to {}: {} fused, {not_fused} not; times faster than operation by operation: \
             least {:.2}, 1 % {:.2}, 10 % {:.2}, median {:.2}, most {:.1}",
            FIRST_SEED + count - 1,
            ratios.len(),
            at(0.0),
            at(0.01),
            at(0.1),
            at(0.5),
            at(1.0),
        );
        for (seed, ratio, [fused, op_by_op]) in &slower {
            let layer = Space::evonorm().draw(&mut ChaCha8Rng::seed_from_u64(*seed));
            let formula = normact_syntax::print(&layer).split_whitespace().collect::<Vec<_>>().join(" ");
            println!(
                "  seed {seed}, {ratio:.2} times as fast: {:.3} for {:.3} ms, {formula}",
                fused * 1e3,
                op_by_op * 1e3
            );
        }
    }
}

/// The median times of both, in seconds.
fn compare(fused: &NormAct, op_by_op: &NormAct, x: &Tensor<4>, dy: &Tensor<4>, turns: usize) -> [f64; 2] {
    let mut times = [vec![], vec![]];
    for turn in 0..turns + 2 {
        for (module, times) in [fused, op_by_op].into_iter().zip(&mut times) {
            let time = step(module, x, dy);
            // The first steps plan, allocate and bring data into the caches.
            if turn >= 2 {
                times.push(time);
            }
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn step(module: &NormAct, x: &Tensor<4>, dy: &Tensor<4>) -> f64 {
    let x = x.clone().detach().require_grad();
    let wait = || x.device().sync().expect("the device works");
    wait();
    let start = Instant::now();
    let y = module.forward(x.clone());
    let gradients = upstream(y, dy.clone()).backward();
    wait();
    let time = start.elapsed().as_secs_f64();
    drop(gradients);
    time
}
