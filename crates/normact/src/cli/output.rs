//! Writing results to standard output and everything else to standard error, and being interrupted.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Failure;

/// Prints a result. A reader that stops early (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a result as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    print(&format!("{line}\n"))
}

/// Says something on standard error; nobody may be listening.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Whether messages may have colours: on a terminal, unless `NO_COLOR` is set.
pub(crate) fn color_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A word of a command, quoted where a shell would take it apart.
pub(crate) fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:,=".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A flag that the first interrupt sets; the second ends the program. `when` says how soon the
/// program stops: `after this step`.
pub(crate) fn stop_on_interrupt(when: &'static str) -> Result<&'static AtomicBool, Failure> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        note(&format!("\nstopping {when}; interrupt again to stop at once"));
    })
    .map_err(|error| Failure::new(format!("interrupts cannot be watched for: {error}")))?;
    Ok(&STOP)
}

/// Rules with how often each was used, a line each, the most frequent first.
pub(crate) fn rule_counts<'a>(rules: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut rules: Vec<(&str, u64)> = rules.filter(|(_, count)| *count > 0).collect();
    rules.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let width = rules.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
    let lines: Vec<String> = rules.iter().map(|(rule, count)| format!("  {count:>width$}  {rule}")).collect();
    if lines.is_empty() { "  no rule".to_owned() } else { lines.join("\n") }
}
