//! What can go wrong when a module is built or its values are read and written by name.

use burn::tensor::TensorReadError;
use normact_ir::ShapeError;

/// Why a layer cannot be built for a number of channels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer `{layer}` does not fit {channels} channel(s): {}", listed(errors))]
pub struct BuildError {
    /// The layer's name.
    pub layer: String,
    /// The number of channels.
    pub channels: usize,
    /// Everything that does not fit; at least one.
    pub errors: Vec<ShapeError>,
}

/// Why a parameter or buffer cannot be read or written by name.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// There is none of that name.
    #[error("the layer has no `{name}`; it has {}", known.join(", "))]
    UnknownName {
        /// The name asked for.
        name: String,
        /// Every name there is.
        known: Vec<String>,
    },
    /// The wrong number of values was given.
    #[error("`{name}` has {expected} value(s), found {found}")]
    Length {
        /// The parameter or buffer.
        name: String,
        /// How many it has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The device did not deliver.
    #[error("`{name}` cannot be read from the device: {source}")]
    Device {
        /// The parameter or buffer.
        name: String,
        /// What the device reports.
        source: TensorReadError,
    },
}

fn listed(errors: &[ShapeError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
