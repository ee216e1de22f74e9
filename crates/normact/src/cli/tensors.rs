//! Tensors in safetensors files, read whole and checked by name, shape and number format.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::DType;
use normact_ir::Shape;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::{Failure, files};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 8 << 30;

/// A tensor of a file, with its numbers widened to f64.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedTensor {
    pub(crate) dims: Vec<usize>,
    pub(crate) format: Format,
    pub(crate) values: Vec<f64>,
}

/// The number formats a layer can be run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F16,
    Bf16,
    F32,
    F64,
}

impl Format {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Format::F16),
            Dtype::BF16 => Some(Format::Bf16),
            Dtype::F32 => Some(Format::F32),
            Dtype::F64 => Some(Format::F64),
            _ => None,
        }
    }

    fn in_file(self) -> Dtype {
        match self {
            Format::F16 => Dtype::F16,
            Format::Bf16 => Dtype::BF16,
            Format::F32 => Dtype::F32,
            Format::F64 => Dtype::F64,
        }
    }

    /// The format on a device.
    pub(crate) fn on_device(self) -> DType {
        match self {
            Format::F16 => DType::F16,
            Format::Bf16 => DType::BF16,
            Format::F32 => DType::F32,
            Format::F64 => DType::F64,
        }
    }

    fn decode(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Format::F16 => numbers(bytes, |bytes| half::f16::from_le_bytes(bytes).to_f64()),
            Format::Bf16 => numbers(bytes, |bytes| half::bf16::from_le_bytes(bytes).to_f64()),
            Format::F32 => numbers(bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
            Format::F64 => numbers(bytes, f64::from_le_bytes),
        }
    }

    fn encode(self, values: &[f64]) -> Vec<u8> {
        match self {
            Format::F16 => values.iter().flat_map(|&value| half::f16::from_f64(value).to_le_bytes()).collect(),
            Format::Bf16 => values.iter().flat_map(|&value| half::bf16::from_f64(value).to_le_bytes()).collect(),
            Format::F32 => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
            Format::F64 => values.iter().flat_map(|&value| value.to_le_bytes()).collect(),
        }
    }
}

fn numbers<const SIZE: usize>(bytes: &[u8], number: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<SIZE>().0.iter().map(|&bytes| number(bytes)).collect()
}

/// Reads every tensor of a file.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, NamedTensor>, Failure> {
    let bytes = files::read(path, MAX_BYTES)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        Failure::new(format!("{} is not a safetensors file: {error}", path.display()))
            .help("write it with safetensors.torch.save_file or safetensors.numpy.save_file")
    })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let format = Format::of(view.dtype()).ok_or_else(|| {
            Failure::new(format!("{}: tensor `{name}` holds {:?}", path.display(), view.dtype()))
                .help("convert it to F32 (F64, F16 and BF16 are read too)")
        })?;
        let tensor = NamedTensor { dims: view.shape().to_vec(), format, values: format.decode(view.data()) };
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// Writes tensors to a file that replaces an existing one only when it is complete.
pub(crate) fn write(path: &Path, tensors: &BTreeMap<String, NamedTensor>) -> Result<(), Failure> {
    let encoded: Vec<(&String, &NamedTensor, Vec<u8>)> =
        tensors.iter().map(|(name, tensor)| (name, tensor, tensor.format.encode(&tensor.values))).collect();
    let cannot = |error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut views = Vec::with_capacity(encoded.len());
    for (name, tensor, bytes) in &encoded {
        let view = TensorView::new(tensor.format.in_file(), tensor.dims.clone(), bytes);
        views.push((name.as_str(), view.map_err(cannot)?));
    }
    let bytes = safetensors::serialize(views, None).map_err(cannot)?;
    files::write(path, &bytes)
}

/// Reads `N,C,H,W` as an input's shape.
pub(crate) fn shape(text: &str) -> Result<Shape, String> {
    let sizes: Result<Vec<usize>, _> = text.split([',', 'x']).map(|size| size.trim().parse()).collect();
    let sizes = sizes.map_err(|_| "write the sizes with commas between, as in 8,64,32,32".to_owned())?;
    Shape::new(&sizes).map_err(|error| error.to_string())
}
