//! What several parts of the suite need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use burn::tensor::Device;
use normact::device::{self, DeviceChoice};
use normact::ir::Layer;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// The program, in a clean environment.
pub(crate) fn normact() -> Command {
    let suite = std::env::current_exe().unwrap();
    let program = suite.ancestors().nth(2).unwrap().join(format!("normact{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is not built: test the whole workspace, or build it first", program.display());
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs the program and takes its exit code, standard output and standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    finished(normact().args(arguments).output().unwrap())
}

pub(crate) fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("the program ends by itself, not by a signal");
    (code, text(output.stdout), text(output.stderr))
}

/// Runs an ignored test of this program in a process of its own, and takes what it prints. What is set up once
/// per process, or counted for the whole of it, is not disturbed by other tests there.
pub(crate) fn alone(test: &str, set_up: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).stdin(Stdio::null());
    set_up(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{test}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The CPU and WGPU devices. A machine without an adapter fails here and says what to install.
pub(crate) fn devices() -> [(&'static str, Device); 2] {
    let open = |choice| device::open(choice).unwrap_or_else(|error| panic!("{error}")).device;
    [("cpu", open(DeviceChoice::Cpu)), ("wgpu", open(DeviceChoice::Wgpu))]
}

pub(crate) fn layer(spec: &str, settings: &[&str]) -> Layer {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    normact::load::layer(spec, &settings).unwrap_or_else(|error| panic!("{error}"))
}

/// Every formula of the repository.
pub(crate) fn formulas() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["grammar/layers", "examples", "tests/cases"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "nact") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "only {} formulas were found", found.len());
    found
}

/// The tensors of a safetensors file of f64 or f32 numbers: shape and values.
pub(crate) fn read_tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: TensorView<'_>| -> Vec<f64> {
        match view.dtype() {
            Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
            Dtype::F32 => {
                view.data().as_chunks::<4>().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect()
            }
            other => panic!("unexpected numbers {other:?}"),
        }
    };
    file.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(view)))).collect()
}

/// Writes f32 tensors.
pub(crate) fn write_tensors(path: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) {
    let encoded: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, dims, values)| (*name, *dims, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views =
        encoded.iter().map(|(name, dims, bytes)| (*name, TensorView::new(Dtype::F32, dims.to_vec(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Asserts that two tensors agree to `tolerance` times the largest expected magnitude, at least 1.
#[track_caller]
pub(crate) fn assert_close(what: &str, expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let scale = expected.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        let error = (expected - found).abs();
        assert!(error <= tolerance * scale, "{what}[{index}]: expected {expected}, found {found}, error {error:e}");
    }
}
