//! Mistakes in formulas, as rustc shows them. Formulas that are right are compiled and run in
//! `tests/emitted`, which knows Burn.

use std::fs;
use std::path::Path;

#[test]
fn mistakes_are_errors_at_their_tokens() {
    // Files are looked for in the folder of the crate, which for these tests is one that trybuild makes.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tests/trybuild/normact-macros/layers");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    for file in ["two.nact", "wrong.nact"] {
        let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layers").join(file);
        fs::copy(text, folder.join(file)).expect("the target folder can be written");
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
