//! The emitted Rust of every built-in layer, compiled here and compared with `NormAct` on the CPU.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use normact::{built_in_module, upstream};

const CHANNELS: usize = 8;

/// The golden files of `normact-emit`, as a program would have them.
#[allow(unreachable_pub)]
#[path = "../../../crates/normact-emit/tests/golden/rust"]
mod golden {
    pub(super) mod affine;
    pub(super) mod bn_relu;
    pub(super) mod bn_silu;
    pub(super) mod derf;
    pub(super) mod dyt;
    pub(super) mod evonorm_b0;
    pub(super) mod evonorm_b1;
    pub(super) mod evonorm_b2;
    pub(super) mod evonorm_s0;
    pub(super) mod evonorm_s1;
    pub(super) mod evonorm_s2;
    pub(super) mod frn_tlu;
    pub(super) mod gn_relu;
    pub(super) mod gn_silu;
    pub(super) mod in_relu;
    pub(super) mod ln_gelu;
    pub(super) mod ln_gelu_tanh;
    pub(super) mod ln_relu;
    pub(super) mod rms_norm;
}

/// One test for each layer: outputs and gradients of two training steps, then of the evaluation that
/// reads the running averages they left.
macro_rules! compare {
    ($($name:ident $config:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let device = Device::flex().autodiff();
                let emitted = golden::$name::$config::new(CHANNELS).init(&device);
                let layer = built_in_module(stringify!($name), CHANNELS, &device).expect("a built-in layer");
                for step in [0.7, 1.9] {
                    let (x, dy) = (tensor(step, &device).require_grad(), tensor(step + 0.3, &device));
                    let (found, expected) = (emitted.forward(x.clone()), layer.forward(x.clone()));
                    assert_close(found.clone(), expected.clone());
                    let [found, expected] = [found, expected]
                        .map(|y| x.grad(&upstream(y, dy.clone()).backward()).expect("x has a gradient"));
                    assert_close(found, expected);
                }
                let x = tensor(2.3, &Device::flex());
                assert_close(emitted.valid().forward(x.clone()), layer.valid().forward(x));
            }
        )*
    };
}

compare! {
    affine AffineConfig,
    bn_relu BnReluConfig,
    bn_silu BnSiluConfig,
    derf DerfConfig,
    dyt DytConfig,
    evonorm_b0 EvonormB0Config,
    evonorm_b1 EvonormB1Config,
    evonorm_b2 EvonormB2Config,
    evonorm_s0 EvonormS0Config,
    evonorm_s1 EvonormS1Config,
    evonorm_s2 EvonormS2Config,
    frn_tlu FrnTluConfig,
    gn_relu GnReluConfig,
    gn_silu GnSiluConfig,
    in_relu InReluConfig,
    ln_gelu LnGeluConfig,
    ln_gelu_tanh LnGeluTanhConfig,
    ln_relu LnReluConfig,
    rms_norm RmsNormConfig,
}

fn tensor(seed: f32, device: &Device) -> Tensor<4> {
    let numbers: Vec<f32> = (0..3 * CHANNELS * 20).map(|i| (i as f32 * seed).sin() * 2.0).collect();
    Tensor::from_data(TensorData::new(numbers, [3, CHANNELS, 4, 5]), device)
}

fn assert_close(found: Tensor<4>, expected: Tensor<4>) {
    found.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::rel_abs(1e-5, 2e-6));
}
