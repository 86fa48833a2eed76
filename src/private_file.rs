//! Files with what nobody else may read.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Makes a file of mode 0600 and has it written, synchronised. A file that is there is never touched, and one that could not be finished
/// does not stay: it would keep the next one out, and could be taken for whole.
///
/// # Errors
/// Those of the filesystem, as `failed` tells them, and those of `write`.
pub(crate) fn create<T, E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(&failed)?;
    let written = write(&mut file).and_then(|written| {
        file.sync_all().map_err(&failed)?;
        Ok(written)
    });
    if written.is_err() {
        fs::remove_file(path).map_err(&failed)?;
    }
    written
}
