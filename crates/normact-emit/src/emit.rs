//! A layer as a file in the language of another program: the targets, and what can go wrong before a
//! single byte is written.

use std::fmt;

use normact_ir::{Buffers, Layer, ShapeError};

use crate::{jax, onnx, pytorch, rust};

/// A language or format that layers are emitted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A Burn module that depends on Burn alone.
    Rust,
    /// A `torch.nn.Module`.
    Pytorch,
    /// A pure function on JAX arrays and a Flax module.
    Jax,
    /// An ONNX model.
    Onnx,
}

impl Target {
    /// Every target.
    pub const ALL: &'static [Target] = &[Target::Rust, Target::Pytorch, Target::Jax, Target::Onnx];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::Rust => "rust",
            Target::Pytorch => "pytorch",
            Target::Jax => "jax",
            Target::Onnx => "onnx",
        }
    }
}

/// What a target may need to know beside the layer.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The text that the layer comes from, quoted in the file's documentation.
    pub source: Option<String>,
    /// The number of channels, for targets whose file holds the parameters.
    pub channels: Option<usize>,
    /// The number of axes of the input, for targets whose file says it; 4 where it is not given.
    pub rank: Option<usize>,
    /// Values of parameters and running averages, by the names in the formula; what is not given has its
    /// initial value.
    pub weights: Vec<(String, Vec<f32>)>,
}

/// A file that was emitted.
#[derive(Debug, Clone)]
pub struct EmittedFile {
    /// Its name, without folders.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Why a layer cannot be emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitError {
    /// A name means something else in the target language.
    Keyword {
        /// The name.
        name: String,
        /// What it names: the layer, or a parameter.
        what: &'static str,
        /// The language.
        target: &'static str,
    },
    /// A name is not made of ASCII letters, digits and underscores.
    NotAnIdentifier {
        /// The name.
        name: String,
        /// What it names.
        what: &'static str,
        /// The language.
        target: &'static str,
    },
    /// Two things have one name in the target language.
    Collision {
        /// The name.
        name: String,
        /// The language.
        target: &'static str,
    },
    /// The file holds parameters, and it is not known for how many channels.
    ChannelsUnknown {
        /// The format.
        target: &'static str,
    },
    /// The input has a shape that the layer does not take.
    Shape(ShapeError),
    /// Weights do not fit the layer.
    Weights(String),
    /// The layer needs something that the target does not have.
    Unsupported {
        /// What it is.
        what: String,
        /// The language.
        target: &'static str,
    },
}

impl EmitError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            EmitError::Keyword { .. } | EmitError::NotAnIdentifier { .. } | EmitError::Collision { .. } => {
                "rename it in the formula"
            }
            EmitError::ChannelsUnknown { .. } => "say how many channels the layer has",
            EmitError::Shape(_) => "choose another number of channels or of axes",
            EmitError::Weights(_) => "give weights that were saved for this layer",
            EmitError::Unsupported { .. } => "choose another target",
        }
    }
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmitError::Keyword { name, what, target } => {
                write!(f, "the {what} `{name}` cannot be called so in {target}, where that is a word of the language")
            }
            EmitError::NotAnIdentifier { name, what, target } => write!(
                f,
                "the {what} `{name}` cannot be called so in {target}: a name is ASCII letters, digits and underscores"
            ),
            EmitError::Collision { name, target } => write!(f, "two things would be called `{name}` in {target}"),
            EmitError::ChannelsUnknown { target } => {
                write!(f, "{target} stores parameters, and it is not known for how many channels")
            }
            // Its help is a part of it elsewhere; here it has one of its own.
            EmitError::Shape(error) => f.write_str(&error.message),
            EmitError::Weights(message) => f.write_str(message),
            EmitError::Unsupported { what, target } => write!(f, "{target} does not have {what}"),
        }
    }
}

impl std::error::Error for EmitError {}

/// Emits a layer: one file, or a file and what belongs to it.
///
/// # Errors
/// See [`EmitError`]; then nothing is emitted.
pub fn emit(layer: &Layer, target: Target, options: &Options) -> Result<Vec<EmittedFile>, EmitError> {
    match target {
        Target::Rust => rust::emit(layer, options),
        Target::Pytorch => pytorch::emit(layer, options),
        Target::Jax => jax::emit(layer, options),
        Target::Onnx => onnx::emit(layer, options),
    }
}

/// The names of a layer as a target language has them.
pub(crate) struct Names {
    /// The layer's name as that of a type: `EvonormS0`.
    pub(crate) class: String,
    /// The layer's name as that of a file or a function: `evonorm_s0`.
    pub(crate) function: String,
}

impl Names {
    /// Checks every name of a layer against the words of a language, and those that its files use
    /// themselves.
    ///
    /// # Errors
    /// A name is no identifier, is a word, or stands for two things.
    pub(crate) fn new(layer: &Layer, words: &[&str], target: &'static str) -> Result<Self, EmitError> {
        let check = |name: &str, what: &'static str| {
            let mut chars = name.chars();
            let starts = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
            if !starts || !chars.all(|char| char.is_ascii_alphanumeric() || char == '_') {
                return Err(EmitError::NotAnIdentifier { name: name.to_owned(), what, target });
            }
            if words.contains(&name) {
                return Err(EmitError::Keyword { name: name.to_owned(), what, target });
            }
            Ok(())
        };
        check(&layer.name, "layer")?;
        let mut names: Vec<&str> = vec![];
        let buffers = Buffers::of(&layer.dag);
        let params = layer.dag.params().iter().map(|param| (param.name.as_str(), "parameter"));
        let running = buffers.list().iter().map(|buffer| (buffer.name.as_str(), "running average"));
        for (name, what) in params.chain(running) {
            check(name, what)?;
            if names.contains(&name) {
                return Err(EmitError::Collision { name: name.to_owned(), target });
            }
            names.push(name);
        }
        let class = type_name(&layer.name);
        check(&class, "layer")?;
        Ok(Self { class, function: layer.name.clone() })
    }
}

/// A layer's name as that of a type: `EvonormS0` for `evonorm_s0`.
pub fn type_name(layer: &str) -> String {
    layer.split('_').map(capitalized).collect()
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
