//! `normact equiv` and `normact show --as canonical`: what is printed, the exit codes, and that a
//! witness can be checked by running both layers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{read_tensors, run};

const LAYERS: &str = "
layer gate(x) { param v = 1
    x * sigmoid(v * x) }
layer spelled_out(x) { param w = 1
    x / (1 + exp(-w * x)) }
layer quotient(x) { x / x }
layer one(x) { 1 + 0 * x }
layer biased(x) { x / std[batch](x) }
layer unbiased(x) { x / std[batch](x, running = unbiased) }
layer centred(x) { std[batch](x - mean[instance](x)) + x }
layer doubled(x, factor = 2) { factor * x }
layer weights(x) { param a = 0
    param b = 0
    x + a + square(b) }
layer swapped(x) { param a = 0
    param b = 0
    x + b + a * a * a }
layer scaled(x) { param gamma = 1
    param beta = 0
    tanh(x) * gamma + beta }
layer plain(x) { tanh(x) }
layer relu_quotient(x) { relu(x) / relu(x) }
";

fn with_layers(test: impl Fn(&Path, &dyn Fn(&str) -> String)) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("l.nact");
    fs::write(&path, LAYERS).unwrap();
    test(folder.path(), &|name| format!("{}:{name}", path.display()));
}

/// What `equiv` prints for two of the layers above.
fn check(a: &str, b: &str, extra: &[&str], code: i32, expected: Expect) {
    with_layers(|folder, layer| {
        let (a, b) = (layer(a), layer(b));
        let (found, text, messages) = run(&[&["equiv", &a, &b], extra].concat());
        assert_eq!(found, code, "{text}{messages}");
        assert_eq!(messages, "");
        expected.assert_eq(&text.replace(&format!("{}/", folder.display()), ""));
    });
}

#[test]
fn equal_layers_have_a_proof() {
    check(
        "gate",
        "spelled_out",
        &[],
        0,
        expect![[r#"
            equal

                  x * sigmoid(x * v)
              1.  power-of-power (guarded, from right to left): (a^p)^q = a^(p*q) if a != 0 and, where p*q = 0, a is defined
                  x / (1 / sigmoid(x * v))
              2.  mul-one (exact, from right to left): a * 1 = a
                  (written the same way)
              3.  add-zero (exact, from right to left): a + 0 = a
                  x / (1 / sigmoid(x * v + 0))
              4.  mul-one (exact, from right to left): a * 1 = a
                  x / (1 / sigmoid(1 * (x * v) + 0))
              5.  mul-constants (exact, from right to left): k * l = (k * l)
                  x / (1 / sigmoid(0 - x * v * -1))
              6.  logistic-quotient (exact, from right to left): k + exp(a) = k * sigmoid(log(k) - a)^-1 if k > 0
                  x / (exp(-(x * v)) + 1)

            in the second layer v is called w
        "#]],
    );
    check(
        "gate",
        "gate",
        &[],
        0,
        expect![[r#"
        equal
        both are written alike
    "#]],
    );
}

#[test]
fn layers_that_differ_at_points_are_equal_almost_everywhere() {
    check(
        "quotient",
        "one",
        &[],
        0,
        expect![[r#"
            equal almost everywhere

                  x / x
              1.  product-of-powers (almost-everywhere): a^p * a^q = a^(p+q) if a != 0 and, where p+q = 0, a is defined
                  1
              2.  add-constants (exact, from right to left): k + l = (k + l)
                  0 + 1
              3.  mul-zero (guarded, from right to left): a * 0 = 0 if a is defined
                  0 * x + 1

            gradients may differ where one of them has a kink

            they are not equal everywhere:
            a is l.nact:quotient, b is l.nact:one

              mode        training
              shape       [1, 1]
              x           [0]
              x[0, 0]     0
              a: y[0, 0]  undefined
              b: y[0, 0]  1
        "#]],
    );
    check(
        "quotient",
        "one",
        &["--almost-everywhere"],
        0,
        expect![[r#"
            equal almost everywhere

                  x / x
              1.  product-of-powers (almost-everywhere): a^p * a^q = a^(p+q) if a != 0 and, where p+q = 0, a is defined
                  1
              2.  add-constants (exact, from right to left): k + l = (k + l)
                  0 + 1
              3.  mul-zero (guarded, from right to left): a * 0 = 0 if a is defined
                  0 * x + 1

            gradients may differ where one of them has a kink
        "#]],
    );
    check(
        "quotient",
        "one",
        &["--exact"],
        1,
        expect![[r#"
        different
        a is l.nact:quotient, b is l.nact:one

          mode        training
          shape       [1, 1]
          x           [0]
          x[0, 0]     0
          a: y[0, 0]  undefined
          b: y[0, 0]  1
    "#]],
    );
    // Undefined for half of all inputs.
    with_layers(|_, layer| {
        let (code, text, _) = run(&["equiv", &layer("relu_quotient"), &layer("one")]);
        assert_eq!((code, text.lines().next()), (1, Some("different")));
    });
}

#[test]
fn different_layers_have_a_witness() {
    check(
        "gate",
        "doubled",
        &[],
        1,
        expect![[r#"
        different
        a is l.nact:gate, b is l.nact:doubled

          mode           training
          shape          [2, 2, 2]
          x              [1, -2, 2, 1, 0, -1, -1, -1]
          a: param v     [1, 1]
          x[0, 0, 1]     -2
          a: y[0, 0, 1]  -0.2384058440442351
          b: y[0, 0, 1]  -4
    "#]],
    );
    check(
        "biased",
        "unbiased",
        &[],
        1,
        expect![[r#"
        different
        a is l.nact:biased, b is l.nact:unbiased

          mode            evaluation
          shape           [2, 2, 2]
          x               [0, 0, 1, -2, 2, 0, 0, -1]
          a: running_var  [0.96875, 1.01875]
          b: running_var  [0.9916666666666667, 1.0583333333333333]
          x[0, 1, 0]      1
          a: y[0, 1, 0]   0.9907499466716471
          b: y[0, 1, 0]   0.9720457611811708
    "#]],
    );
}

#[test]
fn a_final_scale_and_shift_can_be_left_out_of_account() {
    check(
        "scaled",
        "plain",
        &["--modulo-affine"],
        0,
        expect![[r#"
        equal
        a final scale and shift per channel and the scales of parameters do not count
        both are written alike
    "#]],
    );
    with_layers(|_, layer| {
        assert_eq!(run(&["equiv", &layer("scaled"), &layer("plain")]).0, 1);
        let (code, _, message) =
            run(&["equiv", &layer("scaled"), &layer("plain"), "--modulo-affine", "--witness", "w.safetensors"]);
        assert_eq!(code, 2, "{message}");
    });
}

#[test]
fn a_witness_is_reproduced_by_running_both_layers() {
    with_layers(|folder, layer| {
        let witness = folder.join("w.safetensors");
        let witness = witness.to_str().unwrap();
        let outputs = ["y_a", "y_b"].map(|name| folder.join(name));
        for (a, b, has_sides) in [
            ("gate", "doubled", false),
            ("biased", "unbiased", true),
            ("weights", "swapped", false),
            ("quotient", "one", false),
        ] {
            let (a, b) = (layer(a), layer(b));
            let (_, answer, messages) = run(&["equiv", &a, &b, "--witness", witness, "--json"]);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let expected = read_tensors(Path::new(witness));
            assert_eq!(expected.keys().any(|name| name.starts_with("b.")), has_sides, "{a}: {:?}", expected.keys());
            let shown = [&answer["witness"], &answer["exception"]].into_iter().find(|shown| !shown.is_null()).unwrap();
            let evaluation = shown["mode"] == "evaluation";
            for (side, spec, output) in [("a", &a, &outputs[0]), ("b", &b, &outputs[1])] {
                let mut command = vec!["run", spec, "--input", witness, "--output", output.to_str().unwrap()];
                command.extend(["--device", "cpu"]);
                if evaluation {
                    command.push("--eval");
                }
                if has_sides {
                    let (code, _, message) = run(&command);
                    assert_eq!(code, 2);
                    assert!(message.contains("--side a"), "{message}");
                    command.extend(["--side", side]);
                }
                let (code, _, message) = run(&command);
                assert_eq!(code, 0, "{message}");
                // The program says how to do this.
                assert!(messages.contains(&format!("normact run {spec} --input {witness}")), "{messages}");
                let (_, y) = &read_tensors(output)["y"];
                for (index, (expected, found)) in expected[&format!("y_{side}")].1.iter().zip(y).enumerate() {
                    // What is undefined may be infinite in floating point.
                    let undefined = expected.is_nan() && !found.is_finite();
                    assert!(undefined || (expected - found).abs() < 1e-5, "{spec}[{index}]: {expected}, {found}");
                }
            }
        }
        fs::remove_file(witness).unwrap();
        let (code, _, message) = run(&["equiv", &layer("gate"), &layer("spelled_out"), "--witness", witness]);
        assert_eq!(code, 0);
        assert!(message.contains("is not written"), "{message}");
        assert!(!Path::new(witness).exists());
    });
}

#[test]
fn json_answers_have_stable_keys() {
    with_layers(|_, layer| {
        let ask = |a: &str, b: &str| -> Value {
            let (_, text, _) = run(&["equiv", &layer(a), &layer(b), "--json"]);
            assert_eq!(text.lines().count(), 1);
            serde_json::from_str(&text).unwrap()
        };
        let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        let equal = ask("gate", "spelled_out");
        assert_eq!((&equal["verdict"], &equal["mode"]), (&json!("equal"), &json!("exact")));
        assert_eq!(equal["matching"], json!([["v", "w"]]));
        let steps = equal["proof"].as_array().unwrap();
        assert_eq!(sorted(keys(&steps[0])), ["after", "before", "class", "reversed", "rule"]);
        assert!(steps[0]["before"].as_str().unwrap().starts_with("layer gate(x) {\n"));
        for pair in steps.windows(2) {
            assert_eq!(pair[0]["after"], pair[1]["before"]);
        }
        let almost = ask("quotient", "one");
        assert_eq!((&almost["verdict"], &almost["mode"]), (&json!("equal"), &json!("almost-everywhere")));
        assert_eq!(almost["exception"]["a"]["y"][0], Value::Null, "x / x is undefined at 0");
        let different = ask("biased", "unbiased");
        assert_eq!(different["verdict"], "different");
        assert_eq!(different["witness"]["mode"], "evaluation");
        assert_eq!(different["witness"]["kind"], "values");
        for answer in [&equal, &almost, &different] {
            let expected = [
                "budget",
                "exception",
                "matching",
                "mode",
                "modulo_affine",
                "proof",
                "state_differs",
                "verdict",
                "witness",
            ];
            assert_eq!(sorted(keys(answer)), expected);
        }
    });
}

#[test]
fn settings_apply_where_they_exist() {
    with_layers(|_, layer| {
        let equiv = |a: &str, b: &str, settings: &[&str]| {
            let (a, b) = (layer(a), layer(b));
            let mut arguments = vec!["equiv", &*a, &*b];
            settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
            let (code, _, message) = run(&arguments);
            (code, message)
        };
        assert_eq!(equiv("doubled", "doubled", &["factor=3"]).0, 0);
        assert_eq!(equiv("doubled", "plain", &["factor=3", "eps=1e-3"]).0, 1);
        let (code, message) = equiv("doubled", "plain", &["facto=3"]);
        assert_eq!(code, 2);
        assert!(message.contains("neither layer has a setting `facto`") && message.contains("did you mean `factor`?"));
        assert_eq!(equiv("doubled", "plain", &["eps=-1"]).0, 2);
        assert_eq!(run(&["equiv", "-", "-"]).0, 2);
        assert_eq!(run(&["equiv", "bn_relu", "bn_silu", "--exact", "--almost-everywhere"]).0, 2);
        // One layer of a file may have settings that its neighbours do not.
        assert!(run(&["show", &layer("doubled"), "--set", "factor=3"]).1.contains("3 * x"));
    });
}

#[test]
fn the_canonical_form_reads_back_and_has_the_key() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("c.nact");
    let (code, text, _) = run(&["show", "evonorm_s0", "--as", "canonical"]);
    assert_eq!(code, 0);
    let key = text.split_whitespace().nth(2).unwrap().trim_end_matches(',');
    assert!(key.len() == 32 && key.chars().all(|digit| digit.is_ascii_hexdigit()), "{key}");
    expect![[r#"
        // key KEY, saturated
        layer evonorm_s0(x, groups = 32, eps = 1e-5) {
            param v = 1
            param gamma = 1
            param beta = 0

            x * sigmoid(x * v) * gamma / std[group](x) + beta
        }
    "#]]
    .assert_eq(&text.replace(key, "KEY"));
    fs::write(&path, &text).unwrap();
    let (code, again, _) = run(&["show", path.to_str().unwrap(), "--as", "canonical"]);
    assert_eq!((code, &again), (0, &text));
    let (_, record, _) = run(&["show", "evonorm_s0", "--as", "canonical", "--json"]);
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["key"], &record["status"]), (&json!(key), &json!("saturated")));
    assert!(text.ends_with(record["text"].as_str().unwrap()));
    assert_eq!(record["graph"]["normact"], 1);
    assert_eq!(run(&["show", "evonorm_s0", "--as", "graph", "--json"]).0, 2);
}

#[test]
fn the_form_says_what_a_layer_is_at_its_initial_values() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("z.nact");
    fs::write(&path, "layer z(x) {\n    param v = 0\n    x * v / v\n}\n").unwrap();
    let (code, text, _) = run(&["show", path.to_str().unwrap(), "--as", "canonical"]);
    assert_eq!(code, 0);
    let key = text.split_whitespace().nth(2).unwrap().to_owned();
    expect![[r#"
        // key KEY, saturated
        // At the initial values of the parameters it is:
        // layer z(x) {
        //     param v = 0
        // 
        //     0 / 0
        // }
        layer z(x) {
            param v = 0

            x
        }
    "#]]
    .assert_eq(&text.replace(&key, "KEY,"));
}

#[test]
fn every_built_in_layer_equals_itself_and_no_other() {
    let begin = Instant::now();
    let (_, list, _) = run(&["list"]);
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for (index, name) in names.iter().enumerate() {
        let (code, text, _) = run(&["equiv", name, name]);
        assert_eq!((code, text.lines().next()), (0, Some("equal")), "{name}");
        let other = names[(index + 1) % names.len()];
        let (code, text, _) = run(&["equiv", name, other]);
        assert_eq!((code, text.lines().next()), (1, Some("different")), "{name} and {other}");
    }
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn simplify_prints_a_cheaper_formula_and_how_it_came_about() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("s.nact");
    let text = "layer s(x, eps = 1e-5) {
    param v = 1
    let m = mean[group](x)
    x * (1 / (1 + exp(-(v * x)))) / sqrt(mean[group](x * x) - m * m + eps) * 2 * 0.5
}
";
    fs::write(&path, text).unwrap();
    let (code, text, warnings) = run(&["simplify", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{warnings}");
    expect![[r#"
        layer s(x, groups = 32, eps = 1e-5) {
            param v = 1

            x * sigmoid(v * x) * (1 / std[group](x))
        }
    "#]]
    .assert_eq(&text);
    let (_, again, how) = run(&["simplify", path.to_str().unwrap(), "--verbose"]);
    assert_eq!(again, text);
    let costs: Vec<f64> = how
        .lines()
        .find(|line| line.starts_with("cost "))
        .unwrap()
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!(costs[1] < costs[0], "{how}");
    assert!(how.contains("  std-definition"), "{how}");
    let (_, record, _) = run(&["simplify", path.to_str().unwrap(), "--json"]);
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["text"], json!(text));
    assert_eq!(record["status"], "saturated");
    assert_eq!(record["graph"]["normact"], 1);
    let rules = record["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["rule"] == "std-definition" && rule["count"] == 1), "{rules:?}");
    assert!(record["cost"]["after"].as_f64() < record["cost"]["before"].as_f64());
}

#[test]
fn what_simplify_prints_is_exactly_the_layer() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("s.nact");
    let (_, list, _) = run(&["list"]);
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let (code, text, message) = run(&["simplify", name]);
        assert_eq!((code, message.as_str()), (0, ""), "{name}");
        fs::write(&path, &text).unwrap();
        let (code, answer, _) = run(&["equiv", name, path.to_str().unwrap(), "--exact"]);
        assert_eq!((code, answer.lines().next()), (0, Some("equal")), "{name}: {text}{answer}");
    }
}
