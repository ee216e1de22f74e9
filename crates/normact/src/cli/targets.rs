//! The languages and formats that layers are written in, for every command that emits some.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use normact_emit::{EmittedFile, Options, Target, emit};
use normact_ir::Layer;

use crate::{Failure, files};

/// A language or format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// A module for Burn
    Rust,
    /// A torch.nn.Module
    Pytorch,
    /// A function on JAX arrays, and a Flax module
    Jax,
    /// An ONNX model
    Onnx,
}

impl Language {
    pub(super) fn target(self) -> Target {
        match self {
            Language::Rust => Target::Rust,
            Language::Pytorch => Target::Pytorch,
            Language::Jax => Target::Jax,
            Language::Onnx => Target::Onnx,
        }
    }
}

/// Writes a layer, and `more` beside it, into a folder, which is made if there is none. Gives the files.
pub(super) fn write(
    layer: &Layer,
    language: Language,
    options: &Options,
    more: Vec<EmittedFile>,
    folder: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    let failure = |error: normact_emit::EmitError| Failure::new(error.to_string()).help(error.help());
    let mut emitted = emit(layer, language.target(), options).map_err(failure)?;
    emitted.extend(more);
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))?;
    let mut paths = vec![];
    for file in &emitted {
        let path = folder.join(&file.name);
        files::write(&path, &file.bytes)?;
        paths.push(path);
    }
    Ok(paths)
}
