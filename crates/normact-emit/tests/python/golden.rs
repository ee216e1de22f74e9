//! The emitted text of every built-in layer, as files to read, and that Python can read them.

use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect_file;
use normact_emit::{Options, Target, emit};

use crate::layers::built_in;

#[test]
fn built_in_layers_in_pytorch() {
    check(Target::Pytorch);
}

#[test]
fn built_in_layers_in_jax() {
    check(Target::Jax);
}

/// Compares every built-in layer with its golden file; `UPDATE_EXPECT=1` writes them anew.
fn check(target: Target) {
    let folder = golden(target);
    for (layer, source) in built_in() {
        let options = Options { source: Some(source), ..Options::default() };
        for file in emit(&layer, target, &options).expect("built-in layers can be emitted") {
            let text = String::from_utf8(file.bytes).expect("code is text");
            assert!(text.lines().all(|line| line.len() <= 120), "{} has lines that are too long", file.name);
            expect_file![folder.join(&file.name)].assert_eq(&text);
        }
    }
}

#[test]
fn python_reads_the_golden_files() {
    let program = "import ast, pathlib, sys\n\
                   files = [file for folder in sys.argv[1:] for file in pathlib.Path(folder).glob('*.py')]\n\
                   for file in files: ast.parse(file.read_text('utf-8'), str(file))\n\
                   print(len(files))";
    let folders = [Target::Pytorch, Target::Jax].map(|target| golden(target).display().to_string());
    if let Some(found) = python(program, &folders) {
        assert_eq!(found, (2 * built_in().len()).to_string(), "a file for each layer and target");
    }
}

#[test]
fn any_source_is_quoted_in_the_documentation() {
    let source = "// \"\"\"; import os \\\n// \\\"\"\" \u{0}\r\u{c}\u{2028} γ\tend\"\nlayer affine(x) { x }\\";
    let layer = &built_in()[0].0;
    let program = "import ast, sys\n\
                   tree = ast.parse(sys.argv[1])\n\
                   assert not any('os' in ast.unparse(node) for node in tree.body if isinstance(node, ast.Import))\n\
                   print(ascii(ast.get_docstring(tree)))";
    for target in [Target::Pytorch, Target::Jax] {
        let options = Options { source: Some(source.to_owned()), ..Options::default() };
        let file = emit(layer, target, &options).expect("the source does not matter").remove(0);
        let text = String::from_utf8(file.bytes).expect("code is text");
        let Some(found) = python(program, &[text]) else { return };
        let quoted =
            r#"// """; import os \\\n// \\""" \ufffd\ufffd\ufffd\u2028 \u03b3    end"\nlayer affine(x) { x }\\"#;
        assert!(found.contains(quoted), "{found}");
    }
}

/// What a Python program prints; `None` without Python.
fn python(program: &str, arguments: &[String]) -> Option<String> {
    let Ok(output) = Command::new("python3").args(["-c", program]).args(arguments).output() else {
        let _ = writeln!(stderr(), "SKIPPED: whether Python can read emitted files: there is no python3");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn golden(target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(target.name())
}
