//! Who a worker is: names that no other worker and no other lease has, and which processes still run.

use std::sync::atomic::{AtomicU64, Ordering};

/// A name that no other worker has.
pub(crate) fn worker_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{} {} {}:{count}", host(), std::process::id(), since.as_nanos())
}

/// A name that no other lease has.
pub(crate) fn token(worker: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{worker}/{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Where the number of a process means something: a machine since it was started, and in it a container. Machines
/// may share a name, and so may containers; what they do not share is the identity of the start and the namespace
/// of their processes.
pub(crate) fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let name = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("COMPUTERNAME").ok());
    let start = read("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok().map(|link| link.display().to_string());
    let parts = [Some(name.unwrap_or_else(|| "unknown".to_owned())), start, namespace];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Whether a process of this machine still runs; where that cannot be told, its lease has to run out.
pub(crate) fn is_alive(process: u32) -> bool {
    !cfg!(target_os = "linux")
        || std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
            // A process that was killed and not yet waited for is no more.
            !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_machine_is_known_by_its_start_and_not_by_its_name_alone() {
        let start = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(host().contains(start.trim()), "{}", host());
        assert_eq!(host(), host());
        assert_ne!(worker_id(), worker_id());
        assert!(is_alive(std::process::id()) && !is_alive(u32::MAX));
    }
}
