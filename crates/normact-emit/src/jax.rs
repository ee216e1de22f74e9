//! A layer as a pure function on JAX arrays, with a Flax module on top of it where Flax is installed.

use normact_ir::{Channels, Extent, Layer, Quantity, Running};

use crate::emit::{EmitError, EmittedFile, Names, Options};
use crate::outline::Outline;
use crate::python::{self, Body, GroupCounts, Helper, KEYWORDS, Library, Statistic, number};

const TARGET: &str = "JAX";

const JAX: Library = Library {
    text: |text| text.jax,
    sqrt: "jnp.sqrt({})",
    array: str::to_owned,
    infinity: "jnp.inf",
    nan: "jnp.nan",
    training: "training",
};

/// What the file itself calls by these names.
const RESERVED: &[&str] = &[
    "ImportError",
    "TypeError",
    "ValueError",
    "absolute",
    "channels",
    "count",
    "dict",
    "dtype",
    "grouped",
    "groups",
    "init",
    "jax",
    "jnp",
    "len",
    "linen",
    "math",
    "max",
    "min",
    "moved",
    "new_state",
    "params",
    "per_channel",
    "range",
    "shape",
    "signed_log",
    "signed_sqrt",
    "state",
    "training",
    "x",
    "y",
];

const HELPERS: &[Helper] = &[
    Helper {
        name: "per_channel",
        definition: r#"def per_channel(values, x):
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return jnp.asarray(values, x.dtype).reshape(1, -1, 1)"#,
    },
    Helper {
        name: "moved",
        definition: r#"def moved(running, value, momentum):
    """A running average, moved to `value`, which has the weight `momentum`."""
    value = jax.lax.stop_gradient(value).reshape(running.shape)
    return ((1 - momentum) * running.astype(value.dtype) + momentum * value).astype(running.dtype)"#,
    },
    Helper {
        name: "absolute",
        definition: r#"def absolute(x):
    """|x|, with derivative 0 at 0, where that of jnp.abs is 1."""
    return jnp.sign(x) * x"#,
    },
    Helper {
        name: "signed_log",
        definition: r#"def signed_log(x):
    """sign(x) * ln|x|."""
    return jnp.sign(x) * jnp.log(jnp.abs(x))"#,
    },
    Helper {
        name: "signed_sqrt",
        definition: r#"def signed_sqrt(x):
    """sign(x) * sqrt(|x|), with derivative 0 at 0, where that of a plain root would be infinite."""
    return jnp.sign(x) * jnp.sqrt(jnp.where(x == 0, 1, jnp.abs(x)))"#,
    },
];

/// `NAME.py`, with two functions and a class.
pub(crate) fn emit(layer: &Layer, options: &Options) -> Result<Vec<EmittedFile>, EmitError> {
    let mut names = Names::new(layer, KEYWORDS, TARGET)?;
    python::refuse(&names.function, RESERVED, TARGET)?;
    python::refuse(&names.function, &["flax"], TARGET)?;
    if names.class == names.function || RESERVED.contains(&&*names.class) {
        names.class.push_str("Module");
    }
    for param in layer.dag.params() {
        // Flax refuses a parameter that is called like its collection.
        python::refuse(&param.name, &["params"], TARGET)?;
    }
    let groups = GroupCounts::of(&layer.dag);
    let of_groups = groups.at_most.iter().map(|(_, name)| name.as_str());
    let reserved: Vec<&str> = RESERVED.iter().copied().chain(of_groups).collect();
    let locals = python::locals(&layer.dag, &reserved);
    let taken: Vec<&str> = reserved.iter().copied().chain(locals.iter().map(String::as_str)).collect();
    let outline = Outline::new(&layer.dag, &taken);
    let init = init(&outline, &groups);
    let function = function(&outline, &groups, &locals, &names);
    let module = module(&outline, &names);
    let helpers = python::definitions(HELPERS, &function);
    let uses_jax = helpers.contains("jax.") || function.contains("jax.");
    let text = format!(
        "{}import math\n\n{}import jax.numpy as jnp\n\n\n{helpers}{init}\n\n{function}\n\n{module}",
        python::module_doc(layer, options, TARGET),
        if uses_jax { "import jax\n" } else { "" },
    );
    Ok(vec![EmittedFile { name: format!("{}.py", names.function), bytes: text.into_bytes() }])
}

fn init(outline: &Outline, groups: &GroupCounts) -> String {
    let mut lines = vec![
        "\"\"\"The parameters and the running averages that the layer starts with: `(params, state)`.\"\"\"".to_owned(),
        "if channels < 1:".to_owned(),
        "    raise ValueError(f\"channels must be at least 1, not {channels}\")".to_owned(),
    ];
    lines.extend(exact_groups(groups));
    let params = outline.dag.params().iter().map(|param| (param.name.as_str(), param.extent, param.init.get()));
    let buffers = outline.buffers.list().iter().map(|buffer| (buffer.name.as_str(), buffer.extent, buffer.init()));
    lines.extend(dictionary("params", params));
    lines.extend(dictionary("state", buffers));
    lines.push("return params, state".to_owned());
    python::definition("init(channels, dtype=jnp.float32)", &lines, 0)
}

fn exact_groups(groups: &GroupCounts) -> Vec<String> {
    let check = |count: &u32| {
        let message = format!("f\"group({count}) does not divide {{channels}} channels\"");
        [format!("if channels % {count} != 0:"), format!("    raise ValueError({message})")]
    };
    groups.exact.iter().flat_map(check).collect()
}

fn dictionary<'a>(name: &str, entries: impl Iterator<Item = (&'a str, Extent, f64)>) -> Vec<String> {
    let mut lines = vec![];
    for (key, extent, value) in entries {
        let len = match extent {
            Extent::PerChannel => "channels",
            Extent::Scalar => "1",
        };
        let filled = match value {
            0.0 => format!("jnp.zeros({len}, dtype)"),
            1.0 => format!("jnp.ones({len}, dtype)"),
            _ => format!("jnp.full({len}, {value:?}, dtype)"),
        };
        lines.push(format!("    \"{key}\": {filled},"));
    }
    if lines.is_empty() {
        return vec![format!("{name} = {{}}")];
    }
    lines.insert(0, format!("{name} = {{"));
    lines.push("}".to_owned());
    lines
}

fn function(outline: &Outline, groups: &GroupCounts, locals: &[String], names: &Names) -> String {
    let body = Body::new(outline, &JAX, locals);
    let has_state = !outline.buffers.list().is_empty();
    let mut lines: Vec<String> = doc(has_state).lines().map(str::to_owned).collect();
    lines.extend(checks(outline));
    lines.extend(exact_groups(groups));
    for (most, name) in &groups.at_most {
        lines.push(format!("# The largest number of groups, at most {most}, that divides the channels."));
        let counts = format!("range(1, min({most}, channels) + 1)");
        lines.push(format!("{name} = max(count for count in {counts} if channels % count == 0)"));
    }
    lines.push(String::new());
    lines.push("x = x.astype(jnp.promote_types(dtype, jnp.float32))".to_owned());
    lines.push("x = x.reshape(shape[0], channels, math.prod(shape[2:]))".to_owned());
    let used = python::live_params(outline.dag);
    for ((param, local), _) in outline.dag.params().iter().zip(locals).zip(used).filter(|(_, used)| *used) {
        lines.push(format!("{local} = per_channel(params[\"{}\"], x)", param.name));
    }
    lines.push(String::new());
    if has_state {
        lines.push("new_state = dict(state)".to_owned());
    }
    lines.extend(body.statements(4, |steps| statistic(&body, groups, steps)));
    if let Some(value) = body.constant(&outline.result) {
        lines.push(format!("y = jnp.full_like(x, {})", body.number(value)));
    } else {
        lines.extend(body.assignment("y", &outline.result, 4));
        let axes = outline.result_axes;
        if !(axes.samples && axes.channels != Channels::One && axes.positions) {
            lines.push("y = jnp.broadcast_to(y, x.shape)".to_owned());
        }
    }
    let state = if has_state { "new_state" } else { "state" };
    lines.push(format!("return y.reshape(shape).astype(dtype), {state}"));
    python::definition(&format!("{}(params, state, x, *, training)", names.function), &lines, 0)
}

fn doc(has_state: bool) -> &'static str {
    if has_state {
        r#""""`(y, new_state)` for `x` of shape [samples, channels] and up to three axes of positions after these.

In training, statistics over samples are those of the batch and move the running averages of `state`, which
stand for them in evaluation. `training` is a bool, static under `jax.jit`. Half precision is computed in
float32.
""""#
    } else {
        r#""""`(y, state)` for `x` of shape [samples, channels] and up to three axes of positions after these.

Training makes no difference, and the state is empty. Half precision is computed in float32.
""""#
    }
}

/// What is asked of the input, and the names `shape`, `dtype` and `channels`.
fn checks(outline: &Outline) -> Vec<String> {
    let lines = [
        "x = jnp.asarray(x)",
        "shape, dtype = x.shape, x.dtype",
        "if not 2 <= len(shape) <= 5:",
        "    raise ValueError(f\"expected shape [n, c] or up to three axes more, got {shape}\")",
        "if not jnp.issubdtype(dtype, jnp.floating):",
        "    raise TypeError(f\"expected floating-point numbers, got {dtype}\")",
        "channels = shape[1]",
    ];
    let check = |from: &str, name: &str| {
        let expected = format!("expected {{len({from}['{name}'])}} channels, got an input of shape {{shape}}");
        [format!("if len({from}[\"{name}\"]) != channels:"), format!("    raise ValueError(f\"{expected}\")")]
    };
    let params = outline.dag.params().iter().map(|param| ("params", &param.name, param.extent));
    let buffers = outline.buffers.list().iter().map(|buffer| ("state", &buffer.name, buffer.extent));
    // One of those that have a value for each channel tells how many there are.
    let sized = params.chain(buffers).find(|(_, _, extent)| *extent == Extent::PerChannel);
    let check = sized.map(|(from, name, _)| check(from, name));
    lines.into_iter().map(str::to_owned).chain(check.into_iter().flatten()).collect()
}

/// An average, or a mean and a variance of the same elements.
fn statistic(body: &Body, groups: &GroupCounts, steps: &[usize]) -> Statistic {
    let mut lines = Statistic::default();
    let averages: Vec<_> = steps.iter().map(|&step| body.average(step)).collect();
    let average = averages[0].1;
    let operand = body.expr(&average.operand);
    let groups = groups.text(average, "");
    if let Some(groups) = &groups {
        lines.compute.push(format!("grouped = {operand}.reshape({operand}.shape[0], {groups}, -1)"));
    }
    let (values, axes) = match groups {
        Some(_) => ("grouped", "2".to_owned()),
        None => (operand.as_str(), python::axes(average)),
    };
    let mean_of = |values: String| format!("jnp.mean({values}, axis={axes}, keepdims=True)");
    for (name, average) in &averages {
        let value = match (average.quantity, averages.as_slice()) {
            (Quantity::Mean, _) => mean_of(values.to_owned()),
            (Quantity::MeanSquare, _) => mean_of(format!("jnp.square({values})")),
            (Quantity::Variance, [(mean, _), _]) => mean_of(format!("jnp.square({values} - {mean})")),
            (Quantity::Variance, _) => format!("jnp.var({values}, axis={axes}, keepdims=True)"),
        };
        lines.compute.push(format!("{name} = {value}"));
    }
    for (name, average) in averages {
        if let Some(groups) = &groups {
            lines.compute.push(format!("{name} = jnp.repeat({name}, channels // {groups}, axis=1)"));
        }
        let Some(buffer) = body.buffer(average) else { continue };
        let momentum = number(buffer.tracking.momentum.get());
        let value = match buffer.tracking.running {
            Running::Biased => name.to_owned(),
            Running::Unbiased => {
                lines.update.push(format!("count = {operand}.size // {name}.size"));
                format!("{name} * (count / max(count - 1, 1))")
            }
        };
        let key = &buffer.name;
        lines.update.push(format!("new_state[\"{key}\"] = moved(state[\"{key}\"], {value}, {momentum})"));
        lines.read.push(format!("{name} = per_channel(state[\"{key}\"], x)"));
    }
    lines
}

/// The Flax module, which leaves the work to the function.
fn module(outline: &Outline, names: &Names) -> String {
    let Names { class, function } = names;
    let head = format!(
        r#"try:
    from flax import linen
except ImportError:
    pass  # Without Flax, the layer is the functions above.
else:

    class {class}(linen.Module):
"#
    );
    let call = format!("{function}(params, state, x, training=training)");
    if outline.buffers.list().is_empty() {
        return format!(
            r#"{head}        """`{function}` with parameters in the collection `params`, for axis 1 as the channels."""

        param_dtype: jnp.dtype = jnp.float32

        @linen.compact
        def __call__(self, x, *, training=False):
            params, state = init(x.shape[1], self.param_dtype)
            params = {{name: self.param(name, lambda _, value: value, value) for name, value in params.items()}}
            y, _ = {call}
            return y
"#
        );
    }
    format!(
        r#"{head}        """`{function}` with parameters in the collection `params` and running averages in `batch_stats`, for
        axis 1 as the channels."""

        param_dtype: jnp.dtype = jnp.float32

        @linen.compact
        def __call__(self, x, *, training):
            params, state = init(x.shape[1], self.param_dtype)
            params = {{name: self.param(name, lambda _, value: value, value) for name, value in params.items()}}
            running = {{
                name: self.variable("batch_stats", name, lambda value: value, value) for name, value in state.items()
            }}
            state = {{name: variable.value for name, variable in running.items()}}
            y, state = {call}
            if training and not self.is_initializing():
                for name, variable in running.items():
                    variable.value = state[name]
            return y
"#
    )
}
