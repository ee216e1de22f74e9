//! The built-in layers.

use normact_ir::Layer;
use normact_syntax::{Overrides, Source, compile};

/// Every built-in layer with its text, by name.
pub(crate) fn built_in() -> Vec<(Layer, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    let files = std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers");
    let mut paths: Vec<_> = files.map(|file| file.expect("a folder can be listed").path()).collect();
    paths.sort();
    let layers = paths.iter().flat_map(|path| {
        let text = std::fs::read_to_string(path).expect("a layer is a text file");
        compiled(&text).into_iter().map(move |layer| (layer, text.clone()))
    });
    layers.collect()
}

/// The layers of a text.
pub(crate) fn compiled(text: &str) -> Vec<Layer> {
    let analysis = compile(&Source::new("layers.nact", text), &Overrides::default());
    assert!(!analysis.has_errors(), "{:?}", analysis.diagnostics);
    analysis.layers.into_iter().map(|compiled| compiled.layer).collect()
}
