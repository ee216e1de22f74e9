//! Reading and writing files so that bad input is refused early and an existing file is never left
//! half written.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use crate::Failure;

/// Opens a file to read it; tells its length too, which is 0 for a pipe or device.
pub fn open(path: &Path) -> Result<(File, u64), Failure> {
    let open = || -> std::io::Result<(File, fs::Metadata)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    };
    let (file, metadata) = open().map_err(|error| cannot("read", path, &error))?;
    if metadata.is_dir() {
        return Err(Failure::new(format!("{} is a folder, not a file", path.display())));
    }
    Ok((file, metadata.len()))
}

/// Reads a whole file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let (file, length) = open(path)?;
    let too_large = || {
        Failure::new(format!("{} is larger than the {limit} bytes accepted here", path.display()))
            .help("check that the path names the file you meant")
    };
    if length > limit {
        return Err(too_large());
    }
    // A pipe or device reports no length, so the limit is also kept while reading.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| cannot("read", path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Writes `bytes` to a temporary file beside `path` and renames it over `path`, so that readers see
/// the old content or the new, never a part.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let attempt = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".normact-").tempfile_in(folder)?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        let mode = fs::metadata(path).map(|existing| existing.permissions());
        if let Ok(permissions) = mode {
            fs::set_permissions(temporary.path(), permissions)?;
        } else {
            set_default_permissions(temporary.path())?;
        }
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(|error| cannot("write", path, &error))
}

#[cfg(unix)]
fn set_default_permissions(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Temporary files are private by default; what a user asked for is an ordinary file.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_default_permissions(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(format!("cannot {verb} {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::NotFound => failure.help("check the spelling of the path and that its folder exists"),
        std::io::ErrorKind::PermissionDenied => failure.help("check the permissions of the file and its folder"),
        _ => failure,
    }
}
