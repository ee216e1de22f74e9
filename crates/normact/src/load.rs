//! From what a user names to a layer: `file.nact`, `file.nact:name`, `graph.json`, the name of a
//! built-in layer, or `-` for standard input.

use std::io::Read;
use std::path::Path;

use normact_ir::{Layer, json};
use normact_syntax::{
    Analysis, Code, Compiled, Diagnostic, Known, MAX_BYTES, Overrides, Source, Span, compile, render,
};

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
    load_tolerating(&[], spec, settings)
}

/// Finds a layer as [`load`] does, and overlooks what the `tolerated` codes say about it: a command that
/// judges layers has an answer of its own for one that ignores its input.
///
/// # Errors
/// Those of [`layer`].
pub fn load_tolerating(tolerated: &[Code], spec: &str, settings: &[String]) -> Result<Loaded, Failure> {
    let overrides = Overrides::parse(settings).map_err(Failure::new)?;
    match find(spec)? {
        Found::Graph { source } if !settings.is_empty() => {
            Err(Failure::new(format!("{} is a graph, which has no settings", source.name))
                .help("leave `--set` out, or use the layer's text"))
        }
        found => found.load(&overrides, tolerated),
    }
}

/// Finds two layers. A setting applies to both where they have it, and otherwise to the one that does.
///
/// # Errors
/// Those of [`layer`]; neither layer has a setting; both are standard input.
pub fn pair(specs: [&str; 2], settings: &[String]) -> Result<[Loaded; 2], Failure> {
    if specs == ["-", "-"] {
        return Err(
            Failure::new("standard input can be one of the layers, not both").help("write one of them to a file")
        );
    }
    Overrides::parse(settings).map_err(Failure::new)?;
    let found = [find(specs[0])?, find(specs[1])?];
    let mut known: [Vec<String>; 2] = Default::default();
    for (known, found) in known.iter_mut().zip(&found) {
        *known = found.settings()?;
    }
    let applies = |known: &[String], setting: &str| {
        let name = setting.split_once('=').map_or(setting, |(name, _)| name).trim();
        known.iter().any(|known| known == name)
    };
    if let Some(setting) = settings.iter().find(|setting| !known.iter().any(|known| applies(known, setting))) {
        let name = setting.split_once('=').map_or(setting.as_str(), |(name, _)| name).trim();
        let all: Vec<&str> = known.iter().flatten().map(String::as_str).collect();
        let help = match normact_syntax::nearest(name, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if all.is_empty() => "both are graphs, which have no settings".to_owned(),
            None => "`normact show LAYER` prints the settings of a layer behind its input".to_owned(),
        };
        return Err(Failure::new(format!("neither layer has a setting `{name}`")).help(help));
    }
    let mut loaded = Vec::with_capacity(2);
    for (known, found) in known.iter().zip(found) {
        let own: Vec<String> = settings.iter().filter(|setting| applies(known, setting)).cloned().collect();
        loaded.push(found.load(&Overrides::parse(&own).map_err(Failure::new)?, &[])?);
    }
    let [first, second] = <[Loaded; 2]>::try_from(loaded).unwrap_or_else(|_| unreachable!("two layers were loaded"));
    Ok([first, second])
}

#[derive(Clone)]
enum Found {
    Text { source: Source, name: Option<String> },
    Graph { source: Source },
}

impl Found {
    fn load(self, overrides: &Overrides, tolerated: &[Code]) -> Result<Loaded, Failure> {
        match self {
            Found::Text { source, name } => from_text(source, name.as_deref(), overrides, tolerated),
            Found::Graph { source } => from_graph(&source),
        }
    }

    /// The settings a caller may override: those the layer declares, and the four that moments read.
    fn settings(&self) -> Result<Vec<String>, Failure> {
        let loaded = match self {
            Found::Text { .. } => self.clone().load(&Overrides::none(), &[])?,
            Found::Graph { .. } => return Ok(Vec::new()),
        };
        let own = loaded.text.into_iter().flat_map(|text| text.compiled.settings).map(|(name, _)| name);
        Ok(own.chain(Known::ALL.iter().map(|known| known.name().to_owned())).collect())
    }
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

fn from_text(source: Source, name: Option<&str>, overrides: &Overrides, tolerated: &[Code]) -> Result<Loaded, Failure> {
    let mut analysis = compile(&source, overrides);
    analysis.diagnostics.retain(|diagnostic| !tolerated.contains(&diagnostic.code));
    if let (true, Some(name)) = (analysis.has_errors(), name) {
        forgive_neighbours(&mut analysis, &source, name);
    }
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

/// In a file that is right by itself, settings concern the layer that is named only: what is wrong with
/// them elsewhere does not count.
fn forgive_neighbours(analysis: &mut Analysis, source: &Source, name: &str) {
    let plain = compile(source, &Overrides::none());
    let place = plain.layers.iter().position(|compiled| compiled.layer.name == name);
    if let (false, Some(place)) = (plain.has_errors(), place) {
        let begin = |compiled: &Compiled| compiled.name_span.start;
        let own = begin(&plain.layers[place])..plain.layers.get(place + 1).map_or(usize::MAX, begin);
        analysis.diagnostics.retain(|diagnostic| !diagnostic.is_error() || own.contains(&diagnostic.span.start));
    }
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
