//! Documents that list things are made from the table, and say what the program does.

use expect_test::expect_file;
use normact::ir::{Moment, Prim};

use crate::support::{root, run};

/// The lists of `docs/language.md`.
fn lists() -> String {
    let row = |name: String, doc: &str| format!("| `{name}` | {} |\n", doc.replace('|', "\\|"));
    let mut text = String::from("| primitive | meaning |\n|---|---|\n");
    for prim in Prim::ALL {
        let arguments = if prim.arity().count() == 1 { "x" } else { "a, b" };
        text.push_str(&row(format!("{}({arguments})", prim.name()), prim.doc()));
    }
    text.push_str("\n| moment | meaning |\n|---|---|\n");
    for moment in Moment::ALL {
        text.push_str(&row(format!("{}[set](x)", moment.name()), moment.doc()));
    }
    text.push_str("\nThe prelude, in the language itself:\n\n```\n");
    let source = normact::syntax::prelude_source();
    for function in normact::syntax::prelude_functions() {
        text.push_str(&source.text[function.span.start..function.span.end]);
        text.push('\n');
    }
    text + "```\n"
}

#[test]
fn the_language_reference_lists_what_there_is() {
    let path = root().join("docs/language.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once("documentation` -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /generated -->").unwrap();
    expect_file![path].assert_eq(&format!("{before}documentation` -->\n{}<!-- /generated -->{after}", lists()));
}

/// The text of a fenced block of the README that follows a line with `marker`.
fn block<'a>(readme: &'a str, marker: &str) -> &'a str {
    let after = readme.split_once(marker).unwrap_or_else(|| panic!("README has no {marker:?}")).1;
    after.split_once("```\n").unwrap().1.split_once("```").unwrap().0
}

#[test]
fn the_readme_shows_what_the_program_prints() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.nact");
    std::fs::write(&path, block(&readme, "<!-- formula -->")).unwrap();
    let file = path.to_str().unwrap();
    let (code, _, messages) = run(&["check", file]);
    assert_eq!(code, 1);
    let shown = block(&readme, "<!-- messages -->").trim();
    assert_eq!(messages.replace(file, "gate.nact").trim(), shown);
    let (_, graph, _) = run(&["show", "evonorm_b0", "--as", "graph"]);
    assert_eq!(block(&readme, "<!-- graph -->"), graph);
}
