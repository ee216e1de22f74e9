//! Layers written in Rust code: every form of `layer!`, against the module made at run time.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use normact_burn::NormAct;
use normact_macros::layer;
use normact_syntax::{Overrides, Source, compile};

layer! {
    /// EvoNorm-S0.
    /// Liu et al. 2020.
    pub EvoNormS0 { x * sigmoid(v * x) / std[group](x) * gamma + beta }
}

layer! {
    Scaled(input, groups = 3, power = .5) {
        param alpha: scalar = 0.25

        // Comments are Rust's; a line that begins with a minus sign is a new expression.
        let z = alpha * input - mean[group](input)
        -z * power + gamma
    }
}

layer! {
    pub(crate)
    fn twice(x) = 2 * x

    layer twice_norm(x, running = unbiased) {
        twice(x) / std[batch](x)
    }
}

layer!(pub "layers/two.nact");
layer!(Renamed = "layers/two.nact:swish_norm");

/// A formula whose tokens come from another macro, so that their places have no order.
macro_rules! gated {
    ($name:ident, $($gate:tt)*) => {
        layer! { $name { x * $($gate)*(v * x) + beta } }
    };
}

gated!(Gated, tanh);

/// The module of a text.
fn expected(text: &str, device: &Device) -> NormAct {
    let analysis = compile(&Source::new("text", text), &Overrides::none());
    assert!(!analysis.has_errors(), "{:?}", analysis.diagnostics);
    NormAct::new(&analysis.layers[0].layer, 6, device).expect("the layer fits")
}

fn input(device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..2 * 6 * 3 * 2).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
    Tensor::from_data(TensorData::new(values, [2, 6, 3, 2]), device)
}

macro_rules! agree {
    ($Config:ident, $text:expr) => {
        let device = Device::flex().autodiff();
        let found = $Config::new(6).init(&device).forward(input(&device)).into_data();
        let expected = expected($text, &device).forward(input(&device)).into_data();
        found.assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::absolute(1e-6));
    };
}

#[test]
fn every_form_means_what_the_text_means() {
    let params = "param v = 1  param gamma = 1  param beta = 0";
    agree!(EvoNormS0Config, &format!("layer a(x) {{ {params}  x * sigmoid(v * x) / std[group](x) * gamma + beta }}"));
    agree!(
        ScaledConfig,
        "layer a(x, groups = 3) { param alpha = 0.25 param gamma = 1 let z = alpha * x - mean[group](x)\n -z * 0.5 + gamma }"
    );
    agree!(TwiceNormConfig, "layer a(x) { 2 * x / std[batch](x) }");
    agree!(SwishNormConfig, "layer a(x) { param v = 1 x * sigmoid(v * x) / rms[group](x) }");
    agree!(RenamedConfig, "layer a(x) { param v = 1 x * sigmoid(v * x) / rms[group](x) }");
    agree!(CentredConfig, "layer a(x) { x - mean[batch](x) }");
    agree!(GatedConfig, "layer a(x) { param v = 1  param beta = 0 x * tanh(v * x) + beta }");
}

#[test]
fn fields_have_the_names_of_the_formula() {
    let layer = EvoNormS0Config::new(4).init(&Device::flex());
    let values = |param: &Param<Tensor<1>>| param.val().into_data().try_to_vec_as::<f32>().expect("floats");
    assert_eq!([&layer.v, &layer.gamma, &layer.beta].map(values), [[1.0; 4], [1.0; 4], [0.0; 4]]);
    assert_eq!(layer.groups, 4);
}
