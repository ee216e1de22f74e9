//! The tensors stored in a model: numbers, and the integers of shapes.

use std::rc::Rc;

use super::super::proto::{TensorProto, data_type};
use super::view::{MAX_RANK, Size};

/// Floating-point numbers that are stored in the model.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) dims: Vec<usize>,
    /// In row-major order; one number where all are the same.
    pub(super) values: Rc<[f64]>,
    /// The name of the initializer that they are; none for what operators hold.
    pub(super) initializer: Option<Rc<str>>,
}

/// A shape, or a number that goes into one.
#[derive(Debug, Clone)]
pub(super) struct Integers {
    pub(super) list: Vec<Size>,
    /// Whether it is a single number without an axis.
    pub(super) is_scalar: bool,
}

pub(super) enum Stored {
    Numbers(Numbers),
    Integers(Integers),
}

impl Numbers {
    pub(super) fn new(dims: Vec<usize>, values: Vec<f64>, initializer: Option<Rc<str>>) -> Self {
        let same = values.first().is_some_and(|first| values.iter().all(|value| value == first));
        let values = if same { Rc::from([values[0]]) } else { Rc::from(values) };
        Self { dims, values, initializer }
    }

    pub(super) fn scalar(value: f64) -> Self {
        Self::new(vec![], vec![value], None)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// The number, if all are the same.
    pub(super) fn uniform(&self) -> Option<f64> {
        if let [value] = self.values[..] { Some(value) } else { None }
    }
}

/// Reads a tensor.
///
/// # Errors
/// What is wrong with it, or why a layer does not have it.
pub(super) fn stored(tensor: &TensorProto, initializer: Option<Rc<str>>) -> Result<Stored, String> {
    if tensor.data_location != 0 {
        return Err("its elements are in another file".to_owned());
    }
    if tensor.dims.len() > MAX_RANK {
        return Err(format!("it has {} axes", tensor.dims.len()));
    }
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
    let dims = dims.ok_or_else(|| format!("it has the shape {:?}", tensor.dims))?;
    let len = dims.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let raw = tensor.raw_data.as_deref();
    let (bytes, found) = match (tensor.data_type, raw) {
        (data_type::FLOAT, None) => (0, tensor.float_data.len()),
        (data_type::DOUBLE, None) => (0, tensor.double_data.len()),
        (data_type::INT64, None) => (0, tensor.int64_data.len()),
        (data_type::INT32, None) => (0, tensor.int32_data.len()),
        (data_type::FLOAT | data_type::INT32, Some(raw)) => (raw.len() % 4, raw.len() / 4),
        (data_type::DOUBLE | data_type::INT64, Some(raw)) => (raw.len() % 8, raw.len() / 8),
        (other, _) => {
            return Err(format!("its elements have type {other} of ONNX, which is not float, double or int64"));
        }
    };
    if bytes != 0 || len != Some(found) {
        return Err(format!("it has {found} elements, and not as many as its shape {:?} says", tensor.dims));
    }
    let raw = raw.unwrap_or_default();
    let integers = |list: Vec<i64>| {
        if dims.len() > 1 || list.len() > MAX_RANK {
            return Err(format!("it is a tensor of integers of shape {:?}, and not a shape", tensor.dims));
        }
        let list = list.into_iter().map(Size::Number).collect();
        Ok(Stored::Integers(Integers { list, is_scalar: dims.is_empty() }))
    };
    let numbers = |values: Vec<f64>| {
        if values.is_empty() {
            return Err("it has no elements".to_owned());
        }
        Ok(Stored::Numbers(Numbers::new(dims.clone(), values, initializer.clone())))
    };
    match tensor.data_type {
        data_type::FLOAT => {
            let values = words(raw).map(f32::from_le_bytes).chain(tensor.float_data.iter().copied());
            numbers(values.map(shortest).collect())
        }
        data_type::DOUBLE => {
            numbers(words(raw).map(f64::from_le_bytes).chain(tensor.double_data.iter().copied()).collect())
        }
        data_type::INT64 => {
            integers(words(raw).map(i64::from_le_bytes).chain(tensor.int64_data.iter().copied()).collect())
        }
        _ => {
            let values = words(raw).map(i32::from_le_bytes).chain(tensor.int32_data.iter().copied());
            integers(values.map(i64::from).collect())
        }
    }
}

/// The number that was meant by one in float32: the shortest decimal that is rounded to it, so that 1e-5 is
/// read as 1e-5.
pub(super) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).filter_map(|word| word.try_into().ok())
}
