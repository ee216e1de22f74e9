//! `normact canon`: a key for each layer of a stream of JSON lines.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Outcome, note, quoted, rule_counts, stop_on_interrupt};
use normact_egraph::Rule;

use crate::canon::{Batch, Batches, Counts, Lines, Pipeline, Resumed, Worker};
use crate::{Failure, files};

const EXAMPLES: &str = "\
Examples:
  normact canon < graphs.jsonl > keys.jsonl
  normact canon graphs.jsonl --output keys.jsonl --resume
  normact canon graphs.jsonl --no-fingerprint --jobs 1 | sort

Every line of the input is a record {\"id\": any, \"graph\": {...}} with a graph as `normact show LAYER
--as json` prints it, or {\"id\": any, \"text\": \"layer ...\"}. For each line there is one line of output,
in the order of the input:
  {\"id\", \"key\", \"status\": \"saturated\" | \"budget\", \"fingerprint\"}
  {\"id\", \"error\": {\"code\", \"message\", \"line\"}}

Equal layers have one key, however they are written; with status `budget` they may have several. Lines
that are wrong are counted on standard error and change nothing about the exit code. docs/equality.md
says more.";

/// Give every layer of a stream of JSON lines its key
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A file of JSON lines [default: standard input]
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,

    /// Write to a file that an interrupted run leaves so that it can be resumed; a file that exists is
    /// not overwritten
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Go on after the last complete line of the output file, which must be of the same input
    #[arg(long, requires = "output")]
    resume: bool,

    /// How many lines to work on at the same time [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Leave the numeric fingerprint out, which takes less time
    #[arg(long)]
    no_fingerprint: bool,

    /// Say on standard error at the end how often each rule was applied
    #[arg(long)]
    verbose: bool,
}

/// The most threads.
const MAX_JOBS: usize = 256;

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    if jobs > MAX_JOBS {
        return Err(Failure::new(format!("`--jobs {jobs}` is more than the {MAX_JOBS} threads possible"))
            .help("leave it out to use every processor"));
    }
    let mut source = Source::open(args)?;
    let (mut sink, done) = open_sink(args, &mut source)?;
    let stop = stop_on_interrupt("after the lines at hand")?;
    let progress = Progress::new(source.bytes, sink.is_terminal());
    let begin = Instant::now();
    let with_fingerprint = !args.no_fingerprint;
    let batches = Batches::new(source.lines, done + 1);
    let mut records = Pipeline::start(batches, jobs, move || {
        let mut worker = Worker::new(with_fingerprint);
        move |batch| batch.map(|batch| records(&mut worker, &batch))
    })
    .map_err(|error| Failure::new(format!("threads cannot be started: {error}")).help("try `--jobs 1`"))?;
    let mut counts = Counts::default();
    while let Some(batch) = records.next(stop) {
        let batch = batch.map_err(|error| cannot_read(&source.name, &error))?;
        if !sink.write(batch.text.as_bytes())? {
            break;
        }
        counts += batch.counts;
        progress.show(&counts, batch.end, begin);
    }
    progress.clear();
    let stopped = stop.load(Ordering::SeqCst);
    note(&summary(&counts, done, begin.elapsed()));
    if args.verbose {
        let applied = Rule::ALL.iter().zip(&counts.applied).map(|(rule, &count)| (rule.name(), count));
        note(&rule_counts(applied));
    }
    if stopped {
        note(&how_to_resume(args));
        return Ok(Outcome::Negative);
    }
    Ok(Outcome::Success)
}

/// The records of a batch of lines.
struct Records {
    text: String,
    counts: Counts,
    /// Where in the input the batch ends.
    end: u64,
}

fn records(worker: &mut Worker, batch: &Batch) -> Records {
    let mut records = Records { text: String::new(), counts: Counts::default(), end: batch.end };
    for (number, line) in (batch.first..).zip(&batch.lines) {
        records.counts += worker.record(number, line, &mut records.text);
    }
    records.counts += Counts { applied: worker.applied(), ..Counts::default() };
    records
}

/// What is read.
struct Source {
    name: String,
    lines: Lines,
    /// How many bytes there are, where that is known.
    bytes: Option<u64>,
}

impl Source {
    fn open(args: &Args) -> Result<Self, Failure> {
        match &args.input {
            Some(path) if path.as_os_str() != "-" => {
                let (file, length) = files::open(path)?;
                let bytes = (length > 0).then_some(length);
                Ok(Self { name: path.display().to_string(), lines: Lines::new(Box::new(file)), bytes })
            }
            _ => {
                if std::io::stdin().is_terminal() {
                    note("reading records from standard input; `normact canon --help` says what they look like");
                }
                Ok(Self {
                    name: "standard input".to_owned(),
                    lines: Lines::new(Box::new(std::io::stdin())),
                    bytes: None,
                })
            }
        }
    }
}

fn cannot_read(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read {name}: {error}"))
}

/// Where records go.
enum Sink {
    Stdout,
    File { name: String, file: File },
}

impl Sink {
    /// Writes records; false if nobody reads them.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let cannot = |name: &str, error: &std::io::Error| Failure::new(format!("cannot write to {name}: {error}"));
        match self {
            Sink::Stdout => {
                let mut stdout = std::io::stdout().lock();
                match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
                    Err(error) => Err(cannot("standard output", &error)),
                }
            }
            Sink::File { name, file } => {
                file.write_all(bytes).and_then(|()| file.flush()).map(|()| true).map_err(|error| {
                    cannot(name, &error)
                        .help("what was written is kept: the same command with `--resume` goes on from there")
                })
            }
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Sink::Stdout) && std::io::stdout().is_terminal()
    }
}

/// Opens the output and reads over the lines of the input that it has records of.
fn open_sink(args: &Args, source: &mut Source) -> Result<(Sink, u64), Failure> {
    let Some(path) = &args.output else { return Ok((Sink::Stdout, 0)) };
    let resumed = Resumed::open(path, args.resume)?;
    let done = resumed.lines;
    if done > 0 {
        check_is_of_input(args, source, &resumed, path)?;
    }
    let name = path.display().to_string();
    let file = resumed.continued().map_err(|error| Failure::new(format!("cannot write to {name}: {error}")))?;
    Ok((Sink::File { name, file }, done))
}

/// The last record of the file must be what is made of that line today: this finds a file of
/// another input, other options, and keys of another version.
fn check_is_of_input(args: &Args, source: &mut Source, resumed: &Resumed, path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| cannot_read(&source.name, &error);
    let skipped = source.lines.skip(resumed.lines - 1).map_err(failed)?;
    let line = source.lines.next().map_err(failed)?;
    let Some(line) = line.filter(|_| skipped == resumed.lines - 1) else {
        let (path, name, lines) = (path.display(), &source.name, resumed.lines);
        return Err(Failure::new(format!("{path} has {lines} lines, more than {name}: it is of another input"))
            .help("give the input it was made of, or another `--output`"));
    };
    let mut record = String::new();
    Worker::new(!args.no_fingerprint).record(resumed.lines, &line, &mut record);
    if record.as_bytes() == resumed.last {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&resumed.last[..resumed.last.len().min(200)]).trim_end().to_owned();
    Err(Failure::new(format!(
        "{} cannot be resumed: its line {} is `{shown}`, but the record of that line of {} is `{}`",
        path.display(),
        resumed.lines,
        source.name,
        record.trim_end()
    ))
    .help("give the input and the options it was made with, or another `--output`"))
}

/// A bar on standard error, if that is a terminal and records do not go to it.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(bytes: Option<u64>, records_on_terminal: bool) -> Self {
        if records_on_terminal || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let (bar, template) = match bytes {
            Some(bytes) => (ProgressBar::new(bytes), "[{bar:32}] {percent} %  {msg}  {eta} left"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(Some(bar.with_style(style.progress_chars("=> "))))
    }

    fn show(&self, counts: &Counts, end: u64, begin: Instant) {
        if let Some(bar) = &self.0 {
            bar.set_position(end);
            let errors = if counts.errors > 0 { format!(", {} wrong", counts.errors) } else { String::new() };
            bar.set_message(format!(
                "{} lines{errors}, {:.0} a second",
                counts.lines,
                per_second(counts, begin.elapsed())
            ));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn per_second(counts: &Counts, elapsed: Duration) -> f64 {
    counts.lines as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn summary(counts: &Counts, done: u64, elapsed: Duration) -> String {
    let Counts { lines, errors, over_budget, .. } = counts;
    let before = if done > 0 { format!(" after the {done} of the file") } else { String::new() };
    format!(
        "{lines} lines{before}: {errors} wrong, {over_budget} out of budget; {:.1} s, {:.0} lines a second",
        elapsed.as_secs_f64(),
        per_second(counts, elapsed)
    )
}

fn how_to_resume(args: &Args) -> String {
    let Some(output) = &args.output else {
        return "stopped; with `--output FILE` a stopped run can be resumed".to_owned();
    };
    let mut command = "normact canon".to_owned();
    if let Some(input) = &args.input {
        command.push_str(&format!(" {}", quoted(&input.to_string_lossy())));
    }
    if args.no_fingerprint {
        command.push_str(" --no-fingerprint");
    }
    command.push_str(&format!(" --output {} --resume", quoted(&output.to_string_lossy())));
    if args.input.is_none() {
        command.push_str(" < the same input from its beginning");
    }
    format!("stopped; this continues:\n  {command}")
}
