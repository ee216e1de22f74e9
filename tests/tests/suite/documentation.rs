//! Documents that list things are made from the table, and say what the program does.

use expect_test::expect_file;
use normact::egraph::{Class, Rule, Theme, simplify_rules};
use normact::ir::stated::Statistic;
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
    text.push_str("\n| in gradients only | meaning |\n|---|---|\n");
    for (name, _, doc) in Statistic::OWN {
        text.push_str(&row(format!("{name}[set](x)"), doc));
    }
    text.push_str("\nThe prelude, in the language itself:\n\n```\n");
    let source = normact::syntax::prelude_source();
    for function in normact::syntax::prelude_functions() {
        text.push_str(&source.text[function.span.start..function.span.end]);
        text.push('\n');
    }
    text + "```\n"
}

const THEMES: [(Theme, &str); 5] = [
    (Theme::Ring, "Sums and products"),
    (Theme::Power, "Powers: division, roots, absolute values, signs"),
    (Theme::Order, "Maxima"),
    (Theme::Activation, "Exponentials, logarithms, sigmoids"),
    (Theme::Moment, "Statistics"),
];

/// The rules of `docs/equality.md`: those of the normal form and of proofs, then those of the simplifier.
fn rules() -> String {
    let mut text = String::new();
    let row = |text: &mut String, name: &str, statement: &str, class: Class, changes: &str| {
        let statement = statement.replace('|', "\\|");
        text.push_str(&format!("| `{name}` | `{statement}` | {} | {changes} |\n", class.name()));
    };
    let head = "| rule | statement | class | may change |\n|---|---|---|---|\n";
    for (theme, title) in THEMES {
        text.push_str(&format!("### {title}\n\n{head}"));
        for rule in Rule::ALL.iter().filter(|rule| rule.theme() == theme) {
            let changes = match (rule.changes_gradient(), rule.changes_state()) {
                (true, true) => "gradients at kinks, running statistics",
                (true, false) => "gradients at kinks",
                (false, true) => "running statistics",
                (false, false) => "",
            };
            row(&mut text, rule.name(), rule.statement(), rule.class(), changes);
        }
        text.push('\n');
    }
    text.push_str("## Rules of `simplify`\n\nThey are in prefix form and used from left to right.\n\n");
    for (theme, title) in THEMES {
        text.push_str(&format!("### {title}, for `simplify`\n\n{head}"));
        for rule in simplify_rules().into_iter().filter(|rule| rule.theme == theme) {
            let changes = if rule.changes_gradient { "gradients at kinks" } else { "" };
            row(&mut text, &rule.name, &rule.statement, rule.class, changes);
        }
        text.push('\n');
    }
    text
}

/// The document with the part between the marks for generated text in it.
fn with_generated(document: &str, generated: &str) -> String {
    let (before, rest) = document.split_once("documentation` -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /generated -->").unwrap();
    format!("{before}documentation` -->\n{generated}<!-- /generated -->{after}")
}

#[test]
fn the_language_reference_lists_what_there_is() {
    let path = root().join("docs/language.md");
    let document = std::fs::read_to_string(&path).unwrap();
    expect_file![path].assert_eq(&with_generated(&document, &lists()));
}

#[test]
fn the_page_on_equality_has_every_rule_and_shows_what_the_program_prints() {
    let path = root().join("docs/equality.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let rules = rules();
    let count = Rule::ALL.len() + simplify_rules().len();
    assert_eq!(rules.matches("\n| `").count(), count, "every theme has a title");
    page = with_generated(&page, &rules);
    let folder = tempfile::tempdir().unwrap();
    let layers = folder.path().join("gates.nact");
    std::fs::write(&layers, block(&page, "<!-- layers -->")).unwrap();
    let at = |name: &str| format!("{}:{name}", layers.display());
    let prefix = format!("{}/", folder.path().display());
    for (marker, a, b, code) in
        [("<!-- equal -->", "gate", "fraction", 0), ("<!-- different -->", "gate", "scaled_gate", 1)]
    {
        let (found, answer, _) = run(&["equiv", &at(a), &at(b)]);
        assert_eq!(found, code, "{answer}");
        page = page.replacen(block(&page, marker), &answer.replace(&prefix, ""), 1);
    }
    let lines = folder.path().join("lines.jsonl");
    std::fs::write(&lines, block(&page, "<!-- input -->")).unwrap();
    let (code, records, _) = run(&["canon", lines.to_str().unwrap()]);
    assert_eq!(code, 0);
    page = page.replacen(block(&page, "<!-- output -->"), &records, 1);
    expect_file![path].assert_eq(&page);
}

/// The text of a fenced block of a page that follows a line with `marker`.
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

#[test]
fn what_the_readme_shows_of_equality_and_plans_is_what_the_program_says() {
    let path = root().join("README.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine.nact");
    std::fs::write(&mine, block(&page, "<!-- other -->")).unwrap();
    let mine = mine.to_str().unwrap();
    for (marker, other, code) in [("<!-- equal -->", mine, 0), ("<!-- different -->", "evonorm_s2", 1)] {
        let (found, answer, _) = run(&["equiv", "evonorm_s1", other]);
        assert_eq!(found, code, "{answer}");
        page = page.replacen(block(&page, marker), &answer, 1);
    }
    for (marker, form) in [("<!-- gradient -->", "gradient"), ("<!-- plan -->", "plan")] {
        let (code, shown, _) = run(&["show", "evonorm_s0", "--as", form]);
        assert_eq!(code, 0);
        page = page.replacen(block(&page, marker), &shown, 1);
    }
    expect_file![path].assert_eq(&page);
}

#[test]
fn what_the_readme_shows_of_other_programs_is_what_they_get() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    assert_eq!(run(&["emit", "gn_silu", "--target", "pytorch", "--out", out]).0, 0);
    let file = std::fs::read_to_string(folder.path().join("gn_silu.py")).unwrap();
    let shown = block(&readme, "<!-- emitted -->");
    assert!(shown.lines().count() > 5 && file.contains(shown), "{file}");
    let (_, formula, _) = run(&["import", "--from", "pytorch-name", "EvoNorm2dS0(64, group_size=16)"]);
    assert_eq!(block(&readme, "<!-- import -->"), formula);
}
