//! The program exists and names itself. (That this package has an integration test also makes cargo
//! build the program, which the suite in `tests/` runs.)

#[test]
fn says_its_version() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_normact")).arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("normact {}\n", env!("CARGO_PKG_VERSION")));
}
