//! `normact run`: a layer on tensors from a file, with gradients if asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use clap::ValueEnum;
use normact_burn::{NormAct, Path};
use normact_ir::Shape;
use normact_syntax::{any_error, render, shape_diagnostics};

use super::tensors::{self, NamedTensor};
use super::{LayerArgs, Outcome, color_on_stderr, note, print_json};
use crate::device::{self, DeviceChoice};
use crate::{Failure, module_from_layer};

const EXAMPLES: &str = "\
Examples:
  normact run evonorm_s0 --input x.safetensors --output y.safetensors
  normact run bn_relu --input step.safetensors --output out.safetensors --grad
  normact run my.nact --input x.safetensors --output y.safetensors --eval --device cpu

The input file holds `x` ([n, c] with up to three spatial axes), with --grad `dy` of the same shape,
and values for parameters and running statistics as `param.NAME` and `state.NAME` ([c] or [1]) where
they should not be the initial ones. The output file holds `y`, the running statistics after the
step as `state.NAME`, and with --grad `dx` and `grad.NAME`. Without --eval the layer is in training
mode: batch statistics come from the batch.";

/// Run a layer on tensors from a safetensors file
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// The safetensors file to read
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Compute the gradients of sum(y * dy) too
    #[arg(long)]
    grad: bool,

    /// Use running statistics in place of those of the batch
    #[arg(long, conflicts_with = "grad")]
    eval: bool,

    /// Which layer of a comparison this is, where the input file is by `normact equiv --witness` and the
    /// two read different values of one name
    #[arg(long, value_enum, value_name = "SIDE")]
    side: Option<Side>,

    /// Where to run
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// Print what was computed as JSON
    #[arg(long)]
    json: bool,
}

/// A layer of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The first
    A,
    /// The second
    B,
}

#[derive(serde::Serialize)]
struct Summary<'a> {
    layer: &'a str,
    device: &'static str,
    mode: &'static str,
    output: &'a std::path::Path,
    tensors: BTreeMap<&'a str, &'a [usize]>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let loaded = args.layer.load()?;
    let mut file =
        File { path: args.input.display().to_string(), tensors: tensors::read(&args.input)?, side: args.side };
    if args.side.is_some() && !file.is_witness() {
        return Err(file.wrong("it is no witness of a comparison").help("leave `--side` out"));
    }
    let x = file.take("x")?;
    let shape = Shape::new(&x.dims).map_err(|error| Failure::new(format!("{}: tensor `x`: {error}", file.path)))?;
    if let Some(text) = &loaded.text {
        let diagnostics = shape_diagnostics(&text.compiled, &shape);
        if any_error(&diagnostics) {
            return Err(Failure::rendered(render(&text.source, &diagnostics, color_on_stderr())));
        }
        if !diagnostics.is_empty() {
            note(render(&text.source, &diagnostics, color_on_stderr()).trim_end());
        }
    }
    let dy = if args.grad { Some(file.take("dy")?) } else { None };
    if let Some(dy) = dy.as_ref().filter(|dy| dy.dims != x.dims) {
        return Err(file
            .wrong(&format!("`dy` has shape {:?} and `x` {:?}", dy.dims, x.dims))
            .help("`dy` is the gradient of the output, which has the shape of `x`"));
    }
    let opened = device::open(args.device)?;
    let device = if args.eval { opened.device.clone() } else { opened.device.clone().autodiff() };
    if !opened.device.supports_dtype(x.format.on_device()) {
        return Err(file
            .wrong(&format!("the {} device cannot compute in {:?}", opened.name, x.format.on_device()))
            .help("convert `x` to F32, or use `--device cpu`"));
    }
    let mut module = module_from_layer(&loaded.layer, shape.channels(), &device)?;
    file.set_values(&mut module)?;
    file.refuse_rest(&module)?;
    let results = compute(&module, &x, dy.as_ref(), &device).map_err(|error| device_failure(opened.name, &error))?;
    tensors::write(&args.output, &results)?;
    if args.json {
        return print_json(&Summary {
            layer: &loaded.layer.name,
            device: opened.name,
            mode: if args.eval { "evaluation" } else { "training" },
            output: &args.output,
            tensors: results.iter().map(|(name, tensor)| (name.as_str(), tensor.dims.as_slice())).collect(),
        })
        .map(|()| Outcome::Success);
    }
    let names: Vec<&str> = results.keys().map(String::as_str).collect();
    note(&format!(
        "{} on {}: {} written to {}",
        loaded.layer.name,
        opened.name,
        names.join(", "),
        args.output.display()
    ));
    Ok(Outcome::Success)
}

/// The tensors of the input file that were not asked for yet.
struct File {
    path: String,
    tensors: BTreeMap<String, NamedTensor>,
    side: Option<Side>,
}

impl File {
    fn wrong(&self, what: &str) -> Failure {
        Failure::new(format!("{}: {what}", self.path))
    }

    fn take(&mut self, name: &str) -> Result<NamedTensor, Failure> {
        self.tensors.remove(name).ok_or_else(|| {
            let names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            let found = if names.is_empty() { "no tensors".to_owned() } else { names.join(", ") };
            self.wrong(&format!("there is no tensor `{name}`")).help(format!("the file holds {found}"))
        })
    }

    fn set_values(&mut self, module: &mut NormAct) -> Result<(), Failure> {
        let params: Vec<String> = module.param_names().map(str::to_owned).collect();
        let buffers: Vec<String> = module.buffer_names().map(str::to_owned).collect();
        let named = params.iter().map(|name| ("param", name)).chain(buffers.iter().map(|name| ("state", name)));
        for (kind, name) in named {
            let key = format!("{kind}.{name}");
            let Some(tensor) = self.take_value(&key)? else { continue };
            let expected = module.values(name).map_or(0, |values| values.len());
            if tensor.dims.iter().product::<usize>() != expected || tensor.dims.len() > 1 {
                return Err(self.wrong(&format!("`{key}` has shape {:?}, expected [{expected}]", tensor.dims)));
            }
            module.set_values(name, &tensor.values).map_err(|error| self.wrong(&error.to_string()))?;
        }
        Ok(())
    }

    /// Whether the file is by `normact equiv --witness`: it has what each of two layers reads.
    fn is_witness(&self) -> bool {
        ["y_a", "y_b"].iter().all(|name| self.tensors.contains_key(*name))
    }

    /// The tensor of that name, if there is one. The second layer of a comparison has its own values
    /// under `b.NAME` where they are not those of the first.
    fn take_value(&mut self, key: &str) -> Result<Option<NamedTensor>, Failure> {
        let of_b = format!("b.{key}");
        match (self.is_witness() && self.tensors.contains_key(&of_b), self.side) {
            (true, None) => Err(self
                .wrong(&format!("`{key}` has different values in the two layers that were compared"))
                .help("say `--side a` or `--side b`")),
            (true, Some(Side::B)) => Ok(self.tensors.remove(&of_b)),
            (true, Some(Side::A)) | (false, _) => Ok(self.tensors.remove(key)),
        }
    }

    /// A tensor that nothing reads is a misspelt one, or the other layer's.
    fn refuse_rest(&self, module: &NormAct) -> Result<(), Failure> {
        if self.is_witness() {
            return Ok(());
        }
        let ignored = |name: &str| name == "dy";
        let Some(name) = self.tensors.keys().find(|name| !ignored(name)) else { return Ok(()) };
        let known: Vec<String> = module
            .param_names()
            .map(|name| format!("param.{name}"))
            .chain(module.buffer_names().map(|name| format!("state.{name}")))
            .collect();
        let help = match normact_syntax::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                format!("the layer reads {}", ["x".to_owned()].into_iter().chain(known).collect::<Vec<_>>().join(", "))
            }
        };
        Err(self.wrong(&format!("the layer reads no tensor `{name}`")).help(help))
    }
}

/// What a device reports, without the places inside it that only its authors could use.
fn device_failure(device: &str, report: &str) -> Failure {
    let tells = |line: &&str| !line.contains("backtrace") && !line.starts_with("Asked at");
    let report: Vec<&str> = report.lines().filter(tells).collect();
    Failure::new(format!("the {device} device failed: {}", report.join("\n  ")))
        .help("try a smaller input, or `--device cpu`")
}

type Results = BTreeMap<String, NamedTensor>;

fn compute(module: &NormAct, x: &NamedTensor, dy: Option<&NamedTensor>, device: &Device) -> Result<Results, String> {
    match x.dims.len() {
        2 => compute_ranked::<2>(module, x, dy, device),
        3 => compute_ranked::<3>(module, x, dy, device),
        4 => compute_ranked::<4>(module, x, dy, device),
        5 => compute_ranked::<5>(module, x, dy, device),
        rank => unreachable!("shapes have rank 2 to 5, not {rank}"),
    }
}

fn compute_ranked<const D: usize>(
    module: &NormAct,
    input: &NamedTensor,
    dy: Option<&NamedTensor>,
    device: &Device,
) -> Result<Results, String> {
    let tensor = |from: &NamedTensor| {
        let data = TensorData::new(from.values.clone(), from.dims.clone());
        Tensor::<D>::from_data(data, (device, input.format.on_device()))
    };
    let like_input = |values: Vec<f64>| NamedTensor { values, ..input.clone() };
    let vector = |values: Vec<f64>| NamedTensor { dims: vec![values.len()], format: input.format, values };
    let mut results = Results::new();
    let x = tensor(input);
    let x = if dy.is_some() { x.require_grad() } else { x };
    if let Path::OpByOp(reason) = module.path(&x) {
        note(&format!("{} runs operation by operation, since {reason}", module.layer().name));
    }
    let y = module.forward(x.clone());
    results.insert("y".to_owned(), like_input(y.try_to_vec_as().map_err(|error| error.to_string())?));
    if let Some(dy) = dy {
        let gradients = (y * tensor(dy)).sum().backward();
        let dx = match x.grad(&gradients) {
            Some(dx) => dx.try_to_vec_as().map_err(|error| error.to_string())?,
            None => vec![0.0; input.values.len()],
        };
        results.insert("dx".to_owned(), like_input(dx));
        for name in module.param_names() {
            let gradient = module.gradient(name, &gradients).map_err(|error| error.to_string())?;
            results.insert(format!("grad.{name}"), vector(gradient));
        }
    }
    for name in module.buffer_names() {
        results.insert(format!("state.{name}"), vector(module.values(name).map_err(|error| error.to_string())?));
    }
    Ok(results)
}
