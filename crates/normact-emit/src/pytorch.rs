//! A layer as a `torch.nn.Module`, in a file that needs torch alone.
//!
//! The code stays within what TorchScript can compile, and makes no decision that depends on a value, so
//! that tracing and `torch.compile` see all of it.

use normact_ir::{Channels, Extent, Layer, Quantity, Running};

use crate::emit::{EmitError, EmittedFile, Names, Options};
use crate::outline::Outline;
use crate::python::{self, Body, GroupCounts, Helper, KEYWORDS, Library, Statistic, number};

const TARGET: &str = "PyTorch";

const TORCH: Library = Library {
    text: |text| text.torch,
    sqrt: "torch.sqrt({})",
    array: |number| match number {
        "0" => "x.new_zeros([1])".to_owned(),
        "1" => "x.new_ones([1])".to_owned(),
        _ => format!("x.new_full([1], {number})"),
    },
    infinity: "float(\"inf\")",
    nan: "float(\"nan\")",
    training: "self.training",
};

/// What the file itself calls by these names, in `forward` or at its top.
const RESERVED: &[&str] = &[
    "ValueError",
    "TypeError",
    "Tensor",
    "count",
    "dtype",
    "float",
    "grouped",
    "list",
    "max",
    "nn",
    "per_channel",
    "self",
    "shape",
    "sign",
    "signed_log",
    "signed_sqrt",
    "torch",
    "update_running",
    "x",
    "y",
];

/// What every module of PyTorch has by these names, and `channels`, which this one has. `self` is what exported
/// modules call themselves.
const MEMBERS: &str = "\
    T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl _compiled_call_impl \
    _forward_hooks _forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks \
    _forward_pre_hooks_with_kwargs _get_backward_hooks _get_backward_pre_hooks _get_name _is_full_backward_hook \
    _load_from_state_dict _load_state_dict_post_hooks _load_state_dict_pre_hooks \
    _maybe_warn_non_full_backward_hook _modules _named_members _non_persistent_buffers_set _parameters \
    _register_load_state_dict_pre_hook _register_state_dict_hook _replicate_for_data_parallel _save_to_state_dict \
    _slow_forward _state_dict_hooks _state_dict_pre_hooks _version _wrapped_call_impl add_module apply bfloat16 \
    buffers call_super_init channels children compile cpu cuda double dump_patches eval extra_repr float forward \
    get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia named_buffers \
    named_children named_modules named_parameters parameters register_backward_hook register_buffer \
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook \
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter \
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ self set_extra_state set_submodule \
    share_memory state_dict to to_empty train training type xpu zero_grad";

const HELPERS: &[Helper] = &[
    Helper {
        name: "per_channel",
        definition: r#"def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return values.to(x.dtype).view(1, -1, 1)"#,
    },
    Helper {
        name: "update_running",
        definition: r#"def update_running(running: Tensor, value: Tensor, momentum: float) -> None:
    """Moves a running average to `value`, which has the weight `momentum`."""
    running.lerp_(value.detach().flatten().to(running.dtype), momentum)"#,
    },
    Helper {
        name: "signed_log",
        definition: r#"def signed_log(x: Tensor) -> Tensor:
    """sign(x) * ln|x|."""
    return torch.sign(x) * torch.log(torch.abs(x))"#,
    },
    Helper {
        name: "signed_sqrt",
        definition: r#"def signed_sqrt(x: Tensor) -> Tensor:
    """sign(x) * sqrt(|x|), with derivative 0 at 0, where that of a plain root would be infinite."""
    return torch.sign(x) * torch.sqrt(torch.abs(x).masked_fill(x == 0, 1))"#,
    },
    Helper {
        name: "sign",
        definition: r#"def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1, and NaN for NaN, where torch.sign gives 0."""
    return torch.sign(x).masked_fill(torch.isnan(x), float("nan"))"#,
    },
];

/// `NAME.py`, with a class.
pub(crate) fn emit(layer: &Layer, options: &Options) -> Result<Vec<EmittedFile>, EmitError> {
    let names = Names::new(layer, KEYWORDS, TARGET)?;
    python::refuse(&names.function, &["torch"], TARGET)?;
    python::refuse(&names.class, RESERVED, TARGET)?;
    let groups = GroupCounts::of(&layer.dag);
    for param in layer.dag.params() {
        // Python renames what starts with two underscores, or gives it a meaning.
        let is_special = param.name.starts_with("__");
        let is_member = MEMBERS.split_whitespace().any(|member| member == param.name);
        let is_groups = groups.at_most.iter().any(|(_, name)| *name == param.name);
        if is_special || is_member || is_groups {
            return Err(EmitError::Collision { name: param.name.clone(), target: TARGET });
        }
    }
    let locals = python::locals(&layer.dag, RESERVED);
    let taken: Vec<&str> = RESERVED.iter().copied().chain(locals.iter().map(String::as_str)).collect();
    let outline = Outline::new(&layer.dag, &taken);
    let init = init(&outline, &groups);
    let forward = forward(&outline, &groups, &locals);
    let text = format!(
        "{}import torch\nfrom torch import Tensor, nn\n\n\n{}{}{init}\n{forward}\n{}",
        python::module_doc(layer, options, TARGET),
        python::definitions(HELPERS, &forward),
        class(&names, &outline),
        extra_repr(&groups),
    );
    Ok(vec![EmittedFile { name: format!("{}.py", names.function), bytes: text.into_bytes() }])
}

fn class(names: &Names, outline: &Outline) -> String {
    let modes = match outline.buffers.list() {
        [] => "",
        _ => {
            "\n    In training, statistics over samples are those of the batch and move the running averages, which stand for
    them in evaluation.\n"
        }
    };
    format!(
        "class {}(nn.Module):
    \"\"\"The layer, for inputs of shape [samples, channels] and up to three axes of positions after these.
{modes}
    Half precision is computed in float32.
    \"\"\"\n\n",
        names.class
    )
}

fn init(outline: &Outline, groups: &GroupCounts) -> String {
    let mut lines = vec![
        "super().__init__()".to_owned(),
        "if channels < 1:".to_owned(),
        "    raise ValueError(f\"channels must be at least 1, not {channels}\")".to_owned(),
    ];
    for count in &groups.exact {
        lines.push(format!("if channels % {count} != 0:"));
        lines.push(format!("    raise ValueError(f\"group({count}) does not divide {{channels}} channels\")"));
    }
    lines.push("self.channels = channels".to_owned());
    for (most, name) in &groups.at_most {
        lines.push(format!("# The largest number of groups, at most {most}, that divides the channels."));
        let counts = format!("range(1, min({most}, channels) + 1)");
        lines.push(format!("self.{name} = max(count for count in {counts} if channels % count == 0)"));
    }
    for param in outline.dag.params() {
        let filled = filled(param.extent, param.init.get());
        lines.push(format!("self.{} = nn.Parameter({filled})", param.name));
    }
    for buffer in outline.buffers.list() {
        let filled = filled(buffer.extent, buffer.init());
        lines.push(format!("self.register_buffer(\"{}\", {filled})", buffer.name));
    }
    method("__init__(self, channels: int, *, device=None, dtype=None) -> None", &lines)
}

/// A tensor of one value per channel, or of one.
fn filled(extent: Extent, value: f64) -> String {
    let len = match extent {
        Extent::PerChannel => "channels",
        Extent::Scalar => "1",
    };
    let rest = "device=device, dtype=dtype";
    match value {
        0.0 => format!("torch.zeros({len}, {rest})"),
        1.0 => format!("torch.ones({len}, {rest})"),
        _ => format!("torch.full(({len},), {value:?}, {rest})"),
    }
}

fn forward(outline: &Outline, groups: &GroupCounts, locals: &[String]) -> String {
    let body = Body::new(outline, &TORCH, locals);
    let expected = "expected shape [n, {self.channels}] or up to three axes more, got {list(x.shape)}";
    let mut lines = vec![
        "if not 2 <= x.dim() <= 5 or x.size(1) != self.channels:".to_owned(),
        format!("    raise ValueError(f\"{expected}\")"),
        "if not x.is_floating_point():".to_owned(),
        "    raise TypeError(\"expected floating-point numbers\")".to_owned(),
        String::new(),
        "shape, dtype = x.shape, x.dtype".to_owned(),
        "x = x.unsqueeze(-1).flatten(2)  # [samples, channels, positions]".to_owned(),
        "x = x if dtype == torch.float64 else x.float()".to_owned(),
    ];
    let used = python::live_params(outline.dag);
    for (param, local) in
        outline.dag.params().iter().zip(locals).zip(used).filter_map(|(param, used)| used.then_some(param))
    {
        lines.push(format!("{local} = per_channel(self.{}, x)", param.name));
    }
    lines.push(String::new());
    lines.extend(body.statements(8, |steps| statistic(&body, groups, steps)));
    if let Some(value) = body.constant(&outline.result) {
        lines.push(format!("y = torch.full_like(x, {})", body.number(value)));
    } else {
        lines.extend(body.assignment("y", &outline.result, 8));
        let axes = outline.result_axes;
        if !(axes.samples && axes.channels != Channels::One && axes.positions) {
            lines.push("y = y.expand_as(x).contiguous()".to_owned());
        }
    }
    lines.push("return y.view(shape).to(dtype)".to_owned());
    method("forward(self, x: Tensor) -> Tensor", &lines)
}

/// An average, or a mean and a variance, which torch computes together.
fn statistic(body: &Body, groups: &GroupCounts, steps: &[usize]) -> Statistic {
    let mut lines = Statistic::default();
    let averages: Vec<_> = steps.iter().map(|&step| body.average(step)).collect();
    let average = averages[0].1;
    let operand = body.expr(&average.operand);
    let groups = groups.text(average, "self.");
    if let Some(groups) = &groups {
        lines.compute.push(format!("grouped = {operand}.unflatten(1, [{groups}, -1]).flatten(2)"));
    }
    let (values, axes) = match groups {
        Some(_) => ("grouped", "2".to_owned()),
        None => (operand.as_str(), python::axes(average)),
    };
    lines.compute.push(match averages.as_slice() {
        [(mean, _), (variance, _)] => {
            format!("{variance}, {mean} = torch.var_mean({values}, dim={axes}, correction=0, keepdim=True)")
        }
        _ => {
            let name = averages[0].0;
            match average.quantity {
                Quantity::Mean => format!("{name} = torch.mean({values}, dim={axes}, keepdim=True)"),
                Quantity::MeanSquare => {
                    format!("{name} = torch.mean(torch.square({values}), dim={axes}, keepdim=True)")
                }
                Quantity::Variance => format!("{name} = torch.var({values}, dim={axes}, correction=0, keepdim=True)"),
            }
        }
    });
    for (name, average) in averages {
        if let Some(groups) = &groups {
            lines.compute.push(format!("{name} = {name}.repeat_interleave(self.channels // {groups}, dim=1)"));
        }
        let Some(buffer) = body.buffer(average) else { continue };
        let momentum = number(buffer.tracking.momentum.get());
        let value = match buffer.tracking.running {
            Running::Biased => name.to_owned(),
            Running::Unbiased => {
                lines.update.push(format!("count = {operand}.numel() // {name}.numel()"));
                format!("{name} * (count / max(count - 1, 1))")
            }
        };
        lines.update.push(format!("update_running(self.{}, {value}, {momentum})", buffer.name));
        lines.read.push(format!("{name} = per_channel(self.{}, x)", buffer.name));
    }
    lines
}

fn extra_repr(groups: &GroupCounts) -> String {
    let groups = groups.at_most.iter().map(|(_, name)| format!(", {name}={{self.{name}}}"));
    let groups: String = groups.collect();
    method("extra_repr(self) -> str", &[format!("return f\"{{self.channels}}{groups}\"")])
}

fn method(signature: &str, lines: &[String]) -> String {
    python::definition(signature, lines, 4)
}
