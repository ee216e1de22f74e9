//! The file of a run that can be resumed: complete lines count, a torn last line does not.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::Failure;

/// How much of a file is looked at in one go.
const CHUNK: usize = 1 << 20;

/// A file of records from an earlier run, or a new one.
#[derive(Debug)]
pub(crate) struct Resumed {
    file: File,
    /// How many complete lines it has.
    pub(crate) lines: u64,
    /// The last complete line with its newline; empty if there is none.
    pub(crate) last: Vec<u8>,
    /// Where the complete lines end.
    end: u64,
}

impl Resumed {
    /// Opens a file and counts its complete lines. Nothing is changed yet.
    pub(crate) fn open(path: &Path, resume: bool) -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure::new(format!("cannot open {}: {error}", path.display()));
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => cannot(error).help("the folder must exist"),
            io::ErrorKind::IsADirectory => Failure::new(format!("{} is a folder, not a file", path.display())),
            _ => cannot(error),
        })?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Failure::new(format!("another run is writing {}", path.display()))
                .help("wait for it to end, or give another `--output`"));
        }
        let length = file.metadata().map_err(cannot)?.len();
        if length > 0 && !resume {
            return Err(Failure::new(format!("{} exists and is not empty", path.display()))
                .help("`--resume` goes on after its last line; otherwise remove it first"));
        }
        let (lines, last, end) = complete_lines(&mut file).map_err(cannot)?;
        Ok(Self { file, lines, last, end })
    }

    /// Drops a torn last line, so that new lines follow the complete ones.
    pub(crate) fn continued(self) -> io::Result<File> {
        let mut file = self.file;
        // A device or pipe has no length and no position.
        if file.metadata()?.len() > 0 {
            file.set_len(self.end)?;
            file.seek(SeekFrom::Start(self.end))?;
        }
        Ok(file)
    }
}

/// The number of complete lines, the last of them, and where it ends.
fn complete_lines(file: &mut File) -> io::Result<(u64, Vec<u8>, u64)> {
    let (mut lines, mut position) = (0, 0);
    let (mut begin, mut end) = (0, 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match file.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            break;
        }
        for (offset, _) in chunk[..count].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            (begin, end) = (end, position + offset as u64 + 1);
            lines += 1;
        }
        position += count as u64;
    }
    let mut last = Vec::new();
    if lines > 0 {
        file.seek(SeekFrom::Start(begin))?;
        file.take(end - begin).read_to_end(&mut last)?;
    }
    Ok((lines, last, end))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn torn_lines_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        for (before, lines, last, kept) in [
            ("", 0, "", ""),
            ("torn", 0, "", ""),
            ("one\n", 1, "one\n", "one\n"),
            ("one\ntwo\nto", 2, "two\n", "one\ntwo\n"),
        ] {
            std::fs::write(&path, before).unwrap();
            let resumed = Resumed::open(&path, true).unwrap();
            assert_eq!((resumed.lines, resumed.last.as_slice()), (lines, last.as_bytes()), "{before:?}");
            assert!(Resumed::open(&path, true).unwrap_err().message.contains("another run"), "{before:?}");
            resumed.continued().unwrap().write_all(b"more\n").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}more\n"));
        }
        assert!(Resumed::open(&path, false).unwrap_err().message.contains("exists"));
    }
}
