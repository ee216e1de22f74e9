//! Random layers as JSON lines, as an architecture search meets them, and how many of them are
//! different:
//!
//!     cargo run --release --example random_graphs -- 100000 > graphs.jsonl
//!     normact canon graphs.jsonl | jq -r .key | sort -u | wc -l
//!
//! The arguments are how many, a seed (default 0), and the space to draw from: `evonorm` (the default:
//! that of the EvoNorm paper), `evonorm-batch-free`, or `language` (everything there is).

use std::error::Error;
use std::io::{BufWriter, ErrorKind, Write};

use normact::ir::json;
use normact::ir::random::Space;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |position: usize| arguments.get(position).map(String::as_str);
    let count: u64 = argument(0).ok_or("say how many: random_graphs COUNT [SEED] [SPACE]")?.parse()?;
    let seed: u64 = argument(1).unwrap_or("0").parse()?;
    let space = match argument(2).unwrap_or("evonorm") {
        "evonorm" => Space::evonorm(),
        "evonorm-batch-free" => Space::evonorm_batch_free(),
        "language" => Space::language(),
        other => return Err(format!("there is no space `{other}`: evonorm, evonorm-batch-free, language").into()),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    for id in 0..count {
        let graph = json::to_json(&space.draw(&mut rng));
        match writeln!(stdout, "{{\"id\":{id},\"graph\":{graph}}}") {
            // A reader that has enough is no error.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    stdout.flush()?;
    Ok(())
}
