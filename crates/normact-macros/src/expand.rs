//! From the input to the items of the module, or to what is wrong with it.

use std::path::Path;
use std::{env, fs};

use normact_emit::{EmitError, burn_module, type_name};
use normact_syntax::{Analysis, Compiled, Diagnostic, Overrides, Source, compile, render};
use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

use crate::input::{Input, Kind, string};
use crate::quoted::Quoted;

/// An error of rustc.
pub(crate) struct Mistake {
    pub(crate) message: String,
    /// The first and the last token.
    pub(crate) at: [Span; 2],
}

impl Mistake {
    /// `compile_error! { message }`: rustc marks the text from the place of the first token to that of the
    /// last.
    pub(crate) fn tokens(self) -> TokenStream {
        let [first, last] = self.at;
        let mut message = Literal::string(&self.message);
        message.set_span(last);
        let mut bang = Punct::new('!', Spacing::Alone);
        bang.set_span(first);
        let mut group = Group::new(Delimiter::Brace, TokenTree::Literal(message).into());
        group.set_span(last);
        let name = Ident::new("compile_error", first);
        [TokenTree::Ident(name), TokenTree::Punct(bang), TokenTree::Group(group)].into_iter().collect()
    }
}

type Result<T> = std::result::Result<T, Vec<Mistake>>;

/// Parameters that a formula need not declare, with the values they start with.
const USUAL: [(&str, &str); 3] = [("v", "1"), ("gamma", "1"), ("beta", "0")];

pub(crate) fn expand(tokens: TokenStream) -> Result<TokenStream> {
    let Input { docs, visibility, kind } = Input::read(tokens)?;
    match kind {
        Kind::Formula { name, header, body } => {
            let mut quoted = Quoted::new(name.span());
            let layer = snake_case(&name.to_string());
            for line in &docs {
                quoted.push(&format!("// {line}\n"), name.span());
            }
            quoted.push(&format!("layer {layer}"), name.span());
            match &header {
                Some(header) => quoted.group(header),
                None => quoted.push("(x)", name.span()),
            }
            quoted.push(" {", body.span_open());
            for (param, init) in USUAL {
                if uses_undefined(param, header.as_ref(), &body) {
                    quoted.push(&format!("\n    param {param} = {init}"), body.span_open());
                }
            }
            quoted.push("\n", body.span_open());
            quoted.lines(&body.stream(), 4);
            quoted.push("\n}", body.span_close());
            let analysis = compiled(&quoted)?;
            analysis.layers.iter().map(|layer| items(layer, &name, &quoted.text, &visibility, Some(&quoted))).collect()
        }
        Kind::Text(tokens) => {
            let mut quoted = Quoted::new(Span::call_site());
            quoted.lines(&tokens, 0);
            let analysis = compiled(&quoted)?;
            let text: Vec<String> = docs.iter().map(|line| format!("// {line}")).chain([quoted.text.clone()]).collect();
            let named = |layer: &Compiled| {
                let [at, _] = quoted.tokens_at(layer.name_span.start, layer.name_span.end);
                let name = type_ident(&layer.layer.name, at)?;
                items(layer, &name, &text.join("\n"), &visibility, Some(&quoted))
            };
            if analysis.layers.is_empty() {
                let message = "the text defines no layer\nhelp: write `layer name(x) { ... }`".to_owned();
                return Err(vec![Mistake { message, at: [Span::call_site(); 2] }]);
            }
            analysis.layers.iter().map(named).collect()
        }
        Kind::File { name, path } => file(name, &path, &visibility),
    }
}

/// What is wrong with the text, at its tokens.
fn compiled(quoted: &Quoted) -> Result<Analysis> {
    let analysis = compile(&Source::new("<layer>", quoted.text.as_str()), &Overrides::none());
    if !analysis.has_errors() {
        return Ok(analysis);
    }
    let errors = analysis.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let mistake = |diagnostic: &Diagnostic| Mistake {
        message: message(diagnostic),
        at: quoted.tokens_at(diagnostic.span.start, diagnostic.span.end),
    };
    Err(errors.map(mistake).collect())
}

/// The message with everything that the command line shows below the marked line.
fn message(diagnostic: &Diagnostic) -> String {
    let mut lines = vec![format!("{} [{}]", diagnostic.message, diagnostic.code.as_str())];
    let labels = std::iter::once(&diagnostic.label).chain(diagnostic.related.iter().map(|(_, label)| label));
    lines.extend(labels.filter(|label| !diagnostic.message.contains(*label)).cloned());
    lines.extend(diagnostic.notes.iter().cloned());
    lines.extend(diagnostic.help.iter().map(|help| format!("help: {help}")));
    lines.join("\n")
}

/// A file, as it is when the crate is compiled; rustc is told to watch it.
fn file(name: Option<Ident>, literal: &Literal, visibility: &TokenStream) -> Result<TokenStream> {
    let at = [literal.span(); 2];
    let wrong = |message: String| vec![Mistake { message, at }];
    let Some(spec) = string(literal) else {
        return Err(wrong("expected the path of a file\nhelp: write `\"file.nact\"`".to_owned()));
    };
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let (path, layer) = match spec.rsplit_once(':') {
        Some((path, layer)) if !Path::new(&folder).join(&spec).exists() => (path, Some(layer)),
        _ => (spec.as_str(), None),
    };
    let full = Path::new(&folder).join(path);
    let text = fs::read_to_string(&full).map_err(|error| {
        wrong(format!("cannot read {path}: {error}\nhelp: paths start at the folder of the crate's Cargo.toml"))
    })?;
    let source = Source::new(path, text);
    let analysis = compile(&source, &Overrides::none());
    if analysis.has_errors() {
        let errors: Vec<_> = analysis.diagnostics.into_iter().filter(Diagnostic::is_error).collect();
        return Err(wrong(format!("{path} is not right\n\n{}", render(&source, &errors, false).trim_end())));
    }
    let names: Vec<&str> = analysis.layers.iter().map(|layer| layer.layer.name.as_str()).collect();
    let chosen: Vec<&Compiled> = match layer {
        Some(layer) => analysis.layers.iter().filter(|known| known.layer.name == layer).collect(),
        None => analysis.layers.iter().collect(),
    };
    match (chosen.as_slice(), &name, layer) {
        ([], _, Some(layer)) => {
            let help = match normact_syntax::nearest(layer, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it defines {}", names.join(", ")),
            };
            return Err(wrong(format!("{path} defines no layer `{layer}`\nhelp: {help}")));
        }
        ([], _, None) => {
            return Err(wrong(format!("{path} defines no layer\nhelp: write `layer name(x) {{ ... }}`")));
        }
        ([first, _, ..], Some(_), _) => {
            let (all, first) = (names.join(", "), &first.layer.name);
            let help = format!("say which, as in \"{path}:{first}\"");
            return Err(wrong(format!("{path} defines several layers: {all}\nhelp: {help}")));
        }
        _ => {}
    }
    let mut tokens = watched(&full);
    for layer in chosen {
        let name = match &name {
            Some(name) => name.clone(),
            None => type_ident(&layer.layer.name, literal.span())?,
        };
        tokens.extend(items(layer, &name, &source.text, visibility, None)?);
    }
    Ok(tokens)
}

/// A constant that depends on a file.
fn watched(path: &Path) -> TokenStream {
    parsed(&format!("const _: &[u8] = include_bytes!({:?});", path.to_string_lossy()))
}

/// The module of a layer and its names; `quoted` are the tokens, where the layer is one of tokens.
fn items(
    layer: &Compiled,
    name: &Ident,
    source: &str,
    visibility: &TokenStream,
    quoted: Option<&Quoted>,
) -> Result<TokenStream> {
    let module = format!("__normact_{}", snake_case(&name.to_string()));
    let text = burn_module(&layer.layer, &name.to_string(), Some(source)).map_err(|error| {
        let at = named(&error).and_then(|word| quoted?.word(word)).unwrap_or(name.span());
        vec![Mistake { message: format!("{error}\nhelp: {}", error.help()), at: [at; 2] }]
    })?;
    let mut tokens = parsed(&format!("mod {module} {{ {text} }} #[allow(unused_imports)]"));
    tokens.extend(visibility.clone());
    tokens.extend(parsed(&format!("use {module}::{{{name}, {name}Config}};")));
    Ok(tokens)
}

/// The name that an error is about.
fn named(error: &EmitError) -> Option<&str> {
    match error {
        EmitError::Keyword { name, .. }
        | EmitError::NotAnIdentifier { name, .. }
        | EmitError::Collision { name, .. } => Some(name),
        EmitError::ChannelsUnknown { .. }
        | EmitError::Weights(_)
        | EmitError::Shape(_)
        | EmitError::Unsupported { .. } => None,
    }
}

fn type_ident(layer: &str, span: Span) -> Result<Ident> {
    let name = type_name(layer);
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) && name != "Self" {
        return Ok(Ident::new(&name, span));
    }
    let message = format!("the layer `{layer}` gives no name of a type\nhelp: rename it in the formula");
    Err(vec![Mistake { message, at: [span; 2] }])
}

fn parsed(text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| unreachable!("emitted text is Rust: {error}"))
}

/// Whether the formula reads a name that neither it nor the header defines.
fn uses_undefined(name: &str, header: Option<&Group>, body: &Group) -> bool {
    let body: Vec<String> = words(body.stream()).collect();
    let is_defined = body.windows(2).any(|pair| matches!(pair[0].as_str(), "param" | "let") && pair[1] == name);
    let in_header = header.is_some_and(|header| words(header.stream()).any(|word| word == name));
    body.iter().any(|word| word == name) && !is_defined && !in_header
}

/// The words among the tokens.
fn words(tokens: TokenStream) -> Box<dyn Iterator<Item = String>> {
    Box::new(tokens.into_iter().flat_map(|token| match token {
        TokenTree::Ident(ident) => Box::new(std::iter::once(ident.to_string())),
        TokenTree::Group(group) => words(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => Box::new(std::iter::empty()),
    }))
}

/// `evo_norm_s0` for `EvoNormS0`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, char) in name.char_indices() {
        if char.is_ascii_uppercase() && index > 0 && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}
