//! The command line: what each command prints, and its exit codes.

use expect_test::expect;
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{assert_close, finished, normact, read_tensors, run, write_tensors};

#[test]
fn every_command_has_help_with_examples() {
    let commands = [
        "check",
        "fmt",
        "list",
        "show",
        "simplify",
        "equiv",
        "canon",
        "run",
        "gradcheck",
        "bench",
        "emit",
        "import",
        "train",
        "search",
        "explain",
        "completions",
    ];
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in commands {
        assert!(help.contains(command), "{command} is missing from --help");
        let (code, help, _) = run(&[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        assert!(help.contains("Examples:\n  normact"), "{command}: {help}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(script.contains("gradcheck"), "{shell}");
    }
}

#[test]
fn list_names_every_built_in_layer() {
    let (code, text, _) = run(&["list"]);
    assert_eq!(code, 0);
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let expected = [
        "affine",
        "bn_relu",
        "bn_silu",
        "gn_relu",
        "gn_silu",
        "ln_relu",
        "ln_gelu",
        "ln_gelu_tanh",
        "in_relu",
        "rms_norm",
        "frn_tlu",
        "evonorm_b0",
        "evonorm_b1",
        "evonorm_b2",
        "evonorm_s0",
        "evonorm_s1",
        "evonorm_s2",
        "dyt",
        "derf",
    ];
    assert_eq!(names, expected);
    let (_, json, _) = run(&["list", "--json", "--functions"]);
    assert!(json.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(json.contains("\"softplus(x)\""));
}

#[test]
fn show_prints_each_form() {
    let (code, text, _) = run(&["show", "evonorm_s0", "--set", "groups=8"]);
    assert_eq!(code, 0);
    expect![[r#"
        layer evonorm_s0(x, groups = 8, eps = 1e-5) {
            param v = 1
            param gamma = 1
            param beta = 0

            x * sigmoid(v * x) / std[group](x) * gamma + beta
        }
    "#]]
    .assert_eq(&text);
    let (_, graph, _) = run(&["show", "bn_relu", "--as", "graph"]);
    expect![[r#"
        layer bn_relu: 12 nodes
           %0  x               [n, c, s]  the input
           %1  gamma           [1, c, 1]  trainable, per channel, starts at 1
           %2  beta            [1, c, 1]  trainable, per channel, starts at 0
           %3  mean[batch] %0  [1, c, 1]  momentum = 0.1, running_mean in evaluation
           %4  neg %3          [1, c, 1]
           %5  add %0 %4       [n, c, s]
           %6  std[batch] %0   [1, c, 1]  eps = 1e-5, momentum = 0.1, running_var in evaluation
           %7  div %5 %6       [n, c, s]
           %8  mul %7 %1       [n, c, s]
           %9  add %8 %2       [n, c, s]
          %10  0               [1, 1, 1]
          %11  max %9 %10      [n, c, s]  output
          running_mean: running mean of %0 over batch, momentum 0.1
          running_var: running variance of %0 over batch, momentum 0.1
    "#]]
    .assert_eq(&graph);
    let (_, dot, _) = run(&["show", "affine", "--as", "dot"]);
    expect![[r##"
        digraph "affine" {
          graph [rankdir=TB, bgcolor=white, nodesep=0.3, ranksep=0.4];
          node [fontname="Helvetica", fontsize=11, height=0.3, margin="0.12,0.06"];
          edge [fontname="Helvetica", fontsize=12, color="#7a7a7a", arrowsize=0.7];
          n0 [label="x", shape=box, style="filled,rounded", fillcolor="#d5e8f5", color="#0072b2", tooltip="the input"];
          n3_1 [label="gamma", shape=hexagon, style=filled, fillcolor="#d3efe5", color="#009e73", tooltip="gamma: one value per channel, starts at 1"];
          n3 [label="×", shape=circle, style=filled, margin=0.02, fillcolor="#ffffff", color="#333333", tooltip="mul, varies along [n, c, s]"];
          n0 -> n3 [color="#0072b2", penwidth=2.4, weight=8];
          n3_1 -> n3;
          n4_1 [label="beta", shape=hexagon, style=filled, fillcolor="#d3efe5", color="#009e73", tooltip="beta: one value per channel, starts at 0"];
          n4 [label="+", shape=circle, style=filled, margin=0.02, fillcolor="#ffffff", color="#333333", tooltip="add, varies along [n, c, s]"];
          n3 -> n4 [color="#0072b2", penwidth=2.4, weight=8];
          n4_1 -> n4;
          y [label="y", shape=box, style="filled,rounded", fillcolor="#d5e8f5", color="#0072b2", tooltip="the result"];
          n4 -> y [color="#0072b2", penwidth=2.4, weight=8];
        }
    "##]]
    .assert_eq(&dot);
    for (form, start) in [("latex", "% affine\n"), ("svg", "<svg "), ("mermaid", "---\ntitle: \"affine\"\n")] {
        let (code, text, _) = run(&["show", "affine", "--as", form]);
        assert_eq!(code, 0, "{form}");
        assert!(text.starts_with(start), "{form}: {text}");
    }
}

#[test]
fn a_graph_in_json_is_a_layer_like_any_other() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("g.json");
    let (_, json, _) = run(&["show", "evonorm_b0", "--as", "json"]);
    std::fs::write(&path, &json).unwrap();
    let (_, text, _) = run(&["show", path.to_str().unwrap()]);
    let (_, expected, _) = run(&["show", "evonorm_b0"]);
    assert_eq!(text, expected);
    let (_, again, _) = run(&["show", path.to_str().unwrap(), "--json"]);
    assert_eq!(again, json);
}

#[test]
fn check_reports_files_as_json_lines() {
    let folder = tempdir().unwrap();
    let good = folder.path().join("good.nact");
    let bad = folder.path().join("bad.nact");
    std::fs::write(&good, "layer l(x) {\n    x\n}\n").unwrap();
    std::fs::write(&bad, "layer l(x) {\n    x + tahn(x)\n}\n").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let (code, lines, _) = run(&["check", "--json", good, bad]);
    assert_eq!(code, 1);
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0], serde_json::json!({"file": good, "diagnostics": []}));
    assert_eq!(
        records[1],
        serde_json::json!({"file": bad, "diagnostics": [{
            "code": "E0202", "severity": "error", "message": "there is no function `tahn`", "help": "did you mean `tanh`?",
            "start": {"line": 2, "column": 9}, "end": {"line": 2, "column": 13},
        }]})
    );
    assert_eq!(run(&["check", good]).0, 0);
    let (code, _, message) = run(&["check", "grammar.nact:no"]);
    assert_eq!(code, 2);
    assert!(message.contains("grammar.nact:no"), "{message}");
}

#[test]
fn check_sees_shapes_and_settings() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("g.nact");
    std::fs::write(&path, "layer l(x) {\n    x / std[group(5)](x)\n}\n").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(run(&["check", path]).0, 0);
    let (code, _, message) = run(&["check", path, "--shape", "8,12,4,4"]);
    assert_eq!(code, 1);
    assert!(message.contains("channels % groups == 0 does not hold for channels = 12, groups = 5"), "{message}");
    let (code, _, message) = run(&["check", "evonorm_s0", "--set", "groups=0"]);
    assert_eq!(code, 2);
    assert!(message.contains("`groups` is a whole number from 1"), "{message}");
    assert_eq!(run(&["check", "evonorm_s0", "--shape", "8,16,4,4", "--deny-warnings"]).0, 1);
}

#[test]
fn fmt_rewrites_checks_and_pipes() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("f.nact");
    let (messy, tidy) = ("layer l( x ){x*2}", "layer l(x) {\n    x * 2\n}\n");
    std::fs::write(&path, messy).unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(run(&["fmt", file, "--check"]).0, 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), messy);
    assert_eq!(run(&["fmt", file]).0, 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), tidy);
    assert_eq!(run(&["fmt", file, "--check"]).0, 0);
    std::fs::write(&path, "layer l(x) { x * }").unwrap();
    assert_eq!(run(&["fmt", file]).0, 2);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "layer l(x) { x * }", "a wrong file is left as it was");
}

#[test]
fn explain_tells_more() {
    let (code, text, _) = run(&["explain", "e0302"]);
    assert_eq!(code, 0);
    assert!(text.starts_with("E0302: groups do not divide the channels\n\ngroup(8) means"), "{text}");
    assert_eq!(run(&["explain", "E9999"]).0, 2);
    assert!(run(&["explain"]).1.lines().count() > 25);
}

#[test]
fn gradcheck_passes_on_every_device_and_fails_where_the_gradient_is_none() {
    for device in ["cpu", "wgpu"] {
        for layer in ["evonorm_b0", "frn_tlu", "ln_gelu"] {
            let (code, table, message) = run(&["gradcheck", layer, "--device", device]);
            assert_eq!(code, 0, "{layer} on {device}: {table}{message}");
            assert!(table.contains("gamma") && table.contains(" ok"), "{table}");
        }
    }
    // log(0) is undefined, and so is its gradient.
    let folder = tempdir().unwrap();
    let path = folder.path().join("l.nact");
    std::fs::write(&path, "layer l(x) {\n    x * log(0 * x)\n}\n").unwrap();
    assert_eq!(run(&["gradcheck", path.to_str().unwrap(), "--device", "cpu"]).0, 1);
}

#[test]
fn gradcheck_compares_the_gradient_that_a_file_states() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("l.nact");
    let file = path.to_str().unwrap();
    let (code, right, _) = run(&["show", "bn_relu", "--as", "gradient"]);
    assert_eq!(code, 0);
    std::fs::write(&path, &right).unwrap();
    assert_eq!(run(&["fmt", "--check", file]).0, 0, "{right}");
    assert_eq!(run(&["check", "--deny-warnings", file]).0, 0, "{right}");
    let (code, table, message) = run(&["gradcheck", file, "--device", "cpu"]);
    assert_eq!(code, 0, "{table}{message}");
    assert!(table.contains("stated"), "{table}");
    let wrong = right.replacen("dbeta  = ", "dbeta  = 2 * ", 1);
    assert_ne!(wrong, right);
    std::fs::write(&path, &wrong).unwrap();
    let (code, table, message) = run(&["gradcheck", file, "--device", "cpu"]);
    assert_eq!(code, 1, "{table}{message}");
    assert!(message.contains("the stated gradient of `beta` is wrong: at ["), "{message}");
    let (code, rows, _) = run(&["gradcheck", file, "--device", "cpu", "--json"]);
    assert_eq!(code, 1);
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    for row in rows {
        let is_wrong = row["stated_error"].as_f64().unwrap() > 1e-9;
        assert_eq!(is_wrong, row["gradient"] == "beta", "{row}");
    }
}

#[test]
fn run_computes_outputs_gradients_and_state() {
    let folder = tempdir().unwrap();
    let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let x: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
    let dims: &[usize] = &[2, 3, 4];
    write_tensors(
        &input,
        &[
            ("x", dims, x.clone()),
            ("dy", dims, vec![1.0; 24]),
            ("param.gamma", &[3], vec![2.0, 1.0, 0.5]),
            ("state.running_mean", &[3], vec![0.5; 3]),
        ],
    );
    let (i, o) = (input.to_str().unwrap(), output.to_str().unwrap());
    let mut answers = Vec::new();
    for device in ["cpu", "wgpu"] {
        let (code, json, message) =
            run(&["run", "bn_relu", "--input", i, "--output", o, "--grad", "--device", device, "--json"]);
        assert_eq!(code, 0, "{message}");
        let summary: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(summary["device"], device);
        assert_eq!(summary["tensors"]["grad.gamma"], serde_json::json!([3]));
        answers.push(read_tensors(&output));
    }
    let names: Vec<&str> = answers[0].keys().map(String::as_str).collect();
    assert_eq!(names, ["dx", "grad.beta", "grad.gamma", "state.running_mean", "state.running_var", "y"]);
    for (name, (_, expected)) in &answers[0] {
        assert_close(name, expected, &answers[1][name].1, 1e-5);
    }
    // The mean of the batch, a tenth of it added to nine tenths of the old one.
    let mean = |c: usize| {
        (0..2).flat_map(|n| (0..4).map(move |s| (n * 3 + c) * 4 + s)).map(|i| f64::from(x[i])).sum::<f64>() / 8.0
    };
    let expected: Vec<f64> = (0..3).map(|c| 0.9 * 0.5 + 0.1 * mean(c)).collect();
    assert_close("running mean", &expected, &answers[0]["state.running_mean"].1, 1e-6);
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut child = normact()
        .args(["list", "--functions"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, message) = finished(child.wait_with_output().unwrap());
    assert_eq!((code, message.as_str()), (0, ""));
}

#[test]
fn bench_measures_a_step_and_what_it_keeps() {
    let arguments =
        ["bench", "evonorm_s0", "bn_relu", "--shape", "4,8,64,64", "--device", "cpu", "--runs", "2", "--json"];
    let (code, output, messages) = run(&arguments);
    assert_eq!(code, 0, "{messages}");
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["device"], "cpu");
    assert_eq!(report["shape"], serde_json::json!([4, 8, 64, 64]));
    assert_eq!(report["ideal_passes"], serde_json::json!({"evonorm_s0": 5, "bn_relu": 8}));
    let input = (4 * 4 * 8 * 64 * 64) as f64;
    for layer in report["layers"].as_array().unwrap() {
        let (fused, op_by_op) = (&layer["fused"], &layer["op_by_op"]);
        assert_eq!(fused["path"], "fused");
        assert_eq!(op_by_op["path"], "op by op: it was asked for");
        assert_eq!(fused["passes"], 8);
        assert!(fused["kernels_forward"].is_null(), "a CPU has no kernels");
        assert!(fused["first_ms"].as_f64().unwrap() > 0.0);
        for way in [fused, op_by_op] {
            assert!(way["forward_ms"].as_f64().unwrap() > 0.0);
            assert!(way["forward_backward_ms"].as_f64().unwrap() >= way["forward_ms"].as_f64().unwrap());
        }
        let kept = |way: &serde_json::Value| way["saved_bytes"].as_f64().unwrap() / input;
        assert!(kept(fused) < 1.05, "{layer}");
        assert!(kept(op_by_op) > 3.0, "{layer}");
    }
    assert!(report["layers"][0]["burn"].is_null());
    assert!(report["layers"][1]["burn"]["forward_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn built_in_layers_keep_hardly_more_than_a_small_input() {
    let names: Vec<&str> = normact::built_in::names().collect();
    let mut arguments = vec!["bench"];
    arguments.extend(&names);
    arguments.extend(["--shape", "8,16,8,8", "--device", "cpu", "--runs", "1", "--json"]);
    let (code, output, messages) = run(&arguments);
    assert_eq!(code, 0, "{messages}");
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    for layer in report["layers"].as_array().unwrap() {
        let kept = layer["fused"]["saved_bytes"].as_f64().unwrap() / f64::from(4 * 8 * 16 * 8 * 8);
        assert!((1.0..=1.05).contains(&kept), "{}: {kept}", layer["layer"]);
    }
    assert_eq!(report["layers"].as_array().unwrap().len(), names.len());
}

#[test]
fn bench_says_how_many_kernels_a_layer_is() {
    let arguments = ["bench", "gn_silu", "--shape", "4,64,8,8", "--device", "wgpu", "--runs", "1", "--json"];
    let (code, output, messages) = run(&arguments);
    assert_eq!(code, 0, "{messages}");
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    let fused = &report["layers"][0]["fused"];
    assert_eq!((&fused["kernels_forward"], &fused["kernels_backward"]), (&1.into(), &2.into()));
}

#[test]
fn bench_prints_a_table_and_bars() {
    let (code, output, _) = run(&["bench", "dyt", "--shape", "2,4,8,8", "--device", "cpu", "--runs", "1"]);
    assert_eq!(code, 0);
    for part in ["cpu [2, 4, 8, 8]", "forward+backward", "dyt fused", "dyt op by op", "| is the ideal number of passes"]
    {
        assert!(output.contains(part), "{part} is missing in\n{output}");
    }
}

#[test]
fn bad_shapes_of_bench_and_plans_are_explained() {
    let layer = "layer five(x) { x / std[group(5)](x) }";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("five.nact");
    std::fs::write(&file, layer).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, message) in [
        (vec!["bench", file, "--shape", "2,12,4,4", "--device", "cpu"], "group(5) does not divide the channels"),
        (vec!["show", file, "--as", "plan", "--shape", "2,12,4,4"], "group(5) does not divide the channels"),
        (vec!["bench", "dyt", "--shape", "2,4", "--device", "cpu"], "does not have four axes"),
        (vec!["bench", "dyt", "--shape", "2,0,4,4", "--device", "cpu"], "axis 1 of the input is empty"),
        (vec!["bench", "dyt", "--shape", "4096,4096,4096,4096", "--device", "cpu"], "is too large to time"),
        (vec!["bench", "dyt", "--runs", "0", "--device", "cpu"], "0 is not in"),
    ] {
        let (code, output, messages) = run(&arguments);
        assert_eq!((code, output.as_str()), (2, ""), "{arguments:?}: {messages}");
        assert!(messages.contains(message), "{arguments:?}: {messages}");
    }
}

#[test]
fn a_layer_is_emitted_for_every_target_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new").to_str().unwrap().to_owned();
    for (target, file) in
        [("rust", "evonorm_s0.rs"), ("pytorch", "evonorm_s0.py"), ("jax", "evonorm_s0.py"), ("onnx", "evonorm_s0.onnx")]
    {
        let (code, output, messages) =
            run(&["emit", "evonorm_s0", "--target", target, "--channels", "8", "--out", &out]);
        assert_eq!(code, 0, "{target}: {messages}");
        assert!(output.contains(file), "{target}: {output}");
        assert!(std::fs::metadata(format!("{out}/{file}")).unwrap().len() > 500);
    }
    let (code, _, messages) = run(&["emit", "ln_gelu", "--target", "onnx", "--channels", "8", "--out", &out]);
    assert_eq!(code, 0, "{messages}");
    let (model, read) = (format!("{out}/ln_gelu.onnx"), format!("{out}/read.nact"));
    let weights = format!("{out}/weights.safetensors");
    let (code, formula, messages) = run(&["import", &model, "--weights", &weights]);
    assert_eq!(code, 0, "{messages}");
    std::fs::write(&read, &formula).unwrap();
    let (code, output, _) = run(&["equiv", &read, "ln_gelu"]);
    assert_eq!(code, 0, "{output}\n{formula}");
}

#[test]
fn what_cannot_be_emitted_or_imported_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("match.nact"), "layer match(x) { x * 2 }").unwrap();
    std::fs::write(path("cut.onnx"), [8, 7, 58, 120]).unwrap();
    let (keyword, out, cut) = (path("match.nact"), path("out"), path("cut.onnx"));
    for (arguments, message) in [
        (vec!["emit", &keyword, "--target", "rust", "--out", &out], "the layer `match` cannot be called so"),
        (vec!["emit", "bn_relu", "--target", "onnx", "--out", &out], "not known for how many channels"),
        (vec!["emit", "bn_relu", "--target", "onnx", "--out", &out, "--weights", &cut], "not a safetensors file"),
        (vec!["import", &cut], "is not a layer"),
    ] {
        let (code, output, messages) = run(&arguments);
        assert_eq!((code, output.as_str()), (2, ""), "{arguments:?}: {messages}");
        assert!(messages.contains(message), "{arguments:?}: {messages}");
        assert!(!std::path::Path::new(&out).exists(), "nothing is written");
    }
}
