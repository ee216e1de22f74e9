//! The runnable examples run, and do what they are there to show.

use std::process::Command;

use normact::ir::json;
use serde_json::Value;

/// An example that was built with the suite.
fn example(name: &str) -> Command {
    let suite = std::env::current_exe().unwrap();
    Command::new(suite.ancestors().nth(2).unwrap().join("examples").join(name))
}

#[test]
fn random_graphs_are_layers_that_the_program_reads() {
    let lines = |arguments: &[&str]| {
        let output = example("random_graphs").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for space in ["evonorm", "evonorm-batch-free", "language"] {
        let found = lines(&["50", "3", space]);
        assert_eq!(found, lines(&["50", "3", space]));
        assert_ne!(found, lines(&["50", "4", space]));
        for (number, line) in found.lines().enumerate() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["id"], number);
            json::from_value(record["graph"].clone()).unwrap();
        }
        assert_eq!(found.lines().count(), 50);
    }
    assert!(!example("random_graphs").output().unwrap().status.success());
}

#[test]
fn a_formula_trains_inside_a_users_own_model() {
    let output = example("own_model").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let losses: Vec<f64> =
        text.lines().filter_map(|line| line.split_once("loss ")).map(|(_, loss)| loss.parse().unwrap()).collect();
    assert_eq!(losses.len(), 5, "{text}");
    assert!(losses[4] < losses[0] / 20.0, "{losses:?}");
}
