//! Inputs that break careless statistics.

use std::num::NonZeroU32;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use normact_burn::NormAct;
use normact_ir::{Extent, Groups, IndexSet, Inputs, Layer, Mode, Moment, Prim, Shape, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::devices::devices;
use crate::layers::{affine, evonorm_b0, layer, moment, normalized, param, scalar};
use crate::reference::{self, Subject, numbers};
use crate::ways::{Way, ways};

const GROUPS_OF_TWO: IndexSet = IndexSet::Group(Groups::Exactly(NonZeroU32::new(2).unwrap()));

const INDEX_SETS: [IndexSet; 6] =
    [IndexSet::Batch, IndexSet::Instance, IndexSet::Layer, GROUPS_OF_TWO, IndexSet::Channel, IndexSet::All];

#[test]
fn a_large_mean_does_not_drown_the_variance() {
    for way in ways() {
        for over in INDEX_SETS {
            for dims in [[4, 8, 32, 32], [2, 64, 14, 14], [1024, 16, 1, 1]] {
                let var = layer("var", |builder| {
                    let x = builder.input();
                    moment(builder, Moment::Var, over, 0.0, x)
                });
                let inputs = inputs(&var, &dims, random(&dims, 1e4, 1));
                let expected = evaluate(&var.dag, &inputs, Mode::Training).expect("the inputs fit").output();
                let found =
                    numbers(way.module(&var, dims[1]).forward(tensor(dims, &inputs.x, &way.device, FloatDType::F32)));
                for (found, expected) in found.iter().zip(&expected) {
                    // Over two channels the variance of a pair can be anything down to 0.
                    let allowed = 1e-3 * expected.max(1e-2);
                    assert!(
                        (found - expected).abs() <= allowed,
                        "{over} of {dims:?} on {way:?}: {found}, expected {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn variances_at_both_ends_of_the_format_are_normalized_away() {
    let dims = [3, 8, 9, 7];
    // On the CPU, statistics are f64: even squares beyond the largest f32 do no harm.
    let everywhere = ways().into_iter().flat_map(|way| [1e15, 1e-15].map(|scale| (way.clone(), scale)));
    let on_the_cpu = [1e30, 1e-18].map(|scale| (Way::by_default(Device::flex()), scale));
    for ((way, scale), over) in
        everywhere.chain(on_the_cpu).flat_map(|case| INDEX_SETS.map(|over| (case.clone(), over)))
    {
        let x: Vec<f64> = random(&dims, 0.0, 7).iter().map(|x| f64::from((x * scale) as f32)).collect();
        let norm = norm(over, 0.0);
        let inputs = inputs(&norm, &dims, x.clone());
        let dy = random(&dims, 0.0, 8);
        let expected = reference::expected(&norm.dag, &inputs, Mode::Training, &dy);
        let found = Subject::new(&norm, &inputs, &way, FloatDType::F32).pass(&x, Mode::Training, &dy);
        let largest = expected.dx.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let dx: Vec<f64> =
            found.dx.iter().zip(&expected.dx).map(|(found, expected)| (found - expected) / largest).collect();
        let tolerance = if way.is_fused() { 1e-5 } else { 1e-4 };
        assert!(difference(&found.y, &expected.y) < tolerance, "{over} at {scale:e}, {way:?}: y");
        // Gradients of 1e30-fold inputs are below the smallest normal f32, and operation by operation so are
        // intermediate ones.
        if scale < 1e30 && way.is_fused() {
            assert!(dx.iter().all(|difference| difference.abs() < 1e-5), "{over} at {scale:e}, {way:?}: dx");
        }
        for (found, expected) in found.params.iter().zip(&expected.params) {
            let difference = difference(found, expected);
            assert!(difference < tolerance, "{over} at {scale:e}, {way:?}: gradients of parameters");
        }
    }
}

/// The variance of two numbers as small as these would do: it is 1e60, f32 ends at 3.4e38, and the language of WebGPU's
/// kernels has no f64.
#[test]
fn a_variance_beyond_the_largest_f32_is_infinite_on_a_gpu() {
    let layer = norm(IndexSet::Instance, 0.0);
    let dims = [1, 1, 2, 1];
    let x = vec![-1e30, 1e30];
    let inputs = inputs(&layer, &dims, x.clone());
    let y = |device| {
        Subject::new(&layer, &inputs, &Way::by_default(device), FloatDType::F32).pass(&x, Mode::Training, &[1.0; 2]).y
    };
    let [cpu, wgpu] = devices();
    assert!(difference(&y(cpu), &[-1.0, 1.0]) < 1e-6);
    assert_eq!(y(wgpu), [0.0, 0.0]);
}

#[test]
fn what_is_subtracted_from_a_large_mean_is_not_its_rounding() {
    for way in ways().into_iter().filter(Way::is_fused) {
        for over in INDEX_SETS {
            for dims in [&[4, 8, 32, 32][..], &[2, 64, 14, 14], &[5, 6, 7, 3], &[1024, 16]] {
                let norm = norm(over, 1e-5);
                agrees(&norm, dims, &random(dims, 1e4, 9), &way, FloatDType::F32, 2e-5);
                // All the same: a statistic that is off by its last digit would be divided by 0.003.
                agrees(
                    &norm,
                    dims,
                    &vec![f64::from(10_000.033_f32); dims.iter().product()],
                    &way,
                    FloatDType::F32,
                    2e-5,
                );
            }
        }
    }
}

#[test]
fn a_bad_sample_leaves_the_others_alone() {
    let dims = [3, 4, 5, 1];
    let per_sample = 4 * 5;
    let good = random(&dims, 0.0, 2);
    for (way, bad) in ways().iter().flat_map(|way| [(way, f64::NAN), (way, f64::INFINITY)]) {
        for over in [IndexSet::Instance, IndexSet::Layer, GROUPS_OF_TWO, IndexSet::Channel] {
            let norm = norm(over, 1e-5);
            let subject = Subject::new(&norm, &inputs(&norm, &dims, vec![]), way, FloatDType::F32);
            let outcome = |x: &[f64]| subject.pass(x, Mode::Training, &good);
            let mut x = good.clone();
            x[3] = bad;
            let (expected, found) = (outcome(&good), outcome(&x));
            assert!(found.y[..per_sample].iter().any(|y| y.is_nan()), "{over} on {way:?}");
            assert_eq!(found.y[per_sample..], expected.y[per_sample..], "{over} on {way:?}");
            assert_eq!(found.dx[per_sample..], expected.dx[per_sample..], "{over} on {way:?}");
        }
    }
}

#[test]
fn the_order_in_memory_makes_no_difference_but_rounding() {
    let layer = evonorm_b0();
    for way in ways() {
        let (module, device) = (way.module(&layer, 6), &way.device);
        // Channels last in memory, and the same numbers in the usual order.
        let last = tensor([2, 5, 3, 6], &random(&[2, 5, 3, 6], 1.0, 3), device, FloatDType::F32).permute([0, 3, 1, 2]);
        let usual = Tensor::<4>::from_data(last.clone().into_data(), &device.clone().autodiff());
        let (last, usual) = (numbers(module.forward(last)), numbers(module.forward(usual)));
        for (index, (last, usual)) in last.iter().zip(&usual).enumerate() {
            assert!((last - usual).abs() < 1e-6, "{way:?}: {last} and {usual} at {index}");
        }
    }
}

#[test]
fn half_precision_is_computed_in_f32() {
    let dims = [4, 8, 9, 7];
    for way in ways() {
        for dtype in [FloatDType::F16, FloatDType::BF16].into_iter().filter(|&dtype| way.device.supports_dtype(dtype)) {
            // With the mean 1000 the sums of squares are far beyond the largest f16.
            let rounding = if dtype == FloatDType::F16 { 1e-3 } else { 8e-3 };
            for over in INDEX_SETS {
                let x = tensor(dims, &random(&dims, 1000.0, 4), &way.device, dtype);
                agrees(&norm(over, 1e-5), &dims, &numbers(x.clone()), &way, dtype, 2.0 * rounding);
                assert_eq!(way.module(&evonorm_b0(), 8).forward(x.clone()).dtype(), x.dtype());
            }
        }
    }
    assert!(ways().iter().all(|way| way.device.supports_dtype(FloatDType::F16)));
}

#[test]
fn single_elements_are_statistics_too() {
    for way in ways() {
        for dims in [&[1, 6][..], &[3, 6], &[1, 6, 1, 1], &[3, 6, 1], &[1, 6, 4], &[1, 2, 1, 1, 1]] {
            let x = random(dims, 0.0, 5);
            for over in INDEX_SETS {
                agrees(&norm(over, 1e-3), dims, &x, &way, FloatDType::F32, 1e-5);
            }
            agrees(&evonorm_b0(), dims, &x, &way, FloatDType::F32, 1e-5);
        }
    }
}

#[test]
fn a_root_of_zero_has_derivative_zero() {
    let dims = [2, 4, 3];
    for way in ways() {
        for (over, kind) in INDEX_SETS.into_iter().flat_map(|over| [(over, Moment::Std), (over, Moment::Rms)]) {
            let root = layer("root", |builder| {
                let x = builder.input();
                let root = moment(builder, kind, over, 0.0, x);
                let sum = builder.binary(Prim::Add, x, root);
                affine(builder, sum)
            });
            let x = if kind == Moment::Std { vec![3.0; 24] } else { vec![0.0; 24] };
            let subject = Subject::new(&root, &inputs(&root, &dims, vec![]), &way, FloatDType::F32);
            let found = subject.pass(&x, Mode::Training, &[1.0; 24]);
            assert_eq!(found.dx, [1.0; 24], "{} over {over} on {way:?}", kind.name());
        }
    }
}

#[test]
fn a_result_that_does_not_vary_is_repeated() {
    for way in ways() {
        for over in INDEX_SETS {
            let mean = layer("mean", |builder| {
                let x = builder.input();
                moment(builder, Moment::Mean, over, 0.0, x)
            });
            for dims in [&[3, 4][..], &[2, 6, 5], &[2, 4, 3, 2], &[2, 4, 1, 3, 2]] {
                agrees(&mean, dims, &random(dims, 0.0, 6), &way, FloatDType::F32, 1e-6);
            }
        }
    }
}

/// Sums along several axes in one pass over blocks that share channels, and a sum beside a mean of the same.
#[test]
fn sums_of_several_shapes_agree_at_sizes_that_networks_have() {
    let swish = layer("swish", |builder| {
        let x = builder.input();
        let scaled = affine(builder, x);
        let slope = param(builder, "slope", Extent::Scalar, 0.7);
        let steep = builder.binary(Prim::Mul, slope, scaled);
        let gate = builder.unary(Prim::Sigmoid, steep);
        builder.binary(Prim::Mul, scaled, gate)
    });
    let centered = layer("centered", |builder| {
        let x = builder.input();
        let mean = moment(builder, Moment::Mean, IndexSet::Batch, 0.0, x);
        let minus = builder.unary(Prim::Neg, mean);
        let difference = builder.binary(Prim::Add, x, minus);
        affine(builder, difference)
    });
    let shifted = layer("shifted", |builder| {
        let x = builder.input();
        let mean = moment(builder, Moment::Mean, IndexSet::Batch, 0.0, x);
        let minus = builder.unary(Prim::Neg, mean);
        let difference = builder.binary(Prim::Add, x, minus);
        let beta = param(builder, "beta", Extent::PerChannel, 0.1);
        builder.binary(Prim::Add, difference, beta)
    });
    for way in ways() {
        for layer in [&swish, &centered, &shifted] {
            for dims in [&[32, 40, 3, 3][..], &[96, 48], &[4, 16, 8, 8], &[40, 4, 5]] {
                agrees(layer, dims, &random(dims, 0.0, 6), &way, FloatDType::F32, 5e-6);
            }
        }
    }
}

/// As in any graph: what is not read gets no gradient, and need not be computed for every element.
#[test]
fn a_result_that_does_not_depend_on_the_input_leaves_it_without_a_gradient() {
    let unread = layer("unread", |builder| {
        let gamma = param(builder, "gamma", Extent::PerChannel, 1.5);
        let root = moment(builder, Moment::Rms, IndexSet::Batch, 1e-5, gamma);
        builder.binary(Prim::Mul, gamma, root)
    });
    for way in ways() {
        for dims in [&[3, 4][..], &[2, 6, 5], &[2, 4, 1, 3, 2]] {
            agrees(&unread, dims, &random(dims, 0.0, 6), &way, FloatDType::F32, 1e-6);
        }
        let device = way.device.clone().autodiff();
        let x = Tensor::<3>::ones([2, 6, 5], &device).require_grad();
        let y = way.module(&unread, 6).train().forward(x.clone());
        assert_eq!(y.dims(), [2, 6, 5]);
        assert!(x.grad(&y.sum().backward()).is_none(), "{way:?}");
    }
}

/// A frozen layer reads the running average of a mean over the batch, not its input.
#[test]
fn an_input_that_is_not_read_in_evaluation_gets_no_gradient_there() {
    let average = layer("average", |builder| {
        let x = builder.input();
        moment(builder, Moment::Mean, IndexSet::Batch, 0.0, x)
    });
    for way in ways() {
        let device = way.device.clone().autodiff();
        let x = Tensor::<3>::ones([2, 6, 5], &device).require_grad();
        let other = Tensor::<3>::ones([2, 6, 5], &device).require_grad();
        let gradient = |module: NormAct| {
            let y = module.forward(x.clone());
            x.grad(&(y * other.clone()).sum().backward())
        };
        assert!(gradient(way.module(&average, 6).train()).is_some(), "{way:?}");
        assert!(gradient(way.module(&average, 6).train().freeze()).is_none(), "{way:?}");
    }
}

/// The same of parameters: an optimizer leaves them alone, with weight decay too.
#[test]
fn a_parameter_that_is_not_read_gets_no_gradient() {
    let partly_read = layer("partly_read", |builder| {
        let gamma = param(builder, "gamma", Extent::PerChannel, 1.5);
        param(builder, "unread", Extent::PerChannel, 1.0);
        let idle = param(builder, "idle", Extent::Scalar, 1.0);
        let zero = builder.constant(scalar(0.0));
        let nothing = builder.binary(Prim::Mul, idle, zero);
        let x = builder.input();
        let product = builder.binary(Prim::Mul, x, gamma);
        builder.binary(Prim::Add, product, nothing)
    });
    for way in ways() {
        let device = way.device.clone().autodiff();
        let module = way.module(&partly_read, 6).train();
        let y = module.forward(Tensor::<3>::ones([2, 6, 5], &device));
        let gradients = y.sum().backward();
        assert_eq!(module.gradient("gamma", &gradients).unwrap(), [10.0; 6], "{way:?}");
        assert_eq!(module.gradient("unread", &gradients).unwrap(), [0.0; 6], "{way:?}");
        let gradients = GradientsParams::from_grads(gradients, &module);
        assert_eq!(gradients.len(), 2, "{way:?}: those of `gamma` and `idle`");
    }
}

/// Compares a training pass with the evaluator.
fn agrees(layer: &Layer, dims: &[usize], x: &[f64], way: &Way, dtype: FloatDType, tolerance: f64) {
    let dy = random(dims, 0.0, 99);
    let inputs = inputs(layer, dims, x.to_vec());
    let expected = reference::expected(&layer.dag, &inputs, Mode::Training, &dy);
    let found = Subject::new(layer, &inputs, way, dtype).pass(x, Mode::Training, &dy);
    for ((name, found), (_, expected)) in found.lists().zip(expected.lists()) {
        let difference = difference(found, expected);
        assert!(difference <= tolerance, "{name} of {} at {dims:?} on {way:?} differs by {difference:e}", layer.name);
    }
}

/// The largest difference, relative to the largest number expected or 1; NaN where one is NaN.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs() / largest);
    differences.fold(0.0, |worst, next| if next <= worst { worst } else { next })
}

/// `(x - mean(x)) / std(x) * gamma + beta`
fn norm(over: IndexSet, eps: f64) -> Layer {
    layer("norm", |builder| {
        let x = builder.input();
        let normalized = normalized(builder, over, eps, x);
        affine(builder, normalized)
    })
}

fn inputs(layer: &Layer, dims: &[usize], x: Vec<f64>) -> Inputs {
    Inputs::initial(&layer.dag, Shape::new(dims).expect("the shapes of these tests are valid"), x)
}

fn tensor<const D: usize>(dims: [usize; D], values: &[f64], device: &Device, dtype: FloatDType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), (&device.clone().autodiff(), dtype.into()))
}

/// Numbers of roughly the normal distribution with variance 1, exact in f32.
fn random(dims: &[usize], mean: f64, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut number = || mean + (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    (0..dims.iter().product()).map(|_| f64::from(number() as f32)).collect()
}
