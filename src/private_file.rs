//! Files with what nobody else may read.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Makes a file of mode 0600 and has it written, synchronised. A file that is there is never touched, and one that could not be finished
/// never has the name: it would keep the next one out, and could be taken for whole.
///
/// # Errors
/// Those of the filesystem, as `failed` tells them, and those of `write`.
pub(crate) fn create<T, E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    if fs::symlink_metadata(path).is_ok() {
        // Before hours of work; one that comes meanwhile is found at the end.
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Its mode is 0600 from the beginning.
    let mut file = tempfile::Builder::new()
        .prefix(".signdrop-")
        .tempfile_in(directory)
        .map_err(&failed)?;
    let written = write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(&failed)?;
    file.persist_noclobber(path)
        .map_err(|error| failed(error.error))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(&failed)?;
    Ok(written)
}
