//! What users of the language rely on: messages, round trips, and limits.

use expect_test::{Expect, expect};
use normact_ir::json;
use normact_ir::random::Space;
use normact_syntax::{Analysis, Code, Overrides, SettingValue, Source, compile, format, parse, print, render};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn analyse(text: &str) -> Analysis {
    compile(&Source::new("t.nact", text), &Overrides::none())
}

/// The rendered messages about a text.
fn check(text: &str, expected: Expect) {
    let source = Source::new("t.nact", text);
    let analysis = compile(&source, &Overrides::none());
    expected.assert_eq(&render(&source, &analysis.diagnostics, false));
}

/// The formula of the graph made from a layer's body.
fn check_graph(body: &str, expected: Expect) {
    let text = format!("layer l(x) {{ param v = 1\nparam w = 1\n{body} }}");
    let analysis = analyse(&text);
    assert!(!analysis.has_errors(), "{:?}", analysis.diagnostics);
    let printed = print(&analysis.layers[0].layer);
    let body = printed.split_once("param w = 1\n\n").unwrap().1;
    let body: Vec<&str> = body.trim_end_matches("}\n").lines().map(str::trim_start).collect();
    expected.assert_eq(&body.join("\n"));
}

fn codes(text: &str) -> Vec<&'static str> {
    analyse(text).diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}

#[test]
fn precedence_is_the_usual_one() {
    check_graph("x + v * w - x / v", expect!["x + v * w - x / v"]);
    check_graph("x - (v - w)", expect!["x - (v - w)"]);
    check_graph("x / (v / w) * -x", expect!["x / (v / w) * -x"]);
    check_graph("-x * v + -2 * w - -3", expect!["-x * v + -2 * w - -3"]);
    check_graph("-(2) + neg(2) + - - x", expect!["-2 - 2 - -x"]);
}

#[test]
fn a_minus_sign_at_the_start_of_a_line_goes_on_only_before_a_space() {
    check_graph("let y = tanh(x)\n -y * v", expect!["-tanh(x) * v"]);
    check_graph("tanh(x)\n // here\n - x * v\n / w", expect!["tanh(x) - x * v / w"]);
    check(
        "layer l(x) {\n    max(x\n        -2, x)\n}\n",
        expect![[r#"
        error[E0101]: expected an operator, found `-`
          ┌─ t.nact:3:9
          │
        3 │         -2, x)
          │         ^ expected an operator
          │
          = help: a line that starts with a minus sign right before a value begins a new expression; put a space after the `-` to go on

    "#]],
    );
}

#[test]
fn functions_are_inlined_and_equal_parts_shared() {
    check_graph("relu(x) + min(x, v)", expect!["max(x, 0) - max(-x, -v)"]);
    check_graph(
        "let s = std[batch](x)\n x / s + v / std[batch](x, eps = 1e-5)",
        expect![[r#"
        let t1 = std[batch](x)
        x / t1 + v / t1"#]],
    );
}

#[test]
fn a_moment_takes_the_value_of_a_setting_of_the_layer() {
    let text =
        "layer l(x, fine = 1e-7, half = 0.5) { x / std[instance](x, eps = fine) + mean[batch](x, momentum = half) }";
    let source = Source::new("t.nact", text);
    let printed = |settings: &[String]| {
        let analysis = compile(&source, &Overrides::parse(settings).unwrap());
        analysis.layers.first().map_or(render(&source, &analysis.diagnostics, false), |one| print(&one.layer))
    };
    expect![[r#"
        layer l(x, eps = 1e-7, momentum = 0.5) {
            x / std[instance](x) + mean[batch](x)
        }
    "#]]
    .assert_eq(&printed(&[]));
    assert!(printed(&["fine=0.25".to_owned()]).contains("eps = 0.25"));
    expect![[r#"
        error[E0207]: `momentum` has a value it cannot have
          ┌─ t.nact:1:100
          │
        1 │ layer l(x, fine = 1e-7, half = 0.5) { x / std[instance](x, eps = fine) + mean[batch](x, momentum = half) }
          │                                                                                                    ^^^^
          │
          = help: `momentum` is a number from 0 to 1

    "#]]
    .assert_eq(&printed(&["half=2".to_owned()]));
}

#[test]
fn settings_reach_moments() {
    let text = "layer l(x, groups = 8, eps = 1e-3, mine = 0.25) {\n x * mine / std[group](x) / std[batch](x, eps = 0, running = unbiased) }";
    let mut overrides = Overrides::parse(&["groups=4".to_owned(), "mine=2".to_owned()]).unwrap();
    let source = Source::new("t.nact", text);
    let printed = print(&compile(&source, &overrides).layers[0].layer);
    expect![[r#"
        layer l(x, groups = 4, eps = 0.001, momentum = 0.1, running = unbiased) {
            x * 2 / std[group](x) / std[batch](x, eps = 0)
        }
    "#]]
    .assert_eq(&printed);
    let refused = Overrides::parse(&["groups=0".to_owned()]).unwrap_err();
    assert_eq!(refused, "`groups=0` is not possible: `groups` is a whole number from 1");
    overrides = Overrides::parse(&["epz=2".to_owned()]).unwrap();
    overrides.set("groups", SettingValue::Number(0.0));
    let analysis = compile(&source, &overrides);
    expect![[r#"
        error[E0206]: layer `l` has no setting `epz`
          ┌─ t.nact:1:7
          │
        1 │ layer l(x, groups = 8, eps = 1e-3, mine = 0.25) {
          │       ^
          │
          = help: did you mean `eps`?

        error[E0207]: the setting `groups` was given a value it cannot have
          ┌─ t.nact:1:12
          │
        1 │ layer l(x, groups = 8, eps = 1e-3, mine = 0.25) {
          │            ^^^^^^
          │
          = help: `groups` is a whole number from 1

    "#]]
    .assert_eq(&render(&source, &analysis.diagnostics, false));
}

#[test]
fn one_run_reports_every_mistake() {
    check(
        "layer one(x) {\n    param gamma = 1\n    let y = tahn(x) * gama\n    let z = (y + \n    y + mean(x)\n}\n\nfn f(a) = a ^ 2\n\nlayer two(x) {\n    x + max(x)\n}\n",
        expect![[r#"
            error[E0202]: there is no function `tahn`
              ┌─ t.nact:3:13
              │
            3 │     let y = tahn(x) * gama
              │             ^^^^
              │
              = help: did you mean `tanh`?

            error[E0201]: `gama` is not defined
              ┌─ t.nact:3:23
              │
            3 │     let y = tahn(x) * gama
              │                       ^^^^
              │
              = help: did you mean `gamma`?

            error[E0101]: expected an operator, found `}`
              ┌─ t.nact:6:1
              │
            4 │     let z = (y + 
              │             - this `(` is not closed
            5 │     y + mean(x)
            6 │ }
              │ ^ expected an operator
              │
              = help: close the `(`

            error[E0101]: expected an operator, `fn`, `layer`, `gradient` or the end of the text, found `^`
              ┌─ t.nact:8:13
              │
            8 │ fn f(a) = a ^ 2
              │             ^ expected an operator, `fn`, `layer`, `gradient` or the end of the text
              │
              = help: there is no power operator; write `square(x)` or `x * x`

            error[E0205]: `max` takes 2 arguments, found 1
               ┌─ t.nact:11:9
               │
            11 │     x + max(x)
               │         ^^^^^^
               │
               = help: it is the larger of `a` and `b`; NaN if either is; on a tie each gets half of the gradient

        "#]],
    );
}

#[test]
fn every_code_explains_itself_with_an_example_that_shows_it() {
    for code in Code::ALL {
        assert!(!code.explanation().is_empty());
        if !code.example().is_empty() {
            assert!(codes(code.example()).contains(&code.as_str()), "{code:?}: {:?}", codes(code.example()));
        }
    }
}

#[test]
fn the_prelude_is_sound() {
    let source = normact_syntax::prelude_source();
    let analysis = compile(&source, &Overrides::none());
    assert_eq!(render(&source, &analysis.diagnostics, false), "");
    assert!(normact_syntax::prelude_functions().len() > 10);
}

#[test]
fn printed_graphs_read_back_as_themselves() {
    for seed in 0..3000u64 {
        let space = if seed % 2 == 0 { Space::language() } else { Space::evonorm() };
        let layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
        let text = print(&layer);
        let source = Source::new("printed.nact", &*text);
        let analysis = compile(&source, &Overrides::none());
        let read: Vec<_> = analysis.layers.iter().map(|compiled| compiled.layer.dag.normalized()).collect();
        // A graph that ignores its input is refused as a layer, and only for that.
        if analysis.has_errors() {
            assert!(
                analysis.diagnostics.iter().all(|d| !d.is_error() || d.code == Code::IgnoresInput),
                "seed {seed}: {text}{}",
                render(&source, &analysis.diagnostics, false)
            );
            continue;
        }
        assert_eq!(read, [layer.dag.normalized()], "seed {seed}:\n{text}\n{}", json::to_json(&layer));
    }
}

#[test]
fn formatting_is_idempotent_and_keeps_the_meaning() {
    for seed in 0..500u64 {
        let text = print(&Space::language().draw(&mut ChaCha8Rng::seed_from_u64(seed)));
        // The same text with its layout destroyed.
        let mangled =
            text.replace("    ", "").replace(" * ", "  *\n ").replace(", ", " ,\n\n\n").replace("{\n", "{ // c\n");
        let formatted = |text: &str| {
            let source = Source::new("t.nact", text);
            let (parsed, diagnostics) = parse(&source);
            assert!(diagnostics.is_empty(), "seed {seed}: {}", render(&source, &diagnostics, false));
            format(&source, &parsed.file)
        };
        let once = formatted(&mangled);
        assert_eq!(formatted(&once), once, "seed {seed}");
        let graph = |text: &str| analyse(text).layers[0].layer.clone();
        assert_eq!(graph(&once), graph(&text), "seed {seed}:\n{once}");
    }
}

#[test]
fn comments_survive_formatting() {
    let text = "// file\n\n\n\n// about l\nlayer l( x,  // the input\n  eps=1e-3 ) { // open\n // v\n  param v=1 // trained\n  param gamma  : scalar=0.5\n\n\n\n  let y = x * // inside\n v\n  // before\n y/std[batch](x)*gamma // result\n // last\n}\n\n\nfn f( a,b )=a+b // end\n// bye\n";
    let source = Source::new("t.nact", text);
    let (parsed, diagnostics) = parse(&source);
    assert!(diagnostics.is_empty(), "{}", render(&source, &diagnostics, false));
    expect![[r#"
        // file

        // about l
        // the input
        layer l(x, eps = 1e-3) { // open
            // v
            param v = 1 // trained
            param gamma: scalar = 0.5

            // inside
            let y = x * v
            // before
            y / std[batch](x) * gamma // result
            // last
        }

        fn f(a, b) = a + b // end
        // bye
    "#]]
    .assert_eq(&format(&source, &parsed.file));
}

#[test]
fn a_comment_inside_a_param_ends_its_alignment() {
    let source = Source::new("t.nact", "layer l(x) {\n param gamma = 1\n param//\n beta  = 0\n x\n}");
    let once = format(&source, &parse(&source).0.file);
    expect![[r#"
        layer l(x) {
            param gamma = 1
            //
            param beta = 0
            x
        }
    "#]]
    .assert_eq(&once);
    let again = Source::new("t.nact", &*once);
    assert_eq!(format(&again, &parse(&again).0.file), once);
}

#[test]
fn hostile_texts_end_in_a_message() {
    let nested = format!("layer l(x) {{ {}x{} }}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(codes(&nested), ["E0102"]);
    assert_eq!(codes(&format!("layer l(x) {{ {}", "tanh(".repeat(100_000))), ["E0102"]);
    assert_eq!(codes(&" ".repeat(normact_syntax::MAX_BYTES + 1)), ["E0103"]);
    let minuses = format!("layer l(x) {{ {}x }}", "-".repeat(200_000));
    assert_eq!(codes(&minuses), ["E0103"]);
    let sum = format!("layer l(x) {{ x{} }}", " + x".repeat(90_000));
    assert_eq!(codes(&sum), Vec::<&str>::new());
    let long = analyse(&sum).layers[0].layer.clone();
    let printed = print(&long);
    assert_eq!(analyse(&printed).layers[0].layer.dag.normalized(), long.dag.normalized());
    let unclosed = "layer l(x) {\n".repeat(5000);
    assert!(codes(&unclosed).contains(&"E0101"));
}

#[test]
fn texts_with_very_many_names_and_mistakes_end_soon() {
    let begin = std::time::Instant::now();
    let said = |text: &str| {
        let source = Source::new("t.nact", text);
        render(&source, &compile(&source, &Overrides::none()).diagnostics, false)
    };
    let lets: String = (0..20_000).map(|i| format!("let q{i} = z\n")).collect();
    assert!(said(&format!("layer l(x) {{\n{lets}x }}")).len() < 200_000);
    let unknown: String = (0..60_000).map(|i| format!("+ u{i}(x)")).collect();
    assert!(said(&format!("layer l(x) {{ x {unknown} }}")).contains("more messages about this text are not shown"));
    said(&"layer l(x) {x}\n".repeat(50_000));
    let long = "q".repeat(200_000);
    said(&format!("layer l(x) {{ let {long}w = x\n {long} }}"));
    let mut doubling = String::from("fn f0(x) = tanh(x)\n");
    for level in 1..=14 {
        doubling.push_str(&format!("fn f{level}(x) = f{}(x + {level}) + f{}(2 * x)\n", level - 1, level - 1));
    }
    let analysis = analyse(&format!("{doubling}layer l(x) {{ f14(x) }}"));
    print(&analysis.layers[0].layer);
    // Minutes where any of these takes quadratic time; the bound is no measure of speed.
    assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn a_chain_of_doubling_functions_stays_small() {
    let mut text = String::from("fn f0(x) = tanh(x)\n");
    for level in 1..=60 {
        text.push_str(&format!("fn f{level}(x) = f{}(x) + f{}(x)\n", level - 1, level - 1));
    }
    text.push_str("layer l(x) { f60(x) }\n");
    let analysis = analyse(&text);
    assert!(analysis.diagnostics.is_empty());
    assert_eq!(analysis.layers[0].layer.dag.len(), 62);

    // The same with different arguments has no small graph, and must not run for ever.
    let mut text = String::from("fn f0(x) = tanh(x)\n");
    for level in 1..=60 {
        text.push_str(&format!("fn f{level}(x) = f{}(x + {level}) + f{}(2 * x)\n", level - 1, level - 1));
    }
    text.push_str("layer l(x) { f60(x) }\n");
    assert_eq!(codes(&text), ["E0103"]);

    let mut text = String::from("fn f0(x) = tanh(x)\n");
    for level in 1..=20_000 {
        text.push_str(&format!("fn f{level}(x) = f{}(x)\n", level - 1));
    }
    text.push_str("layer l(x) { f20000(x) }\n");
    assert_eq!(codes(&text), ["E0102"]);
}

#[test]
fn any_bytes_end_without_a_panic() {
    use rand::RngExt;
    let words = [
        "layer", "fn", "param", "let", "x", "(", ")", "{", "}", "[", "]", "=", "+", "-", "*", "/", ",", ":", "1",
        "1e999", ".5", "std", "batch", "group", "\n", "\n\n", " ", "//", "é", "\u{0}", "max", "eps", "scalar", "silu",
        ";", "_",
    ];
    for seed in 0..20_000u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = String::new();
        for _ in 0..rng.random_range(0..40) {
            text.push_str(words[rng.random_range(0..words.len())]);
            if rng.random_bool(0.5) {
                text.push(' ');
            }
        }
        let source = Source::new("t.nact", &*text);
        let analysis = compile(&source, &Overrides::none());
        render(&source, &analysis.diagnostics, seed % 2 == 0);
        let (parsed, diagnostics) = parse(&source);
        if diagnostics.is_empty() {
            let once = format(&source, &parsed.file);
            let again = Source::new("t.nact", &*once);
            let (parsed, diagnostics) = parse(&again);
            assert!(diagnostics.is_empty(), "seed {seed}: {text:?} became {once:?}");
            assert_eq!(format(&again, &parsed.file), once, "seed {seed}: {text:?}");
        }
    }
}
