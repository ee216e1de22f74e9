//! Weights of one layer in safetensors files.

use std::path::Path;

use normact_ir::{Buffers, Extent, Layer};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Failure, files};

/// The values of every parameter and running average, by their names in the formula.
pub(super) type Weights = Vec<(String, Vec<f32>)>;

/// The largest file of weights that is read, in bytes.
const MAX_WEIGHTS: u64 = 1 << 30;

/// The names of everything that has a value for each channel or one in all.
fn names(layer: &Layer) -> Vec<(String, Extent)> {
    let params = layer.dag.params().iter().map(|param| (param.name.clone(), param.extent));
    let buffers = Buffers::of(&layer.dag);
    params.chain(buffers.list().iter().map(|buffer| (buffer.name.clone(), buffer.extent))).collect()
}

/// The number of channels that the values are for, if one of them is per channel.
pub(super) fn channels(layer: &Layer, weights: &Weights) -> Option<usize> {
    let (name, _) = names(layer).into_iter().find(|(_, extent)| *extent == Extent::PerChannel)?;
    weights.iter().find(|(found, _)| *found == name).map(|(_, values)| values.len())
}

/// Reads a value for everything that the layer has, from tensors that are called as `saved_name` says,
/// after `prefix` and a dot.
pub(super) fn read(
    layer: &Layer,
    path: &Path,
    prefix: Option<&str>,
    saved_name: impl Fn(&str) -> &str,
) -> Result<Weights, Failure> {
    let bytes = files::read(path, MAX_WEIGHTS)?;
    let at = path.display();
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Failure::new(format!("{at} is cut short or is not a safetensors file ({error})")))?;
    let mut weights = vec![];
    let mut channels = None;
    for (name, extent) in names(layer) {
        let key =
            prefix.map_or_else(|| saved_name(&name).to_owned(), |prefix| format!("{prefix}.{}", saved_name(&name)));
        let tensor = tensors.tensor(&key).map_err(|_| {
            let mut known: Vec<&str> = tensors.names().into_iter().collect();
            known.sort_unstable();
            let more = if known.len() > 12 { ", ..." } else { "" };
            known.truncate(12);
            Failure::new(format!("{at} has no tensor `{key}`"))
                .help(format!("it has {}{more}; `--prefix` names the part of a model", known.join(", ")))
        })?;
        let values = numbers(&tensor).ok_or_else(|| {
            Failure::new(format!("`{key}` in {at} is {:?}, not f32", tensor.dtype())).help("save it as f32")
        })?;
        let expected = match extent {
            Extent::Scalar => Some(1),
            Extent::PerChannel => channels,
        };
        if expected.is_some_and(|expected| expected != values.len()) || values.is_empty() {
            let expected = expected.unwrap_or(1);
            return Err(Failure::new(format!("`{key}` in {at} has {} values, not {expected}", values.len())));
        }
        if extent == Extent::PerChannel {
            channels = Some(values.len());
        }
        weights.push((name, values));
    }
    Ok(weights)
}

fn numbers(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    if tensor.dtype() != Dtype::F32 {
        return None;
    }
    Some(
        tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect(),
    )
}

/// Weights as a safetensors file.
pub(super) fn saved(weights: &Weights) -> Result<Vec<u8>, Failure> {
    let bytes: Vec<(&String, Vec<u8>)> = weights
        .iter()
        .map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (name.as_str(), view))
    });
    let cannot = |error: safetensors::SafeTensorError| Failure::new(format!("cannot save the weights: {error}"));
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(cannot)?;
    safetensors::serialize(views, None).map_err(cannot)
}
