//! Emitted Rust: golden files of the built-in layers, the layout of any layer, and the names that
//! cannot be. The package `tests/emitted` compiles and runs what is emitted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::{expect, expect_file};
use normact_emit::{Options, Target, emit};
use normact_ir::Layer;
use normact_ir::random::Space;
use normact_syntax::{Overrides, Source, compile};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[test]
fn the_built_in_layers_read_well() {
    for (name, text) in built_in() {
        expect_file![golden(&name)].assert_eq(&emitted(&layer(&text), Some(text)));
    }
}

#[test]
fn a_layer_with_everything_reads_well() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/emitted/layers/everything.nact");
    let text = fs::read_to_string(file).expect("the layer is there");
    expect_file![golden("everything")].assert_eq(&emitted(&layer(&text), Some(text)));
}

/// Layouts with the defaults of the current style edition and of the first one.
#[test]
fn rustfmt_leaves_every_file_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    fs::write(folder.path().join("rustfmt.toml"), "").expect("the folder can be written");
    let mut files: Vec<PathBuf> = built_in().iter().map(|(name, _)| golden(name)).collect();
    files.push(golden("everything"));
    for seed in 0..600 {
        let space = if seed % 2 == 0 { Space::language() } else { Space { nodes: 40, ..Space::evonorm() } };
        let layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
        let file = folder.path().join(format!("random_{seed}.rs"));
        fs::write(&file, emitted(&layer, None)).expect("the folder can be written");
        files.push(file);
    }
    let long = "a".repeat(30);
    let text = format!(
        "layer {long}(x) {{ param {long} = 0  let z = max(x, {long}) * {long} / std[batch](x * {long}) z * tanh(z) }}"
    );
    let file = folder.path().join("long.rs");
    fs::write(&file, emitted(&layer(&text), Some(text))).expect("the folder can be written");
    files.push(file);
    for style in ["2015", "2024"] {
        let mut rustfmt = Command::new("rustfmt");
        rustfmt.args(["--check", "--edition", "2024", "--style-edition", style]).args(&files);
        let output = rustfmt.output().expect("rustfmt is installed with Rust");
        let differences = String::from_utf8_lossy(&output.stdout);
        let some: Vec<&str> = differences.lines().take(40).collect();
        assert!(output.status.success(), "{}\n{}", some.join("\n"), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn names_that_rust_cannot_have_are_refused() {
    let check = |name: &str, text: &str, expected: expect_test::Expect| {
        let mut layer = layer(text);
        layer.name = name.to_owned();
        let error = emit(&layer, Target::Rust, &Options::default()).expect_err("the name is none");
        expected.assert_eq(&error.to_string());
    };
    let plain = "layer plain(x) { x * sigmoid(x) }";
    check(
        "match",
        plain,
        expect!["the layer `match` cannot be called so in Rust, where that is a word of the language"],
    );
    check(
        "tensor",
        plain,
        expect!["the layer `Tensor` cannot be called so in Rust, where that is a word of the language"],
    );
    check(
        "_1",
        plain,
        expect!["the layer `1` cannot be called so in Rust: a name is ASCII letters, digits and underscores"],
    );
    let keyword = "layer plain(x) { param type = 1  x * type }";
    check(
        "plain",
        keyword,
        expect!["the parameter `type` cannot be called so in Rust, where that is a word of the language"],
    );
    let derived = "layer plain(x) { param device = 1  x * device }";
    check(
        "plain",
        derived,
        expect![
            "the parameter `device` cannot be called so in Burn's `derive(Module)`, where that is a word of the language"
        ],
    );
}

#[test]
fn odd_characters_of_a_comment_are_not_quoted() {
    let text = "// tab\there, \u{202e}turned\u{2066}\nlayer plain(x) { x }\n";
    let emitted = emitted(&layer("layer plain(x) { x * x }"), Some(text.to_owned()));
    assert!(emitted.contains("/// // tab    here, \u{fffd}turned\u{fffd}\n/// layer plain(x) { x }\n"), "{emitted}");
}

fn built_in() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grammar/layers");
    let files = fs::read_dir(folder).expect("the built-in layers are there");
    let layer = |path: PathBuf| {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a layer is text"))
    };
    let mut layers: Vec<_> = files.map(|file| layer(file.expect("the folder can be read").path())).collect();
    layers.sort();
    layers
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/rust/{name}.rs"))
}

fn layer(text: &str) -> Layer {
    let analysis = compile(&Source::new("layer.nact", text), &Overrides::none());
    let errors: Vec<_> = analysis.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    analysis.layers[0].layer.clone()
}

fn emitted(layer: &Layer, source: Option<String>) -> String {
    let files = emit(layer, Target::Rust, &Options { source, ..Options::default() }).expect("the names fit");
    let [file] = files.as_slice() else { panic!("one file, found {}", files.len()) };
    assert_eq!(file.name, format!("{}.rs", layer.name));
    String::from_utf8(file.bytes.clone()).expect("Rust is UTF-8")
}
