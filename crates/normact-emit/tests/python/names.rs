//! Names that a file cannot have, with the whole message.

use expect_test::{Expect, expect};
use normact_emit::{Options, Target, emit};
use normact_ir::{Builder, Extent, Layer, Op, Operands, Param, Prim, Scalar};

use crate::layers::compiled;

const BOTH: [Target; 2] = [Target::Pytorch, Target::Jax];

#[test]
fn words_of_python() {
    for target in BOTH {
        let name = if target == Target::Pytorch { "PyTorch" } else { "JAX" };
        let found = error(&layer("f", "lambda"), target);
        assert_eq!(
            found,
            format!("the parameter `lambda` cannot be called so in {name}, where that is a word of the language")
        );
    }
    check(
        &layer("class", "v"),
        Target::Pytorch,
        expect!["the layer `class` cannot be called so in PyTorch, where that is a word of the language"],
    );
    check(
        &layer("none", "v"),
        Target::Jax,
        expect!["the layer `None` cannot be called so in JAX, where that is a word of the language"],
    );
}

#[test]
fn names_that_are_not_ascii() {
    let mut builder = Builder::new();
    let param = Param { name: "γ".to_owned(), extent: Extent::PerChannel, init: Scalar::ONE };
    let param = builder.declare(param).expect("a graph may have such names");
    let (x, scale) = (builder.input(), builder.intern(Op::Param(param), Operands::None));
    let scaled = builder.binary(Prim::Mul, x, scale);
    let layer = Layer { name: "f".to_owned(), dag: builder.finish(scaled) };
    check(
        &layer,
        Target::Jax,
        expect!["the parameter `γ` cannot be called so in JAX: a name is ASCII letters, digits and underscores"],
    );
}

#[test]
fn what_every_module_of_pytorch_has() {
    for name in ["half", "training", "_buffers", "channels", "__k", "self"] {
        let found = error(&layer("f", name), Target::Pytorch);
        assert_eq!(found, format!("two things would be called `{name}` in PyTorch"));
        emit(&layer("f", name), Target::Jax, &Options::default()).expect("JAX has dictionaries");
    }
    let grouped = &compiled("layer f(x) { param groups = 1\n x * groups / std[group](x) }")[0];
    check(grouped, Target::Pytorch, expect!["two things would be called `groups` in PyTorch"]);
}

#[test]
fn what_flax_has() {
    check(&layer("f", "params"), Target::Jax, expect!["two things would be called `params` in JAX"]);
    emit(&layer("f", "params"), Target::Pytorch, &Options::default()).expect("PyTorch has no collections");
}

#[test]
fn what_the_files_call_by_the_name_of_the_layer() {
    check(&layer("torch", "v"), Target::Pytorch, expect!["two things would be called `torch` in PyTorch"]);
    check(&layer("tensor", "v"), Target::Pytorch, expect!["two things would be called `Tensor` in PyTorch"]);
    check(&layer("init", "v"), Target::Jax, expect!["two things would be called `init` in JAX"]);
    check(&layer("flax", "v"), Target::Jax, expect!["two things would be called `flax` in JAX"]);
}

/// A layer of that name, with a parameter of that name.
fn layer(name: &str, param: &str) -> Layer {
    compiled(&format!("layer {name}(x) {{ param {param} = 1\n x * {param} }}")).remove(0)
}

fn error(layer: &Layer, target: Target) -> String {
    emit(layer, target, &Options::default()).expect_err("the name is refused").to_string()
}

fn check(layer: &Layer, target: Target, expected: Expect) {
    expected.assert_eq(&error(layer, target));
}
