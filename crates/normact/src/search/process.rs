//! Worker processes of this machine: started, started anew when they die, told to stop, and never left behind.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Config, Work};
use crate::Failure;

/// So many workers may die while the search does not move; those after them are not replaced.
const MAX_DEATHS: usize = 10;

/// The exit code of a worker that could not go on and has said why.
const HAS_SAID_WHY: i32 = 2;

/// Set for workers that stop when their standard input ends, which also happens when the process that started
/// them is no more.
const STOPS_AT_END_OF_INPUT: &str = "NORMACT_STOPS_AT_END_OF_INPUT";

/// Lets a worker that another process started stop when that process says so.
pub fn stop_at_end_of_input(stop: &'static AtomicBool) {
    if std::env::var_os(STOPS_AT_END_OF_INPUT).is_some() {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// The workers of a search, `program search FILE --worker`. They share the cores.
pub(super) struct Workers {
    program: PathBuf,
    arguments: Vec<OsString>,
    threads: usize,
    running: Vec<Child>,
    /// How far the search was when one died last, and how many have died since it has not moved.
    deaths: (u64, usize),
    have_failed: bool,
}

impl Workers {
    /// Starts as many as the configuration says.
    pub(super) fn start(config: &Config, file: &Path, device: &str, work: Work) -> Result<Self, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut arguments: Vec<OsString> = vec!["search".into()];
        arguments.extend((work == Work::RankingAgain).then(|| "rerank".into()));
        arguments.extend(["--worker".into(), "--device".into(), device.into(), file.into()]);
        let mut workers = Self {
            program: std::env::current_exe().map_err(|error| cannot_start(&error))?,
            arguments,
            threads: (cores / config.search.workers).max(1),
            running: vec![],
            deaths: (0, 0),
            have_failed: false,
        };
        for _ in 0..config.search.workers {
            let worker = workers.spawn()?;
            workers.running.push(worker);
        }
        Ok(workers)
    }

    fn spawn(&self) -> Result<Child, Failure> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .env(STOPS_AT_END_OF_INPUT, "1")
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| cannot_start(&error))
    }

    /// Tells the workers to stop after what they are at: the end of their input says so.
    pub(super) fn stop(&mut self) {
        self.running.iter_mut().for_each(|worker| drop(worker.stdin.take()));
    }

    /// Looks after the workers once: another one takes the place of one that died, unless `is_stopping`. `moved` is
    /// how far the search is, in any measure that grows. Tells how many are running.
    pub(super) fn tend(&mut self, moved: u64, is_stopping: bool, say: &mut dyn FnMut(&str)) -> Result<usize, Failure> {
        let mut ended = vec![];
        for worker in &mut self.running {
            let status = worker.try_wait().map_err(|error| Failure::new(format!("a worker is lost: {error}")))?;
            ended.extend(status.map(|status| (worker.id(), status)));
        }
        self.running.retain(|worker| ended.iter().all(|(id, _)| *id != worker.id()));
        self.have_failed |= ended.iter().any(|(_, status)| status.code() == Some(HAS_SAID_WHY));
        let died = ended.into_iter().map(|(_, status)| status);
        let died = died.filter(|status| !status.success() && status.code() != Some(HAS_SAID_WHY));
        for status in died.filter(|_| !is_stopping) {
            let before = if self.deaths.0 == moved { self.deaths.1 } else { 0 };
            self.deaths = (moved, before + 1);
            if self.deaths.1 > MAX_DEATHS {
                self.have_failed = true;
                say(&format!("a worker has died ({status}), and {MAX_DEATHS} before it: no other is started"));
            } else {
                say(&format!("a worker has died ({status}); another one takes its place"));
                let worker = self.spawn()?;
                self.running.push(worker);
            }
        }
        Ok(self.running.len())
    }

    /// Whether any worker has ended before its work, and no other took its place.
    pub(super) fn have_failed(&self) -> bool {
        self.have_failed
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.running {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

fn cannot_start(error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start a worker: {error}"))
}
