//! Built-in layers at sizes that networks have: several blocks along every axis, with elements left over.

use burn::tensor::{Device, Tensor, TensorData};
use normact::ir::{Inputs, Mode, Shape, evaluate};
use normact::{NormAct, module_from_layer, upstream};

use crate::support::{devices, layer};

/// The second has no width of a vector among its divisors.
const SHAPES: [[usize; 4]; 3] = [[8, 16, 8, 8], [3, 24, 33, 31], [6, 40, 16, 20]];

#[test]
fn built_in_layers_agree_with_the_evaluator() {
    let mut worst: (f64, String) = (0.0, String::new());
    for name in normact::built_in::names() {
        let layer = layer(name, &[]);
        for dims in SHAPES {
            let numbers = |seed: f64| -> Vec<f64> {
                (0..dims.iter().product()).map(|i: usize| f64::from((i as f64 * seed).sin() as f32 * 1.5)).collect()
            };
            let (x, dy) = (numbers(0.7), numbers(1.3));
            let inputs = Inputs::initial(&layer.dag, Shape::new(&dims).unwrap(), x.clone());
            let evaluation = evaluate(&layer.dag, &inputs, Mode::Training).unwrap();
            let gradients = evaluation.gradients(&dy);
            let expected = [vec![evaluation.output(), gradients.x], gradients.params].concat();
            for (device_name, device) in devices() {
                let module = module_from_layer(&layer, dims[1], &device.clone().autodiff()).unwrap();
                let mut ways = vec![("", module.clone())];
                if device_name == "wgpu" {
                    ways.push((", vectors as on a GPU", module.clone().as_on_a_gpu(4)));
                    ways.push((", elements as on a GPU", module.as_on_a_gpu(1)));
                }
                for (way, module) in ways {
                    let found = step(&module, dims, &x, &dy, &device);
                    for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        // A sum of many terms that cancel is only as exact as they are large.
                        let terms = dims.iter().product::<usize>() as f64 / expected.len() as f64;
                        let largest = expected.iter().fold(terms.sqrt(), |largest, x| largest.max(x.abs()));
                        let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest);
                        let off = off.fold(0.0, |worst: f64, off| if off <= worst { worst } else { off });
                        let place = format!("part {part} of {name} at {dims:?} on {device_name}{way}");
                        assert!(off < 5e-6, "{place} is off by {off:e}");
                        if off > worst.0 {
                            worst = (off, place);
                        }
                    }
                }
            }
        }
    }
    println!("largest difference {:.1e}: {}", worst.0, worst.1);
}

/// The output, the gradient of `x`, and that of each parameter.
fn step(module: &NormAct, dims: [usize; 4], x: &[f64], dy: &[f64], device: &Device) -> Vec<Vec<f64>> {
    let device = device.clone().autodiff();
    let tensor = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, dims), &device)
    };
    let x = tensor(x).require_grad();
    let y = module.forward(x.clone());
    let gradients = upstream(y.clone(), tensor(dy)).backward();
    let numbers = |tensor: Tensor<4>| tensor.try_to_vec_as::<f64>().unwrap();
    let dx = x.grad(&gradients).map_or_else(|| vec![0.0; dy.len()], numbers);
    let params = module.param_names().map(|name| module.gradient(name, &gradients).unwrap());
    [numbers(y), dx].into_iter().chain(params).collect()
}
