//! The layers that are emitted, by name: the build script emits them, the tests draw them again.

use std::fs;
use std::path::Path;

use normact_ir::Layer;
use normact_ir::random::Space;
use normact_syntax::{Overrides, Source, compile};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// How many layers are drawn from each space.
const DRAWN: u64 = 150;

/// A layer with the name of its module.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    /// The text of a built-in layer.
    pub(crate) source: Option<String>,
    /// The rank of the inputs it is tried on.
    pub(crate) rank: usize,
}

/// The built-in layers, one with everything, and random ones of the search space and the whole language.
pub(crate) fn cases() -> Vec<Case> {
    let spaces = [("evonorm", Space::evonorm()), ("language", Space::language())];
    let drawn = spaces.into_iter().flat_map(|(space_name, space)| {
        (0..DRAWN).map(move |seed| {
            let layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
            Case { name: format!("{space_name}_{seed}"), layer, source: None, rank: 2 + (seed % 4) as usize }
        })
    });
    let everything = from_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("layers/everything.nact"));
    built_in().into_iter().chain([Case { source: None, ..everything }]).chain(drawn).collect()
}

fn built_in() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grammar/layers");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the built-in layers are there")
        .map(|file| file.expect("the folder can be read").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| from_file(path)).collect()
}

fn from_file(path: &Path) -> Case {
    let text = fs::read_to_string(path).expect("a layer is text");
    let analysis = compile(&Source::new("layer.nact", text.as_str()), &Overrides::none());
    let layer = analysis.layers[0].layer.clone();
    Case { name: layer.name.clone(), layer, source: Some(text), rank: 4 }
}
