//! Whatever a command is given, it ends with a message and exit code 2, soon, and leaves files as
//! they were.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::tempdir;

use crate::support::{finished, normact, read_tensors, run, write_tensors};

/// Runs a command that must refuse its input.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let begin = Instant::now();
    let (code, _, message) = run(arguments);
    assert_eq!(code, 2, "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    assert!(message.contains("error"), "{arguments:?}: {message}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{arguments:?} took {:?}", begin.elapsed());
    message
}

/// Every command that reads a layer, with a file in its place.
fn commands(file: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["check", file],
        vec!["fmt", file],
        vec!["show", file],
        vec!["show", file, "--as", "canonical"],
        vec!["simplify", file],
        vec!["equiv", file, "bn_relu"],
        vec!["equiv", "bn_relu", file],
        vec!["gradcheck", file, "--device", "cpu"],
        vec!["train", file, "--device", "cpu"],
        vec!["run", file, "--input", "x.safetensors", "--output", "y.safetensors"],
    ]
}

#[test]
fn texts_that_are_none_are_refused_by_every_command() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("l.nact");
    let file = path.to_str().unwrap();
    let nested = format!("layer l(x) {{ {}x{} }}", "(".repeat(100_000), ")".repeat(100_000));
    let texts: [&[u8]; 6] = [
        b"\xff\xfe\x00l",
        b"layer l(x) { x",
        nested.as_bytes(),
        b"\x00\x01\x02",
        b"layer layer layer",
        b"{\"normact\": 1",
    ];
    for text in texts {
        fs::write(&path, text).unwrap();
        for command in commands(file) {
            refused(&command);
        }
        assert_eq!(fs::read(&path).unwrap(), text, "the file is left as it was");
    }
    fs::write(&path, "").unwrap();
    assert!(refused(&["show", file]).contains("defines no layer"));
}

#[test]
fn random_bytes_never_crash_a_command() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("l.nact");
    for seed in 0..40u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let length = rng.random_range(0..400);
        let printable = seed % 2 == 0;
        let bytes: Vec<u8> =
            (0..length).map(|_| if printable { rng.random_range(32..127) } else { rng.random() }).collect();
        fs::write(&path, &bytes).unwrap();
        for command in ["check", "show"] {
            let (code, _, message) = run(&[command, path.to_str().unwrap()]);
            assert!(code == 2, "seed {seed}, {command}: exit code {code}, {message}");
            assert!(!message.contains("panicked"), "seed {seed}: {message}");
        }
    }
}

#[test]
fn a_file_of_100_megabytes_is_refused_by_its_size() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("big.nact");
    // Sparse: takes no space on disk.
    fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let begin = Instant::now();
    for command in commands(path.to_str().unwrap()) {
        assert!(refused(&command).contains("larger than"), "{command:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    let mut child = normact()
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // The program stops reading before the end.
        for _ in 0..100 {
            if stdin.write_all(&vec![b' '; 1 << 20]).is_err() {
                break;
            }
        }
    });
    let (code, _, message) = finished(child.wait_with_output().unwrap());
    writer.join().unwrap();
    assert_eq!(code, 2, "{message}");
}

#[test]
fn files_that_are_not_there_are_named() {
    for command in commands("/nowhere/l.nact") {
        assert!(refused(&command).contains("/nowhere/l.nact"), "{command:?}");
    }
    assert!(refused(&["show", "evonorm_so"]).contains("did you mean `evonorm_s0`?"));
    assert!(refused(&["show", "/"]).contains("is a folder"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for setting in [
        "groups=0",
        "groups=2.5",
        "groups=-1",
        "eps=-1",
        "momentum=2",
        "running=maybe",
        "eps",
        "=",
        "nothing=1",
        "eps=nan",
    ] {
        let message = refused(&["show", "evonorm_b0", "--set", setting]);
        let name = setting.split('=').next().unwrap();
        assert!(message.contains(name), "{setting}: {message}");
    }
}

/// Runs `run` on a file of tensors and expects a refusal that says `what` and leaves the output.
#[track_caller]
fn run_refuses(layer: &str, folder: &Path, extra: &[&str], what: &str) {
    let output = folder.join("y.safetensors");
    fs::write(&output, "as it was").unwrap();
    let input = folder.join("x.safetensors");
    let mut arguments =
        vec!["run", layer, "--device", "cpu", "--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
    arguments.extend(extra);
    let message = refused(&arguments);
    assert!(message.contains(what), "expected {what:?} in {message}");
    assert_eq!(fs::read_to_string(&output).unwrap(), "as it was");
}

#[test]
fn run_refuses_tensors_that_do_not_fit() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let input = folder.join("x.safetensors");
    let full = |count: usize| vec![0.5f32; count];
    let write = |tensors: &[(&str, &[usize], Vec<f32>)]| write_tensors(&input, tensors);

    fs::write(&input, b"not a safetensors file").unwrap();
    run_refuses("bn_relu", folder, &[], "is not a safetensors file");
    fs::write(&input, u64::MAX.to_le_bytes()).unwrap();
    run_refuses("bn_relu", folder, &[], "is not a safetensors file");
    write(&[("y", &[2, 3], full(6))]);
    run_refuses("bn_relu", folder, &[], "there is no tensor `x`");
    write(&[("x", &[6], full(6))]);
    run_refuses("bn_relu", folder, &[], "2 <= rank <= 5");
    write(&[("x", &[1, 2, 1, 1, 1, 1], full(2))]);
    run_refuses("bn_relu", folder, &[], "rank = 6");
    write(&[("x", &[0, 3], full(0))]);
    run_refuses("bn_relu", folder, &[], "axis 0 of the input is empty");
    write(&[("x", &[2, 3], full(6))]);
    run_refuses("bn_relu", folder, &["--grad"], "there is no tensor `dy`");
    write(&[("x", &[2, 3], full(6)), ("dy", &[3, 2], full(6))]);
    run_refuses("bn_relu", folder, &["--grad"], "`dy` has shape [3, 2] and `x` [2, 3]");
    write(&[("x", &[2, 3], full(6)), ("param.gamma", &[4], full(4))]);
    run_refuses("bn_relu", folder, &[], "`param.gamma` has shape [4], expected [3]");
    write(&[("x", &[2, 3], full(6)), ("param.gama", &[3], full(3))]);
    run_refuses("bn_relu", folder, &[], "did you mean `param.gamma`?");

    let exact = folder.join("exact.nact");
    fs::write(&exact, "layer exact(x) {\n    x / std[group(5)](x)\n}\n").unwrap();
    write(&[("x", &[2, 12, 3], full(72))]);
    run_refuses(exact.to_str().unwrap(), folder, &[], "group(5) does not divide the channels");

    let bytes = 7i32.to_le_bytes();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I32, vec![1, 1], &bytes).unwrap();
    fs::write(&input, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
    run_refuses("bn_relu", folder, &[], "tensor `x` holds I32");
}

#[test]
fn a_single_element_under_a_statistic_is_named_and_computed() {
    let folder = tempdir().unwrap();
    let (input, output) = (folder.path().join("x.safetensors"), folder.path().join("y.safetensors"));
    write_tensors(&input, &[("x", &[2, 3, 1, 1], vec![1.0, -2.0, 3.0, 4.0, 5.0, 6.0])]);
    let (code, _, message) = run(&[
        "run",
        "in_relu",
        "--device",
        "cpu",
        "--input",
        input.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
    ]);
    assert_eq!(code, 0);
    assert!(message.contains("averages over a single element"), "{message}");
    assert_eq!(read_tensors(&output)["y"].1, [0.0; 6]);
}

/// The `y` that `run` writes for a layer and an input.
fn y_of(layer: &Path, input: &Path, extra: &[&str]) -> Vec<f64> {
    let output = input.with_file_name("y.safetensors");
    let (l, i, o) = (layer.to_str().unwrap(), input.to_str().unwrap(), output.to_str().unwrap());
    let (code, _, message) = run(&[&["run", l, "--input", i, "--output", o], extra].concat());
    assert_eq!(code, 0, "{message}");
    read_tensors(&output)["y"].1.clone()
}

#[test]
fn nan_and_infinity_keep_their_meaning() {
    let folder = tempdir().unwrap();
    let input = folder.path().join("x.safetensors");
    let layer = folder.path().join("l.nact");
    fs::write(&layer, "layer l(x) {\n    max(x, -1) + 0 * mean[instance](x)\n}\n").unwrap();
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    write_tensors(&input, &[("x", &[3, 1, 2], vec![1.0, 2.0, nan, 1.0, inf, 1.0])]);
    for device in ["cpu", "wgpu"] {
        for mode in ["--eval", "--json"] {
            let y = y_of(&layer, &input, &["--device", device, mode]);
            assert_eq!(y[..2], [1.0, 2.0], "a NaN stays in its sample, on {device}");
            assert!(y[2].is_nan() && y[3].is_nan(), "{y:?} on {device}");
            // 0 * infinity is undefined.
            assert!(y[4].is_nan() && y[5].is_nan(), "{y:?} on {device}");
        }
    }
    fs::write(&layer, "layer l(x) {\n    max(x, -1) + tanh(x)\n}\n").unwrap();
    write_tensors(&input, &[("x", &[1, 1, 4], vec![nan, inf, -inf, 1e30])]);
    for device in ["cpu", "wgpu"] {
        let y = y_of(&layer, &input, &["--device", device]);
        assert!(y[0].is_nan(), "{y:?} on {device}");
        assert_eq!(y[1], f64::INFINITY, "on {device}");
        assert_eq!(y[2], -2.0, "on {device}");
        assert!((y[3] / 1e30 - 1.0).abs() < 1e-6, "{y:?} on {device}");
    }
}

#[test]
fn graphs_that_make_no_sense_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("g.json");
    let deep = format!("{{\"normact\": {}", "[".repeat(100_000));
    let texts = [
        deep.as_str(),
        "{}",
        r#"{"normact":1,"name":"g","nodes":[],"output":0}"#,
        r#"{"normact":9,"name":"g","nodes":[{"op":"input"}],"output":0}"#,
        r#"{"normact":1,"name":"g","nodes":[{"op":"input"},{"op":"tahn","args":[0]}],"output":1}"#,
        r#"{"normact":1,"name":"g","nodes":[{"op":"neg","args":[0]}],"output":0}"#,
        r#"{"normact":1,"name":"let","nodes":[{"op":"input"}],"output":0}"#,
    ];
    for text in texts {
        fs::write(&path, text).unwrap();
        let message = refused(&["show", path.to_str().unwrap()]);
        assert!(message.contains("g.json"), "{message}");
    }
}

/// A graph whose nodes after the input, and after `more` given ones, are made from their position.
fn graph(more: &[&str], count: usize, node: impl Fn(usize) -> String) -> String {
    let nodes = more.iter().map(ToString::to_string).chain((0..count).map(|index| node(index + more.len())));
    let nodes: Vec<String> = std::iter::once(r#"{"op":"input"}"#.to_owned()).chain(nodes).collect();
    let output = nodes.len() - 1;
    format!(r#"{{"normact":1,"name":"g","nodes":[{}],"output":{output}}}"#, nodes.join(","))
}

#[test]
fn deep_and_large_graphs_are_compared_soon() {
    let names = ["tanh", "abs", "neg", "sqrt", "sigmoid", "exp", "square", "log"];
    let sets = ["batch", "instance", "layer", "group", "channel", "all"];
    let unary = |name: &str, operand: usize| format!(r#"{{"op":"{name}","args":[{operand}]}}"#);
    let binary = |name: &str, a: usize, b: usize| format!(r#"{{"op":"{name}","args":[{a},{b}]}}"#);
    let one = r#"{"op":"constant","value":1}"#;
    let graphs = [
        ("a chain of tanh", graph(&[], 100_000, |last| unary("tanh", last))),
        ("a chain of everything", graph(&[], 100_000, |last| unary(names[last % 8], last))),
        ("a sum", graph(&[one], 100_000, |last| binary("add", last, 1))),
        ("a product", graph(&[], 100_000, |last| binary("mul", last, 0))),
        ("maxima and sums", graph(&[], 100_000, |last| binary(["max", "add"][last % 2], last, 0))),
        (
            "a chain of means",
            graph(&[], 100_000, |last| format!(r#"{{"op":"std","args":[{last}],"over":"{}"}}"#, sets[last % 6])),
        ),
        ("doubled 60 times", graph(&[], 60, |last| binary("add", last, last))),
        ("squared 60 times", graph(&[], 60, |last| binary("mul", last, last))),
        (
            "sums of the last two",
            graph(&[&unary("tanh", 0)], 60, |last| binary(["add", "mul", "max"][last % 3], last, last - 1)),
        ),
        ("1 << 20 nodes", graph(&[], (1 << 20) - 1, |last| unary(names[last % 8], last))),
    ];
    let folder = tempdir().unwrap();
    let paths: Vec<String> =
        (0..graphs.len()).map(|number| folder.path().join(format!("{number}.json")).display().to_string()).collect();
    for (path, (_, graph)) in paths.iter().zip(&graphs) {
        fs::write(path, graph).unwrap();
    }
    let lines = folder.path().join("lines.jsonl");
    let records: Vec<String> =
        graphs.iter().map(|(what, graph)| format!(r#"{{"id":"{what}","graph":{graph}}}"#)).collect();
    fs::write(&lines, records.join("\n")).unwrap();
    let soon = |arguments: &[&str], codes: &[i32]| -> String {
        let begin = Instant::now();
        let (code, out, message) = run(arguments);
        assert!(codes.contains(&code), "{arguments:?}: {code} {message}");
        assert!(!message.contains("panicked"), "{arguments:?}: {message}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{arguments:?} took {:?}", begin.elapsed());
        out
    };
    let keys = soon(&["canon", lines.to_str().unwrap()], &[0]);
    assert_eq!(keys.matches("\"key\":").count(), graphs.len(), "{keys}");
    for (path, (what, graph)) in paths.iter().zip(&graphs).filter(|(_, (_, graph))| graph.len() < 16 << 20) {
        soon(&["show", path, "--as", "canonical"], &[0]);
        soon(&["simplify", path], &[0]);
        let other = soon(&["equiv", path, "bn_relu"], &[1]);
        assert!(other.starts_with("different") || other.starts_with("unknown"), "{what} is {other}");
        let is_small = graph.len() < 1 << 16;
        if is_small || *what == "a chain of tanh" {
            let same = soon(&["equiv", path, path], &[0, 1]);
            assert!(!same.starts_with("different"), "{what} is {same}");
        }
    }
}

#[test]
fn a_layer_of_very_many_parameters_is_refused() {
    let params: Vec<String> = (0..100_000).map(|number| format!(r#"{{"name":"p{number}","init":{number}}}"#)).collect();
    let graph =
        format!(r#"{{"normact":1,"name":"g","params":[{}],"nodes":[{{"op":"input"}}],"output":0}}"#, params.join(","));
    let folder = tempdir().unwrap();
    let path = folder.path().join("g.json");
    fs::write(&path, graph).unwrap();
    assert!(refused(&["show", path.to_str().unwrap()]).contains("100000 parameters are more than"));
}
