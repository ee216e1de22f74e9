//! To be written.

use normact_ir::Layer;

use crate::emit::{EmitError, EmittedFile, Options};

pub(crate) fn emit(_: &Layer, _: &Options) -> Result<Vec<EmittedFile>, EmitError> {
    Ok(vec![])
}
