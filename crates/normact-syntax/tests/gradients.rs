//! Gradients that a text states: messages, layout, what they compute, and limits.

use expect_test::{Expect, expect};
use normact_ir::{Inputs, Mode, Shape, evaluate, stated};
use normact_syntax::{Analysis, Compiled, Overrides, Source, compile, format, parse, render};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LAYER: &str = "layer l(x, groups = 2, slope = 0.5) {\n    param v = 1\n    param w: scalar = 1\n    v * x * w + slope * std[group](x)\n}\n";

fn analyse(text: &str) -> Analysis {
    compile(&Source::new("t.nact", text), &Overrides::none())
}

/// The rendered messages about a text.
fn check(text: &str, expected: Expect) {
    let source = Source::new("t.nact", text);
    expected.assert_eq(&render(&source, &compile(&source, &Overrides::none()).diagnostics, false));
}

/// The messages about a gradient of the layer above, without its lines.
fn check_gradient(text: &str, expected: Expect) {
    check(&format!("{LAYER}{text}"), expected);
}

fn formatted(text: &str) -> Option<String> {
    let source = Source::new("t.nact", text);
    let (parsed, diagnostics) = parse(&source);
    diagnostics.is_empty().then(|| format(&source, &parsed.file))
}

/// The gradients by the chain rule and as stated, on an input of shape `[3, 4, 2]`.
fn gradients(compiled: &Compiled) -> (Vec<Vec<f64>>, Vec<Option<Vec<f64>>>) {
    let shape = Shape::new(&[3, 4, 2]).unwrap();
    let numbers = |from: f64| -> Vec<f64> { (0..24).map(|i| (f64::from(i) * 0.7 + from).sin()).collect() };
    let inputs = Inputs::initial(&compiled.layer.dag, shape, numbers(0.0));
    let dy = numbers(1.0);
    let expected = evaluate(&compiled.layer.dag, &inputs, Mode::Training).unwrap().gradients(&dy);
    let stated = &compiled.gradient.as_ref().expect("a gradient is stated").gradient;
    let found = stated.evaluate(&inputs, &dy).unwrap();
    let expected = std::iter::once(expected.x).chain(expected.params).collect();
    (expected, std::iter::once(found.x).chain(found.params).collect())
}

#[test]
fn a_gradient_derived_by_hand_is_that_of_the_layer() {
    let batch_norm = "layer bn(x, eps = 1e-3) {\n param gamma = 1\n param beta = 0\n (x - mean[batch](x)) / std[batch](x) * gamma + beta\n}\n\
        fn unit(x, m, s) = (x - m) / s\n\
        gradient bn(a, up) {\n let s = std[batch](a)\n let z = unit(a, mean[batch](a), s)\n dbeta = sum[batch](up)\n dgamma = sum[batch](z * up)\n\
        da = gamma / s * (up - (dbeta + z * dgamma) / count[batch](a))\n}\n";
    let group_rms = "layer root(x, groups = 2) {\n param k: scalar = 2\n k * x / rms[group](x)\n}\n\
        gradient root(x, dy) {\n let r = rms[group](x)\n dx = k / r * (dy - x * mean[group](x * dy) / square(r))\n dk = sum[all](x * dy / r)\n}\n";
    for text in [batch_norm, group_rms] {
        let analysis = analyse(text);
        assert!(analysis.diagnostics.is_empty(), "{:?}", analysis.diagnostics);
        let (expected, found) = gradients(&analysis.layers[0]);
        for (expected, found) in expected.iter().zip(found) {
            for (expected, found) in expected.iter().zip(found.expect("everything is stated")) {
                assert!((expected - found).abs() < 1e-12, "{text}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn settings_of_the_caller_reach_the_gradient() {
    let text = format!("{LAYER}gradient l(x, dy) {{ dx = slope * count[group](x)\ndv = count[group](x, groups = 4) }}");
    let overrides = Overrides::parse(&["groups=1".to_owned(), "slope=3".to_owned()]).unwrap();
    let compiled = compile(&Source::new("t.nact", text), &overrides).layers.remove(0);
    let (_, found) = gradients(&compiled);
    assert_eq!(found, [Some(vec![24.0; 24]), Some(vec![2.0; 4]), None]);
}

#[test]
fn a_result_can_be_used_unless_another_value_has_its_name() {
    let text = "layer l(x) {\n param a = 2\n param da = 5\n a * x + da\n}\n\
        gradient l(x, dy) {\n da = 3\n dda = da\n dx = dda\n}\n";
    let (_, found) = gradients(&analyse(text).layers[0]);
    assert_eq!(found, [Some(vec![5.0; 24]), Some(vec![3.0; 4]), Some(vec![5.0; 4])]);
}

#[test]
fn a_function_of_the_file_may_be_called_sum() {
    let text = "fn sum(a, b) = a + b\nlayer l(x) {\n param count = 2\n sum(x, count)\n}\n\
        gradient l(x, dy) {\n let sum = sum[batch](dy)\n dx = sum(dy, 0) + 0 * count\n dcount = sum\n}\n";
    let analysis = analyse(text);
    assert!(analysis.diagnostics.is_empty(), "{:?}", analysis.diagnostics);
    let (expected, found) = gradients(&analysis.layers[0]);
    assert_eq!(found, expected.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn mistakes_in_gradients_are_explained() {
    let cases = [
        "gradient l(x, dy) {\n    dx = dz * v\n    let t = sum(x)\n    dvv = sm[batch](x * dy)\n    dx = count[rows](x)\n    let v = 3\n    dw = sum[batch](x, eps = 2) + mean[all](x, momentum = 0.1)\n}\n",
        "gradient l(x, dy) {\n    dx = v * dy\n    dv = x * dy\n    dw = sum[batch](x * dy)\n}\n",
        "gradient l(x, dy) {\n    let dx = v * dy\n    dv = sum[batch](dx)\n}\n",
        "gradient l(x, dy, groups = 3) {\n    dx = later\n    let later = tanh[batch](dy)\n}\ngradient l(x, dy) {\n}\ngradient k(x, v, u) {\n}\n",
        "gradient l(x) {\n    param u = 1\n    dx = v * * dy\n    dv = sum[batch](x * dy\n}\n",
        "gradient l(x, dy) {\n    dx = v * dy\n    sum[batch](x * dy)\n}\n",
        "gradient l(x, dy) {\n    dx = v * dy\n",
        "fn f(x) = sum[batch](x)\nlayer m(x) {\n    x / count[all](x)\n}\n",
    ];
    let mut messages = String::new();
    for case in cases {
        let source = Source::new("t.nact", format!("{LAYER}{case}"));
        let analysis = compile(&source, &Overrides::none());
        messages.push_str(&format!("{case}\n{}", render(&source, &analysis.diagnostics, false)));
    }
    expect![[r#"
        gradient l(x, dy) {
            dx = dz * v
            let t = sum(x)
            dvv = sm[batch](x * dy)
            dx = count[rows](x)
            let v = 3
            dw = sum[batch](x, eps = 2) + mean[all](x, momentum = 0.1)
        }

        error[E0201]: `dz` is not defined
          ┌─ t.nact:7:10
          │
        7 │     dx = dz * v
          │          ^^
          │
          = help: there are groups, slope, v, w, x, dy; another value is `let dz = ...`

        error[E0208]: `sum` does not say what it sums over
          ┌─ t.nact:8:13
          │
        8 │     let t = sum(x)
          │             ^^^ an index set is missing after this
          │
          = help: write `sum[batch](...)`; the index sets are batch, instance, layer, group, channel, all

        error[E0201]: `dvv` is the gradient of nothing
          ┌─ t.nact:9:5
          │
        9 │     dvv = sm[batch](x * dy)
          │     ^^^
          │
          = help: did you mean `dv`?

        error[E0202]: there is no function `sm`
          ┌─ t.nact:9:11
          │
        9 │     dvv = sm[batch](x * dy)
          │           ^^
          │
          = help: `normact list --functions` prints what there is

        error[E0203]: `dx` is stated twice
           ┌─ t.nact:10:5
           │
         7 │     dx = dz * v
           │     -- first stated here
           ·
        10 │     dx = count[rows](x)
           │     ^^ stated again
           │
           = help: add the two up in one line, or remove one

        error[E0210]: there is no index set `rows`
           ┌─ t.nact:10:16
           │
        10 │     dx = count[rows](x)
           │                ^^^^
           │
           = help: the index sets are batch, instance, layer, group, channel, all

        error[E0203]: `v` is already defined
           ┌─ t.nact:11:9
           │
         2 │     param v = 1
           │           - first defined here
           ·
        11 │     let v = 3
           │         ^ defined again
           │
           = help: give it another name

        error[E0206]: `sum[batch]` has no setting `eps`
           ┌─ t.nact:12:24
           │
        12 │     dw = sum[batch](x, eps = 2) + mean[all](x, momentum = 0.1)
           │                        ^^^
           │
           = help: it has none of its own

        error[E0206]: `mean[all]` has no setting `momentum`
           ┌─ t.nact:12:48
           │
        12 │     dw = sum[batch](x, eps = 2) + mean[all](x, momentum = 0.1)
           │                                                ^^^^^^^^
           │
           = help: it has none of its own

        gradient l(x, dy) {
            dx = v * dy
            dv = x * dy
            dw = sum[batch](x * dy)
        }

        error[E0304]: the gradient of `v` varies along samples and positions
          ┌─ t.nact:8:10
          │
        8 │     dv = x * dy
          │          ^^^^^^ `v` has one value per channel
          │
          = help: sum over what it varies along: `dv = sum[batch](...)`

        error[E0304]: the gradient of `w` varies along channels
          ┌─ t.nact:9:10
          │
        9 │     dw = sum[batch](x * dy)
          │          ^^^^^^^^^^^^^^^^^^ `w` has one value
          │
          = help: sum over what it varies along: `dw = sum[all](...)`

        gradient l(x, dy) {
            let dx = v * dy
            dv = sum[batch](dx)
        }

        warning[W0411]: dx, dw are not stated
          ┌─ t.nact:6:10
          │
        6 │ gradient l(x, dy) {
          │          ^
          │
          = help: write `dx = ...` without `let`

        gradient l(x, dy, groups = 3) {
            dx = later
            let later = tanh[batch](dy)
        }
        gradient l(x, dy) {
        }
        gradient k(x, v, u) {
        }

        error[E0206]: a gradient has no settings of its own
          ┌─ t.nact:6:19
          │
        6 │ gradient l(x, dy, groups = 3) {
          │                   ^^^^^^
          │
          = help: it reads those of its layer; remove what stands after the upstream gradient

        error[E0201]: `later` is not defined
          ┌─ t.nact:7:10
          │
        7 │     dx = later
          │          ^^^^^ used here
        8 │     let later = tanh[batch](dy)
          │         ----- defined here
          │
          = help: define it before its first use

        error[E0209]: `tanh` works element by element and has no index set
          ┌─ t.nact:8:21
          │
        8 │     let later = tanh[batch](dy)
          │                     ^^^^^^^
          │
          = help: only mean, rms, std, var, sum and count have an index set; remove the brackets

        error[E0203]: the gradient of `l` is stated twice
           ┌─ t.nact:10:10
           │
         6 │ gradient l(x, dy, groups = 3) {
           │          - first stated here
           ·
        10 │ gradient l(x, dy) {
           │          ^ stated again
           │
           = help: remove one of them

        error[E0201]: there is no layer `k`
           ┌─ t.nact:12:10
           │
        12 │ gradient k(x, v, u) {
           │          ^
           │
           = help: the file defines l

        gradient l(x) {
            param u = 1
            dx = v * * dy
            dv = sum[batch](x * dy
        }

        error[E0205]: a gradient has two arguments, found 1
          ┌─ t.nact:6:10
          │
        6 │ gradient l(x) {
          │          ^
          │
          = help: they are the layer's input and the upstream gradient: `gradient l(x, dy)`

        error[E0101]: expected a name or `let`, found `param`
          ┌─ t.nact:7:5
          │
        7 │     param u = 1
          │     ^^^^^ expected a name or `let`
          │
          = help: a gradient reads the params of its layer; remove the line

        error[E0101]: expected an expression, found `*`
          ┌─ t.nact:8:14
          │
        8 │     dx = v * * dy
          │              ^ expected an expression
          │
          = help: there is no power operator; write `square(x)` or `x * x`

        error[E0101]: expected an operator, found `}`
           ┌─ t.nact:10:1
           │
         9 │     dv = sum[batch](x * dy
           │                    - this `(` is not closed
        10 │ }
           │ ^ expected an operator
           │
           = help: close the `(`

        gradient l(x, dy) {
            dx = v * dy
            sum[batch](x * dy)
        }

        error[E0101]: expected a gradient such as `dx = ...`, an operator or `let`, found `sum`
          ┌─ t.nact:8:5
          │
        8 │     sum[batch](x * dy)
          │     ^^^ expected a gradient such as `dx = ...`, an operator or `let`

        gradient l(x, dy) {
            dx = v * dy

        error[E0101]: expected an operator, a name or `let`, found the end of the text
          ┌─ t.nact:8:1
          │
        8 │ 
          │ ^ expected an operator, a name or `let`
          │
          = help: a gradient ends with `}`

        fn f(x) = sum[batch](x)
        layer m(x) {
            x / count[all](x)
        }

        error[E0213]: `sum` is known in a gradient only
          ┌─ t.nact:6:11
          │
        6 │ fn f(x) = sum[batch](x)
          │           ^^^
          │
          = help: layers and functions have mean, rms, std and var

        error[E0213]: `count` is known in a gradient only
          ┌─ t.nact:8:9
          │
        8 │     x / count[all](x)
          │         ^^^^^
          │
          = help: layers and functions have mean, rms, std and var

    "#]]
    .assert_eq(&messages);
}

#[test]
fn a_wrong_layer_is_not_reported_again_at_its_gradient() {
    check(
        "layer l(x) {\n    param v = = 1\n    v * x\n}\ngradient l(x, dy) {\n    dx = v * dy\n    dv = sum[batch](x * dy)\n}\n",
        expect![[r#"
            error[E0101]: expected a number, found `=`
              ┌─ t.nact:2:15
              │
            2 │     param v = = 1
              │               ^ expected a number
              │
              = help: there are no comparisons; use `max` or `min`

        "#]],
    );
    check_gradient(
        "gradient l(x, dy) {\n    dx = v *\n    dv = sum[batch](dx)\n    dw = 0\n}\n",
        expect![[r#"
            error[E0101]: expected an operator, a name or `let`, found `=`
              ┌─ t.nact:8:8
              │
            8 │     dv = sum[batch](dx)
              │        ^ expected an operator, a name or `let`
              │
              = help: the expression in the line before is not complete

        "#]],
    );
}

#[test]
fn gradients_are_laid_out_with_their_comments() {
    let text = "layer gradient(x) { param gamma=1\n gamma*x }\n// about it\ngradient gradient( x,// the input\n dy ) { // open\n // first\nlet gradient = gamma *dy // shared\n\n\n dx=gradient // done\n dgamma =sum[ batch ](x\n*// inside\ndy)\n// last\n}// end\n";
    let once = formatted(text).expect("the text is read");
    expect![[r#"
        layer gradient(x) {
            param gamma = 1
            gamma * x
        }
        // about it
        // the input
        gradient gradient(x, dy) { // open
            // first
            let gradient = gamma * dy // shared

            dx = gradient // done
            // inside
            dgamma = sum[batch](x * dy)
            // last
        } // end
    "#]]
    .assert_eq(&once);
    assert_eq!(formatted(&once).as_deref(), Some(once.as_str()));
    assert!(analyse(text).diagnostics.is_empty());
}

#[test]
fn mangled_gradients_end_without_a_panic() {
    let gradient = "gradient l(x, dy) {\n    let s = std[group](x)\n    dx = v * dy * w + slope * (x - mean[group](x)) / s // c\n        * mean[group](dy) / count[group](x)\n    dv = sum[batch](x * dy)\n    dw = sum[all](x * dy)\n}\n";
    let text = format!("{LAYER}{gradient}fn f(a) = a\n");
    let mut tokens: Vec<&str> = vec![];
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (token, after) = rest.split_at(word.max(first.len_utf8()));
        tokens.push(token);
        rest = after;
    }
    let others = ["gradient", "let", "param", "layer", "count", "=", "é", "\n\n", "//", "1e999", "group(3)", "-", ""];
    let (mut read, mut built) = (0, 0);
    for seed in 0..6_000u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tokens = tokens.clone();
        for _ in 0..rng.random_range(1..4) {
            let place = rng.random_range(0..tokens.len());
            tokens[place] =
                if rng.random_bool(0.5) { others.choose(&mut rng) } else { tokens.choose(&mut rng) }.unwrap();
        }
        let text = tokens.concat();
        let source = Source::new("t.nact", &*text);
        let analysis = compile(&source, &Overrides::none());
        render(&source, &analysis.diagnostics, seed % 2 == 0);
        let of = |analysis: &Analysis| -> Vec<Option<stated::Gradient>> {
            let stated = analysis.layers.iter().map(|compiled| compiled.gradient.as_ref());
            stated.map(|stated| stated.map(|stated| stated.gradient.clone())).collect()
        };
        if let Some(once) = formatted(&text) {
            assert_eq!(formatted(&once).as_deref(), Some(once.as_str()), "seed {seed}: {text}");
            assert_eq!(of(&analyse(&once)), of(&analysis), "seed {seed}: {text}");
            read += 1;
        }
        for stated in of(&analysis).iter().flatten() {
            let layer = &analysis.layers[0].layer;
            let shape = Shape::new(&[2, 4, 3]).unwrap();
            let inputs = Inputs::initial(&layer.dag, shape, vec![0.5; 24]);
            // An error where groups do not divide the channels.
            let _ = stated.evaluate(&inputs, &[1.0; 24]);
            built += 1;
        }
    }
    println!("{read} texts could be read, {built} gradients be built");
    assert!(read > 500 && built > 100, "{read} {built}");
}

#[test]
fn very_many_lines_and_mistakes_end_soon() {
    let begin = std::time::Instant::now();
    let said = |text: &str| {
        let source = Source::new("t.nact", text);
        let analysis = compile(&source, &Overrides::none());
        assert!(render(&source, &analysis.diagnostics, false).len() < 300_000);
        formatted(text);
    };
    let params: String = (0..20_000).map(|i| format!("param p{i} = 1\n")).collect();
    let lines: String = (0..20_000).map(|i| format!("dp{i} = 1\n")).collect();
    let layer = format!("layer l(x) {{\n{params}x }}\n");
    said(&format!("{layer}gradient l(x, dy) {{\n{lines}}}\n"));
    said(&format!("{layer}gradient l(x, dy) {{\n{}}}\n", lines.replace("dp", "let dp")));
    said(&format!("layer l(x) {{ x }}\ngradient l(x, dy) {{\n{lines}}}\n"));
    said(&"layer l(x) {x}\ngradient l(x, y) {}\n".repeat(15_000));
    let many: String = (0..10_000).map(|i| format!("layer l{i}(x) {{x}}\ngradient l{i}(x, y) {{dx = y}}\n")).collect();
    said(&many);
    said(&"gradient l(x, y) {}\n".repeat(40_000));
    // Minutes where any of these takes quadratic time; the bound is no measure of speed.
    assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{:?}", begin.elapsed());
}
