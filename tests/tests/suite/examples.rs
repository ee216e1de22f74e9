//! The runnable examples run, and do what they are there to show.

use std::process::Command;

#[test]
fn a_formula_trains_inside_a_users_own_model() {
    let suite = std::env::current_exe().unwrap();
    let program = suite.ancestors().nth(2).unwrap().join("examples/own_model");
    let output = Command::new(&program).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let losses: Vec<f64> =
        text.lines().filter_map(|line| line.split_once("loss ")).map(|(_, loss)| loss.parse().unwrap()).collect();
    assert_eq!(losses.len(), 5, "{text}");
    assert!(losses[4] < losses[0] / 20.0, "{losses:?}");
}
