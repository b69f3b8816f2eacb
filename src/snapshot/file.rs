//! The file of a snapshot: read whole, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::format;

/// The largest snapshot that is read, in bytes: five million sessions with sids of usual length.
const LARGEST: u64 = 512 * 1024 * 1024;

/// The file's bytes; none if there is no file.
///
/// # Errors
/// It cannot be read, is larger than [`LARGEST`], or does not begin as a snapshot does. Of such a file
/// only the beginning is read.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = vec![0; format::MAGIC.len()];
    if file.read_exact(&mut bytes).is_err() || bytes != format::MAGIC {
        return Err(io::Error::other(format::Broken::Foreign));
    }
    if about.len() > LARGEST {
        return Err(io::Error::other("larger than 512 MiB"));
    }
    // The file may grow while it is read.
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Replaces the file: a crash leaves the old bytes or the new ones. Only its user can read it, since a
/// sid is a credential.
///
/// # Errors
/// Those of the file system.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = beside(path, "new");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Renames a file that cannot be used to `NAME.broken`, and says so.
///
/// # Errors
/// Those of the file system.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let to = beside(path, "broken");
    fs::rename(path, &to)?;
    Ok(to)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}
