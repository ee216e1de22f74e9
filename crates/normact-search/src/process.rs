//! Who a worker is: names that no other worker and no other lease has, and which processes still run.

use std::sync::atomic::{AtomicU64, Ordering};

/// A name that no other worker has.
pub(crate) fn worker_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}:{}:{}:{count}", host(), std::process::id(), since.as_nanos())
}

/// A name that no other lease has.
pub(crate) fn token(worker: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{worker}/{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    // Containers may share a name; what they do not share is the namespace of their processes.
    let namespace = std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    let name = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("COMPUTERNAME").ok());
    format!("{}{namespace}", name.unwrap_or_else(|| "unknown".to_owned()))
}

/// Whether a process of this machine still runs; where that cannot be told, its lease has to run out.
pub(crate) fn is_alive(process: u32) -> bool {
    !cfg!(target_os = "linux")
        || std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
            // A process that was killed and not yet waited for is no more.
            !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        })
}
