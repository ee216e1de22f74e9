//! Agreement with PyTorch and timm on the vectors they made.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use normact::ir::{Buffers, Inputs, Layer, Mode, Shape, evaluate};

use crate::support::{assert_close, devices, layer, read_tensors, root};

/// The vectors of one layer in one shape.
struct Case {
    name: String,
    layer: Layer,
    dims: Vec<usize>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Case {
    /// Every file, with the layer under the settings of the file's metadata.
    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        let mut paths: Vec<_> =
            std::fs::read_dir(root().join("tests/vectors")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "safetensors")) {
            let bytes = std::fs::read(path).unwrap();
            let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let metadata = metadata.metadata().clone().unwrap();
            let setting = |key: &str, as_setting: &str| metadata.get(key).map(|value| format!("{as_setting}={value}"));
            let settings: Vec<String> =
                [("eps", "eps"), ("groups", "groups"), ("momentum", "momentum"), ("running_var", "running")]
                    .iter()
                    .filter_map(|(key, name)| setting(key, name))
                    .collect();
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            let tensors = read_tensors(path);
            cases.push(Case {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                layer: layer(&metadata["layer"], &settings),
                dims: tensors["step0.x"].0.clone(),
                tensors,
            });
        }
        assert_eq!(cases.len(), 24, "every vector file is compared");
        cases
    }

    fn tensor(&self, name: &str) -> &[f64] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.name)).1
    }

    /// Their name of a parameter.
    fn param(&self, prefix: &str, name: &str) -> &[f64] {
        let theirs = match name {
            "gamma" => "weight",
            "beta" => "bias",
            other => other,
        };
        self.tensor(&format!("{prefix}.{theirs}"))
    }

    fn state(&self, step: usize) -> Vec<Vec<f64>> {
        let buffers = Buffers::of(&self.layer.dag);
        buffers.list().iter().map(|buffer| self.tensor(&format!("state{step}.{}", buffer.name)).to_vec()).collect()
    }

    /// How many tensors of state the file has at the start.
    fn states(&self) -> usize {
        self.tensors.keys().filter(|name| name.starts_with("state0.")).count()
    }
}

/// How closely the evaluator can agree. timm's filter response normalization computes its statistic
/// in f32 whatever the input, so those vectors are only that exact.
fn tolerance(case: &Case) -> f64 {
    if case.layer.name == "frn_tlu" { 5e-7 } else { 1e-9 }
}

/// Every `1 / rms` that can be recovered from the vectors of `frn_tlu` is an f32 number: what f64
/// statistics would give is one for none of them.
#[test]
fn the_frn_vectors_hold_statistics_in_f32() {
    let mut recovered = 0;
    for case in Case::all().iter().filter(|case| case.layer.name == "frn_tlu") {
        let (channels, positions) = (case.dims[1], case.dims[2] * case.dims[3]);
        let (x, y) = (case.tensor("step0.x"), case.tensor("step0.y"));
        for (index, (x, y)) in x.iter().zip(y).enumerate() {
            let channel = index / positions % channels;
            let at = |name: &str| case.param("param", name)[channel];
            // Above the threshold the layer is y = x / rms * gamma + beta; small terms would lose digits.
            let is_linear = y - at("tau") > 1e-3 && (x * at("gamma")).abs() > 0.3;
            if is_linear {
                let inverse_rms = (y - at("beta")) / at("gamma") / x;
                let rounded = f64::from(inverse_rms as f32);
                assert!((inverse_rms / rounded - 1.0).abs() < 1e-13, "{inverse_rms} is no f32 number");
                recovered += 1;
            }
        }
    }
    assert!(recovered > 500, "only {recovered} statistics were recovered");
}

#[test]
fn the_evaluator_agrees_to_1e_9() {
    for case in Case::all() {
        let dag = &case.layer.dag;
        assert_eq!(Buffers::of(dag).list().len(), case.states(), "{}", case.name);
        let shape = Shape::new(&case.dims).unwrap();
        let params: Vec<Vec<f64>> =
            dag.params().iter().map(|param| case.param("param", &param.name).to_vec()).collect();
        let mut state = case.state(0);
        for step in [0, 1] {
            let x = case.tensor(&format!("step{step}.x")).to_vec();
            let inputs = Inputs { shape: shape.clone(), x, params: params.clone(), state };
            let evaluation = evaluate(dag, &inputs, Mode::Training).unwrap();
            let close = |what: &str, expected: &[f64], found: &[f64]| {
                assert_close(&format!("{} step {step} {what}", case.name), expected, found, tolerance(&case));
            };
            close("y", case.tensor(&format!("step{step}.y")), &evaluation.output());
            let gradients = evaluation.gradients(case.tensor(&format!("step{step}.dy")));
            close("dx", case.tensor(&format!("step{step}.dx")), &gradients.x);
            for (param, gradient) in dag.params().iter().zip(&gradients.params) {
                close(&param.name, case.param(&format!("step{step}.grad"), &param.name), gradient);
            }
            for (expected, found) in case.state(step + 1).iter().zip(evaluation.state()) {
                close("state", expected, found);
            }
            state = evaluation.state().to_vec();
        }
        let inputs = Inputs { shape, x: case.tensor("eval.x").to_vec(), params, state };
        let output = evaluate(dag, &inputs, Mode::Evaluation).unwrap().output();
        assert_close(&format!("{} evaluation", case.name), case.tensor("eval.y"), &output, tolerance(&case));
    }
}

#[test]
fn the_module_agrees_to_1e_5_on_every_device() {
    let cases = Case::all();
    for (device_name, device) in devices() {
        for case in &cases {
            module_agrees(case, device_name, &device);
        }
    }
}

fn module_agrees(case: &Case, device_name: &str, device: &Device) {
    let autodiff = device.clone().autodiff();
    let mut module = normact::module_from_layer(&case.layer, case.dims[1], &autodiff).unwrap();
    let params: Vec<String> = module.param_names().map(str::to_owned).collect();
    let buffers: Vec<String> = module.buffer_names().map(str::to_owned).collect();
    for name in &params {
        module.set_values(name, case.param("param", name)).unwrap();
    }
    for name in &buffers {
        module.set_values(name, case.tensor(&format!("state0.{name}"))).unwrap();
    }
    let tensor = |values: &[f64], device: &Device| {
        Tensor::<4>::from_data(TensorData::new(values.to_vec(), case.dims.clone()), (device, burn::tensor::DType::F32))
    };
    let numbers = |tensor: Tensor<4>| tensor.try_to_vec_as::<f64>().unwrap();
    for step in [0, 1] {
        let close = |what: &str, expected: &[f64], found: &[f64]| {
            assert_close(&format!("{} on {device_name} step {step} {what}", case.name), expected, found, 1e-5);
        };
        let x = tensor(case.tensor(&format!("step{step}.x")), &autodiff).require_grad();
        let y = module.forward(x.clone());
        close("y", case.tensor(&format!("step{step}.y")), &numbers(y.clone()));
        let gradients = (y * tensor(case.tensor(&format!("step{step}.dy")), &autodiff)).sum().backward();
        close("dx", case.tensor(&format!("step{step}.dx")), &numbers(x.grad(&gradients).unwrap()));
        for name in &params {
            let gradient = module.gradient(name, &gradients).unwrap();
            close(name, case.param(&format!("step{step}.grad"), name), &gradient);
        }
        for name in &buffers {
            close(name, case.tensor(&format!("state{}.{name}", step + 1)), &module.values(name).unwrap());
        }
    }
    let module = burn::module::Module::valid(&module);
    let y = numbers(module.forward(tensor(case.tensor("eval.x"), device)));
    assert_close(&format!("{} on {device_name} evaluation", case.name), case.tensor("eval.y"), &y, 1e-5);
}
