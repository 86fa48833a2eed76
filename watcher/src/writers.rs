//! Asks the kernel whether a file is open for writing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// libc lacks it. Source: Linux include/uapi/asm-generic/fcntl.h; the same on every architecture but PA-RISC.
const F_SETSIG: libc::c_int = 10;

/// Whether somebody has a file open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody had it open for writing at the moment of asking.
    None,
    /// Somebody has it open for writing, or mapped for writing, in whatever process or container.
    Some,
    /// The kernel does not say: the file system knows no leases, or the caller neither owns the file nor has
    /// `CAP_LEASE`, or `file` is no regular file, or leases are switched off (`fs.leases-enable`).
    Unknown,
}

/// Says whether somebody holds the file open for writing.
///
/// `file` must be open for reading only, or it counts as a writer itself. Asks by taking a read lease, which the kernel
/// grants only if there is no writer, and giving it back at once. Whoever opens the file for writing in that instant
/// waits until it is given back (microseconds), or gets `EWOULDBLOCK` if it opens with `O_NONBLOCK`.
///
/// Breaking a lease sends its holder a signal, by default SIGIO, which would end the process. The signal of this open
/// file is set to SIGURG, which the kernel discards unless the program asked for it; it stays so.
///
/// Source: fcntl(2), "Leases"; Linux fs/locks.c, `check_conflicting_open`.
#[must_use]
pub fn writers(file: &File) -> Writers {
    if fcntl(file, F_SETSIG, libc::SIGURG).is_err() {
        return Writers::Unknown;
    }
    match fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            // Fails only if the lease is gone already, which is as well.
            let _ = fcntl(file, libc::F_SETLEASE, libc::F_UNLCK);
            Writers::None
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

#[expect(unsafe_code, reason = "no crate in use offers F_SETSIG and F_SETLEASE")]
fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and both commands take an integer, so that the
    // kernel neither reads nor writes memory of ours.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
