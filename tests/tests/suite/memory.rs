//! What a layer keeps in memory between forward and backward, measured.

use burn::tensor::{Device, Tensor, TensorData};
use normact::{module, upstream};
use normact_burn::result_bytes;

use crate::support::alone;

/// A parameter that is not read makes no difference.
const LAYER: &str = "layer norm(x, eps = 1e-5) {
    param gamma = 1
    param _idle = 1
    (x - mean[batch](x)) / std[batch](x) * gamma
}";

#[test]
fn gradient_checkpointing_frees_what_a_layer_gives() {
    let text = alone("memory::the_results_that_are_alive", |_| {});
    let line = text.lines().find_map(|line| line.strip_prefix("alive ")).expect("a line of counts");
    // The layer's result is kept for the product behind it, unless it is computed again.
    assert_eq!(line, "plain 1 checkpointing 0");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn the_results_that_are_alive() {
    let alive = |device: Device| {
        let module = module(LAYER, 16, &device).expect("the layer fits");
        let dims = [8, 16, 32, 32];
        let numbers = |seed: f32| -> Vec<f32> { (0..8 * 16 * 32 * 32).map(|i| (i as f32 * seed).sin()).collect() };
        let tensor = |seed| Tensor::<4>::from_data(TensorData::new(numbers(seed), dims), &device);
        let (x, dy) = (tensor(0.7).require_grad(), tensor(1.3));
        let before = result_bytes().0;
        let y = module.forward(x.clone());
        let product = y.clone() * y;
        let alive = (result_bytes().0 - before) / (4 * 8 * 16 * 32 * 32);
        let gradients = upstream(product, dy).backward();
        let gradient = x.grad(&gradients).expect("x has a gradient").into_data();
        let params = ["gamma", "_idle"].map(|name| module.gradient(name, &gradients).expect("a parameter"));
        (alive, gradient, params)
    };
    let (plain, dx, params) = alive(Device::flex().autodiff());
    let (checkpointing, dx_again, params_again) = alive(Device::flex().autodiff().gradient_checkpointing());
    assert_eq!((dx, params), (dx_again, params_again));
    println!("alive plain {plain} checkpointing {checkpointing}");
}
