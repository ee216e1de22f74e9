//! From what a user names to a layer: `file.nact`, `file.nact:name`, `graph.json`, the name of a
//! built-in layer, or `-` for standard input.

use std::io::Read;
use std::path::Path;

use normact_ir::{Layer, json};
use normact_syntax::{Code, Compiled, Diagnostic, MAX_BYTES, Overrides, Source, Span, compile, render};

use crate::{Failure, built_in, files};

/// The largest graph in JSON that is read, in bytes.
const MAX_GRAPH_BYTES: u64 = 64 << 20;

/// A layer and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The layer.
    pub layer: Layer,
    /// Its text, for layers that came from one.
    pub text: Option<Text>,
}

/// The text of a layer and what was said about it.
#[derive(Debug, Clone)]
pub struct Text {
    /// The text of the whole file.
    pub source: Source,
    /// The layer with its places.
    pub compiled: Compiled,
    /// Warnings about the file.
    pub warnings: Vec<Diagnostic>,
}

/// Finds a layer and applies `name=value` settings to it.
///
/// # Errors
/// There is no such file or layer, or the text is wrong; the message holds the diagnostics.
pub fn layer(spec: &str, settings: &[String]) -> Result<Layer, Failure> {
    load(spec, settings).map(|loaded| loaded.layer)
}

/// Finds a layer as [`layer`] does, and keeps its text.
///
/// # Errors
/// Those of [`layer`].
pub fn load(spec: &str, settings: &[String]) -> Result<Loaded, Failure> {
    let overrides = Overrides::parse(settings).map_err(Failure::new)?;
    match find(spec)? {
        Found::Text { source, name } => from_text(source, name.as_deref(), &overrides),
        Found::Graph { source } if settings.is_empty() => from_graph(&source),
        Found::Graph { source } => Err(Failure::new(format!("{} is a graph, which has no settings", source.name))
            .help("leave `--set` out, or use the layer's text")),
    }
}

enum Found {
    Text { source: Source, name: Option<String> },
    Graph { source: Source },
}

fn find(spec: &str) -> Result<Found, Failure> {
    if spec == "-" {
        return text_or_graph(STDIN, standard_input(MAX_GRAPH_BYTES)?, None);
    }
    if let Some(source) = built_in::source(spec) {
        return Ok(Found::Text { source, name: Some(spec.to_owned()) });
    }
    let (path, name) = match spec.rsplit_once(':') {
        Some((path, name)) if json::is_identifier(name) && !Path::new(spec).exists() => (path, Some(name.to_owned())),
        _ => (spec, None),
    };
    let looks_like_a_file = path.contains(['/', '\\', '.']) || Path::new(path).exists();
    if !looks_like_a_file {
        let help = match nearest_built_in(spec) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "`normact list` prints the built-in layers; a file is named by its path, `./name.nact`".to_owned(),
        };
        return Err(Failure::new(format!("there is no built-in layer `{spec}`, and no file of that name")).help(help));
    }
    let limit = if path.ends_with(".json") { MAX_GRAPH_BYTES } else { MAX_BYTES as u64 };
    let bytes = files::read(Path::new(path), limit)?;
    text_or_graph(path, bytes, name)
}

fn nearest_built_in(spec: &str) -> Option<&'static str> {
    normact_syntax::nearest(spec, built_in::names())
}

/// A graph starts with a brace, a formula never does.
fn text_or_graph(file: &str, bytes: Vec<u8>, name: Option<String>) -> Result<Found, Failure> {
    let source = utf8(file, bytes).map_err(|unreadable| rendered(&unreadable.0, &[unreadable.1]))?;
    if source.text.trim_start().starts_with('{') {
        Ok(Found::Graph { source })
    } else {
        Ok(Found::Text { source, name })
    }
}

/// What messages call standard input.
const STDIN: &str = "<stdin>";

fn standard_input(limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(format!("standard input has more than the {limit} bytes accepted here")));
    }
    Ok(bytes)
}

/// The text of a file, or of standard input for `-`; the inner error is what is wrong with its bytes.
///
/// # Errors
/// The file cannot be read or is too large.
pub fn source(file: &str) -> Result<Result<Source, Box<(Source, Diagnostic)>>, Failure> {
    match file {
        "-" => Ok(utf8(STDIN, standard_input(MAX_BYTES as u64)?)),
        path => Ok(utf8(path, files::read(Path::new(path), MAX_BYTES as u64)?)),
    }
}

/// The text, or what is wrong with the bytes; the place is in the part before the first wrong byte.
fn utf8(file: &str, bytes: Vec<u8>) -> Result<Source, Box<(Source, Diagnostic)>> {
    String::from_utf8(bytes).map(|text| Source::new(file, text)).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[valid];
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let message = format!("the file is not UTF-8 text: byte {valid} is 0x{byte:02x}");
        let diagnostic = Diagnostic::new(Code::NotUtf8, Span::new(valid, valid), message)
            .help("save it as UTF-8, or check that this is the file you meant");
        Box::new((Source::new(file, text), diagnostic))
    })
}

fn from_text(source: Source, name: Option<&str>, overrides: &Overrides) -> Result<Loaded, Failure> {
    let analysis = compile(&source, overrides);
    if analysis.has_errors() {
        return Err(rendered(&source, &analysis.diagnostics));
    }
    let names: Vec<&str> = analysis.layers.iter().map(|compiled| compiled.layer.name.as_str()).collect();
    let all = names.join(", ");
    let compiled = match name {
        Some(name) => analysis.layers.iter().find(|compiled| compiled.layer.name == name).cloned().ok_or_else(|| {
            let help = match normact_syntax::nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it defines {all}"),
            };
            Failure::new(format!("{} defines no layer `{name}` [E0105]", source.name)).help(help)
        }),
        None if names.len() == 1 => Ok(analysis.layers[0].clone()),
        None if names.is_empty() => {
            Err(Failure::new(format!("{} defines no layer [E0105]", source.name)).help("write `layer name(x) { ... }`"))
        }
        None => Err(Failure::new(format!("{} defines several layers: {all}", source.name))
            .help(format!("say which, as in {}:{}", source.name, names[0]))),
    }?;
    Ok(Loaded { layer: compiled.layer.clone(), text: Some(Text { source, compiled, warnings: analysis.diagnostics }) })
}

fn from_graph(source: &Source) -> Result<Loaded, Failure> {
    let layer = json::from_json(&source.text).map_err(|error| {
        Failure::new(format!("{}: {error}", source.name))
            .help("`normact show LAYER --as json` prints a graph in this form")
    })?;
    Ok(Loaded { layer, text: None })
}

/// Diagnostics as an error message.
fn rendered(source: &Source, diagnostics: &[Diagnostic]) -> Failure {
    Failure::rendered(render(source, diagnostics, crate::cli::color_on_stderr()))
}
