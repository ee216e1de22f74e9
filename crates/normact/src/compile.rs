//! From a formula to a module, the whole flow in one place.

use burn::tensor::Device;
use normact_burn::NormAct;
use normact_ir::Layer;
use normact_syntax::{Overrides, Source, compile, render};

use crate::{Failure, built_in};

/// Compiles the one layer that a text defines: parse, resolve names, build the graph, check it.
///
/// # Errors
/// The text is wrong, or defines no layer or several; the message shows every mistake with its line.
pub fn from_text(text: &str) -> Result<Layer, Failure> {
    from_source(&Source::new("<text>", text))
}

fn from_source(source: &Source) -> Result<Layer, Failure> {
    let analysis = compile(source, &Overrides::none());
    if analysis.has_errors() {
        return Err(Failure::rendered(render(source, &analysis.diagnostics, false)));
    }
    match analysis.layers.as_slice() {
        [compiled] => Ok(compiled.layer.clone()),
        layers => Err(Failure::new(format!("{} defines {} layers, expected one", source.name, layers.len()))),
    }
}

/// A Burn module from a formula.
///
/// ```
/// # fn main() -> Result<(), normact::Failure> {
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex();
/// let norm = normact::module("layer swish(x) { param v = 1  x * sigmoid(v * x) }", 16, &device)?;
/// let y = norm.forward(Tensor::<4>::ones([8, 16, 4, 4], &device));
/// assert_eq!(y.dims(), [8, 16, 4, 4]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The text is wrong, or does not fit the number of channels.
pub fn module(text: &str, channels: usize, device: &Device) -> Result<NormAct, Failure> {
    module_from_layer(&from_text(text)?, channels, device)
}

/// A Burn module from a built-in layer, with its default settings.
///
/// # Errors
/// There is no built-in layer of that name.
pub fn built_in_module(name: &str, channels: usize, device: &Device) -> Result<NormAct, Failure> {
    let source = built_in::source(name).ok_or_else(|| {
        let names: Vec<&str> = built_in::names().collect();
        Failure::new(format!("there is no built-in layer `{name}`")).help(format!("there are {}", names.join(", ")))
    })?;
    module_from_layer(&from_source(&source)?, channels, device)
}

/// A Burn module from a graph.
///
/// # Errors
/// The layer does not fit the number of channels.
pub fn module_from_layer(layer: &Layer, channels: usize, device: &Device) -> Result<NormAct, Failure> {
    NormAct::new(layer, channels, device).map_err(|error| Failure::new(error.to_string()))
}
