//! `normact canon`: one record for each line, in order, whatever the lines, the number of threads and
//! the interruptions.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use normact::egraph::{Fingerprinter, key};
use normact::ir::json;
use normact::ir::random::Space;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{finished, normact, run};

fn start(arguments: &[&str]) -> Child {
    let mut command = normact();
    command.arg("canon").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the command on an input that comes through a pipe.
fn canon(input: &[u8], arguments: &[&str]) -> (i32, String, String) {
    let mut child = start(arguments);
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The program may have refused and gone.
        scope.spawn(move || drop(stdin.write_all(input)));
        finished(child.wait_with_output().unwrap())
    })
}

fn records(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The record of one line.
fn record(line: &str) -> Value {
    let (code, out, _) = canon(line.as_bytes(), &[]);
    assert_eq!(code, 0, "{line}");
    let mut records = records(&out);
    assert_eq!(records.len(), 1, "{line}: {out}");
    records.remove(0)
}

const SWISH: &str = r#"{"normact":1,"name":"s","nodes":[{"op":"input"},{"op":"sigmoid","args":[0]},{"op":"mul","args":[0,1]}],"output":2}"#;

/// Random graphs, texts, and lines that are none.
fn mixed_lines(count: usize, seed: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let line = |number: usize, rng: &mut ChaCha8Rng| match rng.random_range(0..12) {
        0 => "{\"id\": 7, ".to_owned(),
        1 => String::new(),
        2 => json!({"id": ["text", number], "text": "layer l(x) {\n    tahn(x)\n}"}).to_string(),
        3 => json!({"id": {"number": number}, "text": format!("layer l(x) {{\n    x * {number} + tanh(x)\n}}")})
            .to_string(),
        _ => format!("{{\"id\": {number}, \"graph\": {}}}", json::to_json(&Space::language().draw(rng))),
    };
    (0..count).map(|number| line(number, &mut rng)).collect()
}

#[test]
fn records_are_in_order_and_do_not_depend_on_threads() {
    let seed = 31;
    let lines = mixed_lines(1500, seed);
    let input = lines.join("\n");
    let (code, expected, summary) = canon(input.as_bytes(), &["--jobs", "1"]);
    assert_eq!(code, 0, "{summary}");
    assert!(summary.starts_with("1500 lines: "), "{summary}");
    for jobs in ["1", "2", "7"] {
        assert!(canon(input.as_bytes(), &["--jobs", jobs]).1 == expected, "seed {seed}, {jobs} jobs");
    }
    let records = records(&expected);
    assert_eq!(records.len(), lines.len());
    let mut fingerprinter = Fingerprinter::new();
    let (mut layers, mut errors) = (0, 0);
    for (number, (line, record)) in lines.iter().zip(&records).enumerate() {
        let input: Value = serde_json::from_str(line).unwrap_or_default();
        assert_eq!(record["id"], *input.get("id").unwrap_or(&Value::Null), "line {}", number + 1);
        if record.get("error").is_some() {
            assert_eq!(record["error"]["line"], number + 1);
            errors += 1;
        } else if let Some(graph) = input.get("graph") {
            let dag = json::from_value(graph.clone()).unwrap().dag;
            let (key, status) = key(&dag);
            assert_eq!(record["key"], key.to_string());
            assert_eq!(record["status"], status.name());
            assert_eq!(record["fingerprint"], fingerprinter.of(&dag).to_string());
            layers += 1;
        }
    }
    assert!(layers > 900 && errors > 200, "{layers} layers, {errors} errors");
    assert!(summary.contains(&format!("{errors} wrong")), "{summary}");
}

#[test]
fn a_file_and_a_pipe_give_the_same_records() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("in.jsonl");
    let input = mixed_lines(300, 5).join("\n") + "\n";
    fs::write(&path, &input).unwrap();
    let (code, from_file, _) = run(&["canon", path.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert_eq!(from_file.lines().count(), 300);
    assert!(canon(input.as_bytes(), &["-"]).1 == from_file);
    let (code, without, _) = run(&["canon", path.to_str().unwrap(), "--no-fingerprint"]);
    assert_eq!(code, 0);
    for (with, without) in records(&from_file).iter().zip(records(&without)) {
        assert_eq!(without.get("fingerprint"), None);
        assert_eq!((&with["id"], with.get("key")), (&without["id"], without.get("key")));
    }
    assert_eq!(canon(b"", &[]), (0, String::new(), canon(b"", &[]).2));
}

#[test]
fn text_and_graph_of_a_layer_have_one_key() {
    let (_, list, _) = run(&["list"]);
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let (_, text, _) = run(&["show", name]);
        let (_, graph, _) = run(&["show", name, "--json"]);
        let graph: Value = serde_json::from_str(&graph).unwrap();
        let of_text = record(&json!({"id": name, "text": text}).to_string());
        let of_graph = record(&json!({"id": name, "graph": graph, "score": 0.9}).to_string());
        assert_eq!(of_text, of_graph);
        assert_eq!(of_text["status"], "saturated", "{name}");
    }
}

#[test]
fn equal_layers_have_one_key() {
    let key = |text: &str| {
        record(&json!({"text": format!("layer l(x) {{ param v = 1\n {text} }}")}).to_string())["key"].clone()
    };
    assert_eq!(key("x * sigmoid(v * x)"), key("x * v * x / (x * (1 + exp(-(x * v)))) / v"));
    assert_eq!(key("x + x"), key("2 * x + v - v"));
    assert_ne!(key("x + x"), key("2 * x + v"));
}

#[test]
fn lines_that_are_wrong_become_records() {
    let graph =
        |nodes: &str| format!(r#"{{"id":"g","graph":{{"normact":1,"name":"g","nodes":[{nodes}],"output":0}}}}"#);
    let text = |text: &str| json!({"id": "t", "text": text}).to_string();
    let deep = "[".repeat(100_000);
    let many = r#"{"op":"add","args":[0,0,0]}"#;
    let cases: Vec<(String, &str, &str, Value)> = vec![
        ("{\"id\": 1".into(), "json", "column 8: EOF", Value::Null),
        ("nonsense".into(), "json", "column 2: expected ident", Value::Null),
        ("{\"id\": NaN}".into(), "json", "expected value", Value::Null),
        ("{\"id\": 1e999}".into(), "json", "number out of range", Value::Null),
        (deep, "json", "recursion limit", Value::Null),
        (String::new(), "json", "the line is blank", Value::Null),
        (" \t\r".into(), "json", "the line is blank", Value::Null),
        ("[1, 2]".into(), "json", "the line is no JSON object", Value::Null),
        ("{\"id\": [1, null]}".into(), "record", "neither `graph` nor `text`", json!([1, null])),
        (format!("{{\"id\":0,\"text\":\"\",\"graph\":{SWISH}}}"), "record", "both `graph` and `text`", json!(0)),
        ("{\"id\":0,\"text\":3}".into(), "record", "`text` is no string", json!(0)),
        ("{\"id\":0,\"graph\":null}".into(), "graph", "invalid type: null", json!(0)),
        ("{\"id\":\"g\",\"graph\":{\"nodes\":[]}}".into(), "graph", "missing field `normact`", json!("g")),
        (graph(""), "graph", "node 0 does not exist", json!("g")),
        (graph(r#"{"op":"tahn","args":[0]}"#), "graph", "nodes[0]: unknown operation `tahn`", json!("g")),
        (graph(r#"{"op":"neg","args":[0]}"#), "graph", "nodes[0]: node 0 is not defined before it is used", json!("g")),
        (graph(r#"{"op":"input"},{"op":"neg","args":[7]}"#), "graph", "nodes[1]: node 7 is not defined", json!("g")),
        (
            graph(&format!(r#"{{"op":"input"}},{many}"#)),
            "graph",
            "nodes[1]: add takes 2 operand(s), found 3",
            json!("g"),
        ),
        (graph(r#"{"op":"constant"}"#), "graph", "a constant needs a `value`", json!("g")),
        (graph(r#"{"op":"input","color":"red"}"#), "graph", "unknown field `color`", json!("g")),
        (
            format!("{{\"id\":5,\"graph\":{}}}", SWISH.replace("\"normact\":1", "\"normact\":2")),
            "graph",
            "this is version 2 of the graph form",
            json!(5),
        ),
        (SWISH.into(), "record", "neither `graph` nor `text`", Value::Null),
        (text(""), "text", "the text defines no layer", json!("t")),
        (text("fn f(x) = x"), "text", "the text defines no layer", json!("t")),
        (text("layer a(x) { x } layer b(x) { x }"), "text", "the text defines 2 layers", json!("t")),
        (
            text("layer a(x) {\n    tahn(x)\n}"),
            "E0202",
            "text, line 2, column 5: there is no function `tahn`; did you mean `tanh`?",
            json!("t"),
        ),
        (text("layer a(x) { x"), "E0101", "text, line 1, column 15", json!("t")),
        (text("layer a(x) { x + nan }"), "E0201", "`nan`", json!("t")),
        (text("layer a(x) { x + 1e999 }"), "E0104", "1e999", json!("t")),
        (text(&format!("layer a(x) {{ {}x{} }}", "(".repeat(5000), ")".repeat(5000))), "E0102", "200 deep", json!("t")),
        (text(&" ".repeat(2 << 20)), "E0103", "at most 1048576 are read", json!("t")),
    ];
    let good = format!("{{\"id\":\"good\",\"graph\":{SWISH}}}\n");
    let mut input = Vec::new();
    for (line, ..) in &cases {
        input.extend_from_slice(line.as_bytes());
        input.push(b'\n');
        input.extend_from_slice(good.as_bytes());
    }
    input.extend_from_slice(b"{\"id\":\"\xff\"}\n");
    let (code, out, messages) = canon(&input, &[]);
    assert_eq!(code, 0, "{messages}");
    assert!(!messages.contains("panicked"), "{messages}");
    let records = records(&out);
    assert_eq!(records.len(), 2 * cases.len() + 1);
    for (number, (line, code, message, id)) in cases.iter().enumerate() {
        let record = &records[2 * number];
        let line = &line[..line.len().min(200)];
        assert_eq!(record["error"]["code"], *code, "{line}: {record}");
        let found = record["error"]["message"].as_str().unwrap();
        assert!(found.contains(message), "{line}: {found}");
        assert!(found.len() < 600, "{line}: {found}");
        assert_eq!(record["error"]["line"], 2 * number + 1);
        assert_eq!(record["id"], *id, "{line}");
        assert_eq!(records[2 * number + 1]["id"], "good", "the line after {line}");
        assert_eq!(records[2 * number + 1]["status"], "saturated");
    }
    assert_eq!(records[2 * cases.len()]["error"]["code"], "utf8");
}

#[test]
fn lines_of_more_than_64_mebibytes_are_refused() {
    let mut child = start(&[]);
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let spaces = vec![b' '; 1 << 20];
        (0..65).for_each(|_| stdin.write_all(&spaces).unwrap());
        writeln!(stdin, "\n{{\"id\":2,\"graph\":{SWISH}}}").unwrap();
    });
    let (code, out, _) = finished(child.wait_with_output().unwrap());
    writer.join().unwrap();
    assert_eq!(code, 0);
    let records = records(&out);
    assert_eq!(records[0]["error"]["code"], "length");
    assert_eq!(records[0]["error"]["message"], "the line is longer than the 64 MiB accepted here");
    assert_eq!(records[1]["id"], 2);
}

#[test]
fn a_program_that_waits_for_each_answer_gets_it() {
    let mut child = start(&[]);
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 0..5 {
        writeln!(stdin, "{{\"id\":{number},\"graph\":{SWISH}}}").unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["id"], number);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Runs on a file and takes what is in the output file.
fn to_file(input: &Path, output: &Path, extra: &[&str]) -> (i32, String) {
    let mut arguments = vec!["canon", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
    arguments.extend(extra);
    let (code, out, messages) = run(&arguments);
    assert_eq!(out, "");
    (code, messages)
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let folder = tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    fs::write(&input, mixed_lines(400, 8).join("\n")).unwrap();
    let (code, messages) = to_file(&input, &output, &[]);
    assert_eq!(code, 0, "{messages}");
    let whole = fs::read(&output).unwrap();
    assert_eq!(whole.iter().filter(|&&byte| byte == b'\n').count(), 400);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let newlines: Vec<usize> = (0..whole.len()).filter(|&position| whole[position] == b'\n').collect();
    let line_ends = newlines.iter().flat_map(|&newline| [newline, newline + 1]).step_by(97);
    let anywhere: Vec<usize> = (0..20).map(|_| rng.random_range(0..=whole.len())).collect();
    for position in line_ends.chain(anywhere).chain([0, 1, whole.len() - 1, whole.len()]) {
        fs::write(&output, &whole[..position]).unwrap();
        let jobs = if position % 2 == 0 { "1" } else { "2" };
        let (code, messages) = to_file(&input, &output, &["--resume", "--jobs", jobs]);
        assert_eq!(code, 0, "seed {seed}, byte {position}: {messages}");
        assert!(fs::read(&output).unwrap() == whole, "seed {seed}, byte {position}");
    }
    fs::remove_file(&output).unwrap();
    assert_eq!(to_file(&input, &output, &["--resume"]).0, 0);
    assert!(fs::read(&output).unwrap() == whole, "a run that never began is resumed from the beginning");
}

#[test]
fn files_that_are_not_of_the_run_are_left_alone() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (input, other, output) = (path("in.jsonl"), path("other.jsonl"), path("out.jsonl"));
    let lines = mixed_lines(50, 9);
    fs::write(&input, lines.join("\n")).unwrap();
    fs::write(&other, mixed_lines(50, 10).join("\n")).unwrap();
    assert_eq!(to_file(&input, &output, &[]).0, 0);
    let whole = fs::read(&output).unwrap();
    let refused = |input: &Path, extra: &[&str], what: &str, content: &[u8]| {
        fs::write(&output, content).unwrap();
        let (code, message) = to_file(input, &output, extra);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(what) && message.contains("help:"), "{message}");
        assert!(fs::read(&output).unwrap() == content, "{what}");
    };
    refused(&input, &[], "exists and is not empty", &whole);
    refused(&other, &["--resume"], "cannot be resumed: its line 50 is", &whole);
    refused(&input, &["--resume"], "cannot be resumed", b"a file\nof something else\nand more");
    refused(&input, &["--resume"], "has 51 lines, more than", &[&whole[..], b"{}\n"].concat());
    let begin: String = String::from_utf8(whole.clone()).unwrap().split_inclusive('\n').take(48).collect();
    assert!(begin.lines().last().unwrap().contains("fingerprint"), "{begin}");
    refused(&input, &["--resume", "--no-fingerprint"], "cannot be resumed", begin.as_bytes());
    refused(&input, &["--resume", "--jobs", "1000"], "threads", &whole);
    refused(&path("nothing.jsonl"), &["--resume"], "nothing.jsonl", &whole);
    let (code, message) = to_file(&input, &path("no/folder"), &[]);
    assert_eq!(code, 2);
    assert!(message.contains("no/folder"), "{message}");
    assert_eq!(run(&["canon", "--resume"]).0, 2);
    assert_eq!(run(&["canon", folder.path().to_str().unwrap()]).0, 2);
    assert_eq!(run(&["canon", "--jobs", "0"]).0, 2);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let folder = tempdir().unwrap();
    let output = folder.path().join("out.jsonl");
    let output = output.to_str().unwrap();
    let lines = mixed_lines(200, 11);
    let mut child = start(&["--output", output]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all((lines[..100].join("\n") + "\n").as_bytes()).unwrap();
    let begin = Instant::now();
    while fs::read_to_string(output).map_or(0, |text| text.lines().count()) < 100 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The input goes on, but nothing comes.
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let (code, _, messages) = finished(child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!(code, 1, "{messages}");
    assert!(messages.contains(&format!("normact canon --output {output} --resume < the same input")), "{messages}");
    let all = lines.join("\n");
    let (code, _, messages) = canon(all.as_bytes(), &["--output", output, "--resume"]);
    assert_eq!(code, 0, "{messages}");
    assert!(messages.contains("100 lines after the 100 of the file"), "{messages}");
    assert!(fs::read_to_string(output).unwrap() == canon(all.as_bytes(), &[]).1);
}

#[test]
fn a_reader_that_stops_early_ends_the_run() {
    let mut child = start(&[]);
    let mut stdin = child.stdin.take().unwrap();
    drop(child.stdout.take());
    let writer = std::thread::spawn(move || {
        let line = format!("{{\"id\":1,\"graph\":{SWISH}}}\n");
        while stdin.write_all(line.as_bytes()).is_ok() {}
    });
    let (code, _, messages) = finished(child.wait_with_output().unwrap());
    writer.join().unwrap();
    assert_eq!(code, 0, "{messages}");
}
