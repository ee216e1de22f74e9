//! The emitted text of every built-in layer, as files to read, and that Python can read them.

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
    let python =
        Command::new("python3").args(["-c", program]).args([golden(Target::Pytorch), golden(Target::Jax)]).output();
    let Ok(output) = python else {
        eprintln!("SKIPPED: there is no python3 to read the golden files with");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = 2 * built_in().len();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        expected.to_string(),
        "a file for each layer and target"
    );
}

fn golden(target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(target.name())
}
