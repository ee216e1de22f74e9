//! Emits layers into the output folder, with the list of their modules.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use normact_emit::{Options, Target, emit};
use normact_ir::{Buffers, Layer};

#[path = "src/layers.rs"]
mod layers;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/layers.rs");
    println!("cargo::rerun-if-changed=../../grammar/layers");
    println!("cargo::rerun-if-changed=layers/everything.nact");
    let folder = env::var("OUT_DIR").expect("cargo sets it");
    let folder = Path::new(&folder);
    let (mut modules, mut list, mut stored) = (String::new(), String::new(), String::new());
    for layers::Case { name, layer, source, rank } in layers::cases() {
        let layer = Layer { name: name.clone(), ..layer };
        let is_built_in = source.is_some();
        let files = emit(&layer, Target::Rust, &Options { source, ..Options::default() });
        for file in files.unwrap_or_else(|error| panic!("{name}: {error}")) {
            let path = folder.join(file.name);
            fs::write(&path, file.bytes).expect("the output folder can be written");
            writeln!(modules, "#[doc = \"Emitted.\"]\n#[path = {path:?}]\npub mod {name};").expect("a string grows");
        }
        let class: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let params: Vec<_> = layer.dag.params().iter().map(|param| param.name.as_str()).collect();
        let buffers = Buffers::of(&layer.dag);
        let running: Vec<_> = buffers.list().iter().map(|buffer| buffer.name.as_str()).collect();
        let flag = match (running.is_empty(), params.contains(&"training")) {
            (true, _) => "",
            (false, false) => "training",
            (false, true) => "training_2",
        };
        let (params, running) = (params.join(" "), running.join(" "));
        let idents = format!("{name} {class} {class}Config");
        writeln!(list, "    {idents} {rank} [{params}] [{running}] [{flag}];").expect("a string grows");
        if is_built_in {
            writeln!(stored, "    {idents};").expect("a string grows");
        }
    }
    let text = format!("{modules}\nemitted! {{\n{list}}}\n\nstored! {{\n{stored}}}\n");
    fs::write(folder.join("modules.rs"), text).expect("the output folder can be written");
}
