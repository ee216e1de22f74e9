//! Layers that go out to other programs and come in from them, with their weights.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{DType, Device, Tensor, TensorData};
use normact::ir::Layer;

use crate::support::{assert_close, layer, read_tensors, root, run, write_tensors};

/// The place in the trained network of the layer that is deployed.
const PREFIX: &str = "blocks.0.norm_act2";

#[test]
fn a_trained_layer_computes_the_same_in_every_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let trained = path("run");
    let (code, _, messages) =
        run(&["train", "evonorm_b0", "--epochs", "1", "--batch", "128", "--device", "cpu", "--out", &trained]);
    assert_eq!(code, 0, "{messages}");
    let weights = format!("{trained}/model.safetensors");
    let values: BTreeMap<String, Vec<f64>> = read_tensors(Path::new(&weights))
        .into_iter()
        .filter_map(|(name, (_, values))| Some((name.strip_prefix(PREFIX)?[1..].to_owned(), values)))
        .collect();
    assert_eq!(values.len(), 4, "v, gamma, beta and running_var: {values:?}");
    assert!(values["running_var"].iter().all(|value| *value != 1.0), "training has moved the running variance");

    // What the layer computes here.
    let dims = [3, values["v"].len(), 4, 5];
    let x: Vec<f32> = (0..dims.iter().product::<usize>()).map(|i| (i as f32 * 0.7).sin() * 3.0 + 0.5).collect();
    let floats = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    let mut inputs: Vec<(String, Vec<usize>, Vec<f32>)> = vec![("x".to_owned(), dims.to_vec(), x.clone())];
    for (name, values) in &values {
        let kind = if name.starts_with("running") { "state" } else { "param" };
        inputs.push((format!("{kind}.{name}"), vec![values.len()], floats(values)));
    }
    let tensors: Vec<(&str, &[usize], Vec<f32>)> =
        inputs.iter().map(|(name, dims, values)| (name.as_str(), dims.as_slice(), values.clone())).collect();
    let (input, output) = (path("x.safetensors"), path("y.safetensors"));
    write_tensors(Path::new(&input), &tensors);
    let (code, _, messages) =
        run(&["run", "evonorm_b0", "--input", &input, "--output", &output, "--eval", "--device", "cpu"]);
    assert_eq!(code, 0, "{messages}");
    let expected = read_tensors(Path::new(&output))["y"].1.clone();

    let emitted = |target: &str| {
        let out = path(target);
        let (code, _, messages) =
            run(&["emit", "evonorm_b0", "--target", target, "--weights", &weights, "--prefix", PREFIX, "--out", &out]);
        assert_eq!(code, 0, "{target}: {messages}");
        out
    };

    // Rust: the emitted module is compiled with the tests.
    let out = emitted("rust");
    let file = std::fs::read_to_string(format!("{out}/evonorm_b0.rs")).unwrap();
    let golden = root().join("crates/normact-emit/tests/golden/rust/evonorm_b0.rs");
    assert!(file.contains("pub struct EvonormB0Config"), "{file}");
    assert_eq!(code_of(&file), code_of(&std::fs::read_to_string(golden).unwrap()));
    let (_, init) = normact_emitted::built_in().into_iter().find(|(name, _)| *name == "evonorm_b0").unwrap();
    let mut module = init(dims[1], &Device::flex());
    module.load_safetensors(Path::new(&format!("{out}/evonorm_b0.safetensors"))).unwrap();
    let y = module.validated().forward(tensor(&x, dims).reshape([x.len()]), &dims);
    assert_close("Rust", &expected, &y.try_to_vec_as::<f64>().unwrap(), 1e-6);

    // ONNX: back into a layer of its own, and in ONNX Runtime where the set-up of the tests has it.
    let model = format!("{}/evonorm_b0.onnx", emitted("onnx"));
    let back = path("back.safetensors");
    let (code, formula, messages) = run(&["import", &model, "--weights", &back]);
    assert_eq!(code, 0, "{messages}");
    let y = evaluated(&normact::from_text(&formula).unwrap(), Path::new(&back), &x, dims);
    assert_close("ONNX, imported", &expected, &y, 1e-6);
    for (variable, targets) in [("NORMACT_ONNX_PYTHON", &["onnx"][..]), ("NORMACT_PYTHON", &["pytorch", "jax"][..])] {
        let Some(python) = std::env::var_os(variable) else {
            eprintln!("skipped: {targets:?}, since {variable} names no Python");
            continue;
        };
        for target in targets {
            let script = root().join(format!("tests/tests/suite/deploy/run_{target}.py"));
            let found = path(&format!("{target}.safetensors"));
            let run = Command::new(&python).args([script.to_str().unwrap(), &emitted(target), &input, &found]).output();
            let run = run.expect("Python starts");
            assert!(run.status.success(), "{target}: {}", String::from_utf8_lossy(&run.stderr));
            assert_close(target, &expected, &read_tensors(Path::new(&found))["y"].1, 1e-5);
        }
    }
}

/// A file without its documentation, whose formula may be laid out otherwise.
fn code_of(file: &str) -> Vec<&str> {
    file.lines().filter(|line| !line.trim_start().starts_with("//")).collect()
}

fn tensor(x: &[f32], dims: [usize; 4]) -> Tensor<4> {
    Tensor::from_data(TensorData::new(x.to_vec(), dims), (&Device::flex(), DType::F32))
}

/// What a layer with saved weights computes in evaluation.
fn evaluated(layer: &Layer, weights: &Path, x: &[f32], dims: [usize; 4]) -> Vec<f64> {
    let mut module = normact::module_from_layer(layer, dims[1], &Device::flex()).unwrap();
    module.load_from(&mut SafetensorsStore::from_file(weights)).expect("the weights fit");
    module.valid().forward(tensor(x, dims)).try_to_vec_as::<f64>().unwrap()
}

/// How PyTorch users write the layers that made the test vectors, for `groups` groups.
fn as_in_pytorch(name: &str, groups: &str) -> String {
    match name {
        "bn_relu" => "nn.Sequential(nn.BatchNorm2d(C), nn.ReLU())".to_owned(),
        "gn_relu" => format!("nn.GroupNorm({groups}, C) + nn.ReLU(inplace=True)"),
        "gn_silu" => format!("torch.nn.Sequential((0): GroupNorm({groups}, C, eps=1e-05, affine=True)\n (1): SiLU())"),
        "ln_gelu_tanh" => "GroupNorm(1, C) + GELU(approximate='tanh')".to_owned(),
        "in_relu" => "InstanceNorm2d(C, affine=True)+ReLU".to_owned(),
        "frn_tlu" => "timm.layers.FilterResponseNormTlu2d(C, eps=1e-5)".to_owned(),
        "evonorm_b0" => "EvoNorm2dB0(C)".to_owned(),
        "evonorm_b1" => "EvoNorm2dB1".to_owned(),
        "evonorm_b2" => "EvoNorm2dB2(num_features=C)".to_owned(),
        "evonorm_s0" => format!("EvoNorm2dS0(C, groups={groups}, eps=1e-5)"),
        "evonorm_s1" => format!("EvoNorm2dS1(C, {groups})"),
        "evonorm_s2" => format!("EvoNorm2dS2a(C, groups={groups}, eps=0.00001)"),
        other => panic!("no class is written down for {other}"),
    }
}

#[test]
fn layers_and_weights_come_in_by_their_names_in_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut compared = 0;
    for entry in std::fs::read_dir(root().join("tests/vectors")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let tensors = read_tensors(&file);
        let dims: [usize; 4] = tensors["eval.x"].0.clone().try_into().unwrap();
        let groups = metadata.get("groups").map_or("1", String::as_str);
        let name = as_in_pytorch(&metadata["layer"], groups).replace('C', &dims[1].to_string());

        // The module's own state, as `state_dict` names it, with the running averages after two steps.
        let mut state: Vec<(String, Vec<f32>)> = vec![("stem.norm.num_batches_tracked".to_owned(), vec![2.0])];
        for (tensor, (_, values)) in &tensors {
            let theirs = tensor.strip_prefix("param.").or_else(|| tensor.strip_prefix("state2."));
            if let Some(theirs) = theirs {
                state.push((format!("stem.norm.{theirs}"), values.iter().map(|value| *value as f32).collect()));
            }
        }
        let saved: Vec<(&str, [usize; 1], &Vec<f32>)> =
            state.iter().map(|(name, values)| (name.as_str(), [values.len()], values)).collect();
        let saved: Vec<(&str, &[usize], Vec<f32>)> =
            saved.iter().map(|(name, dims, values)| (*name, dims.as_slice(), (*values).clone())).collect();
        let (theirs, ours) = (path("theirs.safetensors"), path("ours.safetensors"));
        write_tensors(Path::new(&theirs), &saved);
        let (code, formula, messages) = run(&[
            "import",
            "--from",
            "pytorch-name",
            &name,
            "--state-dict",
            &theirs,
            "--prefix",
            "stem.norm",
            "--weights",
            &ours,
        ]);
        assert_eq!(code, 0, "{name}: {messages}");
        let imported = normact::from_text(&formula).unwrap();
        let x: Vec<f32> = tensors["eval.x"].1.iter().map(|value| *value as f32).collect();
        assert_close(&name, &tensors["eval.y"].1, &evaluated(&imported, Path::new(&ours), &x, dims), 1e-5);
        compared += 1;
    }
    assert_eq!(compared, 24);
}

#[test]
fn classes_that_are_built_in_layers_have_their_formula() {
    for (name, built_in, settings) in [
        ("BatchNormAct2d(64)", "bn_relu", &[][..]),
        ("BatchNorm2d(64, eps=0.001, momentum=0.01) + SiLU", "bn_silu", &["eps=1e-3", "momentum=0.01"]),
        ("GroupNormAct(64, act_layer=nn.SiLU)", "gn_silu", &[]),
        ("GroupNorm1Act(64, act_layer='gelu')", "ln_gelu", &[]),
        ("nn.RMSNorm(64, 1e-5)", "rms_norm", &[]),
        ("evonorms0a", "evonorm_s0", &["eps=1e-3"]),
        ("EvoNorm2dS0(64, group_size=16)", "evonorm_s0", &["groups=4"]),
    ] {
        let (code, formula, messages) = run(&["import", "--from", "pytorch-name", name]);
        assert_eq!(code, 0, "{name}: {messages}");
        let layers = [normact::from_text(&formula).unwrap(), layer(built_in, settings)];
        let [found, expected] = layers.map(|layer| normact::syntax::print(&layer));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn names_that_are_no_layer_are_explained() {
    for (name, message) in [
        ("BatchNorm9d", "did you mean `BatchNorm1d`?"),
        ("Conv2d(3, 64)", "no normalization of PyTorch or timm is known as `Conv2d`"),
        ("BatchNorm2d(64", "expected a name, found the end"),
        ("", "expected a name, found the end"),
        ("BatchNorm2d + Softmax", "the language has no activation for `Softmax`"),
        ("BatchNorm2d + Silu", "did you mean `SiLU`?"),
        ("BatchNorm2d + ReLU + ReLU", "`ReLU` comes after the activation"),
        ("BatchNormAct2d + ReLU", "`ReLU` comes after the activation"),
        ("BatchNorm2d(epss=1)", "did you mean `eps`?"),
        ("BatchNorm2d(1, 2, 3, True, True, True, None, 8)", "takes 7 arguments without a name, not 8"),
        ("BatchNorm2d(momentum=None)", "averages over all steps"),
        ("BatchNorm2d(track_running_stats=False)", "is not a layer of the language"),
        ("BatchNorm2d(eps=-1)", "`eps` of `BatchNorm2d` is not a number from 0"),
        ("LayerNorm((8, 4, 4))", "is not one number of channels"),
        ("GroupNorm()", "does not say its number of groups"),
        ("EvoNorm2dS0(66, group_size=16)", "groups of 16 do not divide 66 channels"),
        ("EvoNorm2dS0(group_size=16)", "has a group_size but no number of channels"),
        ("EvoNorm2dS1(act_layer=nn.ReLU)", "with another activation is not known"),
        ("BatchNorm2d + LeakyReLU(negative_slope=0.2)", "`LeakyReLU` with `negative_slope`"),
        (&"a(".repeat(10_000), "nested more than 16 deep"),
        ("BatchNorm2d(\u{1F600})", "expected a name"),
        ("BatchNorm2d(eps='", "expected a text that ends"),
    ] {
        let (code, output, messages) = run(&["import", "--from", "pytorch-name", name]);
        assert_eq!((code, output.as_str()), (2, ""), "{name}: {messages}");
        assert!(messages.contains(message), "{name}: {messages}");
    }
}

#[test]
fn names_mean_what_their_module_means_by_them() {
    for (name, setting) in [
        ("nn.LayerNorm(64)", "eps = 1e-5"),
        ("timm.layers.LayerNorm(64)", "eps = 1e-6"),
        ("LayerNorm2d(64)", "eps = 1e-6"),
        ("nn.RMSNorm(64)", "eps = 1.1920929e-7"),
        ("timm.layers.RmsNorm(channels=64)", "eps = 1e-6"),
        ("GroupNorm1(1, 64, eps=1e-05, affine=True)", "eps = 1e-5"),
        ("EvoNorm2dB0(64)", "running = unbiased"),
    ] {
        let (code, formula, messages) = run(&["import", "--from", "pytorch-name", name]);
        assert_eq!(code, 0, "{name}: {messages}");
        assert!(formula.contains(setting), "{name}: {formula}");
    }
    for (name, gamma, beta) in [
        ("LayerNorm(64, bias=False, elementwise_affine=True)", true, false),
        ("LayerNorm(64, elementwise_affine=True, bias=False)", true, false),
        ("LayerNorm(64, elementwise_affine=False, bias=True)", false, false),
        ("LayerNorm(64, bias=True, elementwise_affine=False)", false, false),
        ("InstanceNorm2d(64, affine=True)", true, true),
        ("RMSNorm(64, elementwise_affine=True)", true, false),
    ] {
        let (_, formula, _) = run(&["import", "--from", "pytorch-name", name]);
        let has = |param: &str| formula.contains(&format!("param {param} "));
        assert_eq!((has("gamma"), formula.contains("beta")), (gamma, beta), "{name}: {formula}");
    }
}
