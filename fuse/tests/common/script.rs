//! Scripts of system calls, one on a line, that are run in a directory and tell what each call answered.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::Path,
};

use rustix::{
    buffer::spare_capacity,
    fs::{
        AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
        SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

/// Where a script runs.
struct Stage<'a> {
    root: &'a OwnedFd,
    root_path: &'a Path,
    open: BTreeMap<u32, File>,
}

/// Runs a script in a directory. Answers what each call answered, and what is there in the end.
///
/// Runs on a thread of its own, whose user and umask are nobody else's.
pub fn run(root: &Path, script: &str) -> Vec<String> {
    let (root, script) = (root.to_owned(), script.to_owned());
    std::thread::spawn(move || {
        // SAFETY: no pointer is passed; the umask of this thread is its own from here on.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let directory =
            rustix::fs::open(&root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut stage = Stage {
            root: &directory,
            root_path: &root,
            open: BTreeMap::new(),
        };
        let calls = script
            .split(';')
            .map(str::trim)
            .filter(|call| !call.is_empty());
        let mut told: Vec<String> = calls
            .map(|call| format!("{call} => {}", stage.call(call)))
            .collect();
        become_user(0, 0, &[]);
        stage.open.clear();
        told.extend(tree(&root));
        told
    })
    .join()
    .unwrap()
}

/// Everything below a directory: kind, mode, owner, links, length, content, target, attributes.
pub fn tree(root: &Path) -> Vec<String> {
    let mut told = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        let mut paths: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let stat = rustix::fs::lstat(&path).unwrap();
            let content = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => std::fs::read(&path)
                    .map_or_else(|error| error.to_string(), |bytes| digest(&bytes)),
                FileType::Symlink => std::fs::read_link(&path).unwrap().display().to_string(),
                FileType::Directory => {
                    pending.push(path.clone());
                    String::new()
                }
                _ => String::new(),
            };
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            told.push(format!("{shown}: {} {content}", show(&stat)));
        }
    }
    told
}

fn digest(bytes: &[u8]) -> String {
    if bytes.len() < 200 {
        return format!("{:?}", String::from_utf8_lossy(bytes));
    }
    let sum = bytes.iter().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    format!("{} bytes {sum:x}", bytes.len())
}

fn show(stat: &Stat) -> String {
    let length = match FileType::from_raw_mode(stat.st_mode) {
        // A directory's length is the filesystem's own affair.
        FileType::Directory => 0,
        _ => stat.st_size,
    };
    format!(
        "{:o} {}:{} links {} length {length}",
        stat.st_mode, stat.st_uid, stat.st_gid, stat.st_nlink
    )
}

/// Takes another user for the file accesses of this thread alone. Source: setfsuid(2); setgroups is raw, since that of libc
/// is for all threads.
fn become_user(uid: u32, gid: u32, groups: &[u32]) {
    // SAFETY: the list of groups lives through the call, the others take numbers.
    unsafe {
        // Back to root first, who may do the rest.
        libc::setfsuid(0);
        assert_eq!(
            libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
            0
        );
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

fn octal(text: &str) -> Mode {
    Mode::from_raw_mode(u32::from_str_radix(text, 8).unwrap())
}

fn flags(text: &str) -> OFlags {
    text.split('|')
        .fold(OFlags::CLOEXEC | OFlags::NONBLOCK, |flags, name| {
            flags
                | match name {
                    "r" => OFlags::RDONLY,
                    "w" => OFlags::WRONLY,
                    "rw" => OFlags::RDWR,
                    "creat" => OFlags::CREATE,
                    "excl" => OFlags::EXCL,
                    "trunc" => OFlags::TRUNC,
                    "append" => OFlags::APPEND,
                    "dir" => OFlags::DIRECTORY,
                    "nofollow" => OFlags::NOFOLLOW,
                    "path" => OFlags::PATH,
                    "sync" => OFlags::SYNC,
                    "dsync" => OFlags::DSYNC,
                    "noatime" => OFlags::NOATIME,
                    other => panic!("no flag {other}"),
                }
        })
}

fn time(text: &str) -> Timespec {
    match text {
        "omit" => Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        _ => {
            let (seconds, nanoseconds) = text.split_once('.').unwrap();
            Timespec {
                tv_sec: seconds.parse().unwrap(),
                tv_nsec: nanoseconds.parse().unwrap(),
            }
        }
    }
}

/// `abc`, or `x*1000` for a thousand times x.
fn bytes(text: &str) -> Vec<u8> {
    match text.split_once('*') {
        Some((unit, count)) => unit.repeat(count.parse().unwrap()).into_bytes(),
        None => text.as_bytes().to_vec(),
    }
}

impl Stage<'_> {
    fn call(&mut self, call: &str) -> String {
        match self.answer(call) {
            Ok(answer) => answer,
            Err(errno) => format!("{errno:?}"),
        }
    }

    fn file(&self, number: &str) -> Result<&File, Errno> {
        self.open.get(&number.parse().unwrap()).ok_or(Errno::BADF)
    }

    fn path(&self, path: &str) -> CString {
        let joined = self.root_path.join(path);
        CString::new(joined.into_os_string().into_encoded_bytes()).unwrap()
    }

    fn answer(&mut self, call: &str) -> Result<String, Errno> {
        let done = |()| "ok".to_owned();
        let root = self.root;
        let words: Vec<&str> = call.split_whitespace().collect();
        let number = |text: &str| -> u64 { text.parse().unwrap() };
        match words[..] {
            ["open", file, path, how] => self.open_as(file, path, how, "644"),
            ["open", file, path, how, mode] => self.open_as(file, path, how, mode),
            ["close", file] => Ok(self
                .open
                .remove(&file.parse().unwrap())
                .map_or("BADF".into(), |_| "ok".into())),
            ["write", file, text] => {
                Ok(rustix::io::write(self.file(file)?, &bytes(text))?.to_string())
            }
            ["pwrite", file, at, text] => {
                Ok(rustix::io::pwrite(self.file(file)?, &bytes(text), number(at))?.to_string())
            }
            ["read", file, len] => {
                let mut room = vec![0; len.parse().unwrap()];
                let read = rustix::io::read(self.file(file)?, &mut room[..])?;
                Ok(digest(&room[..read]))
            }
            ["pread", file, at, len] => {
                let mut room = vec![0; len.parse().unwrap()];
                let read = rustix::io::pread(self.file(file)?, &mut room[..], number(at))?;
                Ok(digest(&room[..read]))
            }
            ["seek", file, at, whence] => {
                let at: i64 = at.parse().unwrap();
                // Places in a directory are the filesystem's own affair.
                if self.file(file)?.metadata().unwrap().is_dir() {
                    return Ok("a directory".into());
                }
                let place = match whence {
                    "set" => SeekFrom::Start(at.cast_unsigned()),
                    "cur" => SeekFrom::Current(at),
                    "end" => SeekFrom::End(at),
                    "data" => SeekFrom::Data(at.cast_unsigned()),
                    "hole" => SeekFrom::Hole(at.cast_unsigned()),
                    other => panic!("no whence {other}"),
                };
                Ok(rustix::fs::seek(self.file(file)?, place)?.to_string())
            }
            ["ftruncate", file, len] => {
                rustix::fs::ftruncate(self.file(file)?, number(len)).map(done)
            }
            ["truncate", path, len] => {
                // SAFETY: the path is a C string that lives through the call.
                let result =
                    unsafe { libc::truncate(self.path(path).as_ptr(), len.parse().unwrap()) };
                if result == 0 {
                    Ok("ok".into())
                } else {
                    Err(last())
                }
            }
            ["fsync", file] => rustix::fs::fsync(self.file(file)?).map(done),
            ["fdatasync", file] => rustix::fs::fdatasync(self.file(file)?).map(done),
            ["fallocate", file, mode, at, len] => {
                let mode = match mode {
                    "plain" => FallocateFlags::empty(),
                    "keep" => FallocateFlags::KEEP_SIZE,
                    "punch" => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    "zero" => FallocateFlags::ZERO_RANGE,
                    other => panic!("no mode {other}"),
                };
                rustix::fs::fallocate(self.file(file)?, mode, number(at), number(len)).map(done)
            }
            ["copy", from, at, to, to_at, len] => {
                let (mut read, mut written) = (number(at), number(to_at));
                let (from, to) = (self.file(from)?, self.file(to)?);
                let copied = rustix::fs::copy_file_range(
                    from,
                    Some(&mut read),
                    to,
                    Some(&mut written),
                    len.parse().unwrap(),
                )?;
                Ok(copied.to_string())
            }
            ["mmap", file, len] => map(self.file(file)?, len.parse().unwrap()),
            ["mkdir", path, mode] => rustix::fs::mkdirat(root, path, octal(mode)).map(done),
            ["mknod", path, kind, mode] => {
                let kind = match kind {
                    "fifo" => FileType::Fifo,
                    "socket" => FileType::Socket,
                    "file" => FileType::RegularFile,
                    "null" => FileType::CharacterDevice,
                    other => panic!("no kind {other}"),
                };
                let device = if kind == FileType::CharacterDevice {
                    rustix::fs::makedev(1, 3)
                } else {
                    0
                };
                rustix::fs::mknodat(root, path, kind, octal(mode), device).map(done)
            }
            ["rmdir", path] => rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR).map(done),
            ["unlink", path] => rustix::fs::unlinkat(root, path, AtFlags::empty()).map(done),
            ["rename", from, to] => rustix::fs::renameat(root, from, root, to).map(done),
            ["rename", from, to, how] => {
                let how = match how {
                    "noreplace" => RenameFlags::NOREPLACE,
                    "exchange" => RenameFlags::EXCHANGE,
                    "both" => RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
                    other => panic!("no way {other}"),
                };
                rustix::fs::renameat_with(root, from, root, to, how).map(done)
            }
            ["link", from, to] => {
                rustix::fs::linkat(root, from, root, to, AtFlags::empty()).map(done)
            }
            ["symlink", target, path] => rustix::fs::symlinkat(target, root, path).map(done),
            ["readlink", path] => Ok(format!(
                "{:?}",
                rustix::fs::readlinkat(root, path, Vec::new())?
            )),
            ["chmod", path, mode] => {
                rustix::fs::chmodat(root, path, octal(mode), AtFlags::empty()).map(done)
            }
            ["fchmod", file, mode] => rustix::fs::fchmod(self.file(file)?, octal(mode)).map(done),
            ["chown", path, uid, gid] => {
                rustix::fs::chownat(root, path, uid_of(uid), gid_of(gid), AtFlags::empty())
                    .map(done)
            }
            ["lchown", path, uid, gid] => rustix::fs::chownat(
                root,
                path,
                uid_of(uid),
                gid_of(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map(done),
            ["fchown", file, uid, gid] => {
                rustix::fs::fchown(self.file(file)?, uid_of(uid), gid_of(gid)).map(done)
            }
            ["utimens", path, accessed, modified] => {
                let times = Timestamps {
                    last_access: time(accessed),
                    last_modification: time(modified),
                };
                rustix::fs::utimensat(root, path, &times, AtFlags::SYMLINK_NOFOLLOW).map(done)
            }
            ["futimens", file, accessed, modified] => {
                let times = Timestamps {
                    last_access: time(accessed),
                    last_modification: time(modified),
                };
                rustix::fs::futimens(self.file(file)?, &times).map(done)
            }
            ["times", path] => {
                let stat = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(format!(
                    "{}.{} {}.{}",
                    stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec
                ))
            }
            ["stat", path] => Ok(show(&rustix::fs::statat(root, path, AtFlags::empty())?)),
            ["lstat", path] => Ok(show(&rustix::fs::statat(
                root,
                path,
                AtFlags::SYMLINK_NOFOLLOW,
            )?)),
            ["fstat", file] => Ok(show(&rustix::fs::fstat(self.file(file)?)?)),
            ["same", one, other] => {
                let one = rustix::fs::statat(root, one, AtFlags::SYMLINK_NOFOLLOW)?;
                let other = rustix::fs::statat(root, other, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((one.st_ino == other.st_ino).to_string())
            }
            ["access", path, ref mode @ ..] => {
                let mode = mode.first().unwrap_or(&"");
                let access = mode
                    .chars()
                    .fold(rustix::fs::Access::EXISTS, |access, letter| {
                        access
                            | match letter {
                                'r' => rustix::fs::Access::READ_OK,
                                'w' => rustix::fs::Access::WRITE_OK,
                                'x' => rustix::fs::Access::EXEC_OK,
                                _ => rustix::fs::Access::EXISTS,
                            }
                    });
                rustix::fs::accessat(root, path, access, AtFlags::EACCESS).map(done)
            }
            ["setx", path, name, value] => {
                rustix::fs::lsetxattr(self.path(path), name, &bytes(value), XattrFlags::empty())
                    .map(done)
            }
            ["setx", path, name, value, how] => {
                let how = if how == "create" {
                    XattrFlags::CREATE
                } else {
                    XattrFlags::REPLACE
                };
                rustix::fs::lsetxattr(self.path(path), name, &bytes(value), how).map(done)
            }
            // CAP_NET_RAW. Source: Linux include/uapi/linux/capability.h, `struct vfs_cap_data`.
            ["cap", path] => {
                let mut value = [0; 20];
                value[..6].copy_from_slice(&[1, 0, 0, 2, 0, 0x20]);
                let name = "security.capability";
                rustix::fs::lsetxattr(self.path(path), name, &value, XattrFlags::empty()).map(done)
            }
            ["getx", path, name] => {
                let mut value = Vec::with_capacity(64 << 10);
                rustix::fs::lgetxattr(self.path(path), name, spare_capacity(&mut value))?;
                Ok(digest(&value))
            }
            ["getx", path, name, room] => {
                let mut value = vec![0_u8; room.parse().unwrap()];
                Ok(rustix::fs::lgetxattr(self.path(path), name, &mut value[..])?.to_string())
            }
            ["listx", path] => {
                let mut names = Vec::with_capacity(64 << 10);
                rustix::fs::llistxattr(self.path(path), spare_capacity(&mut names))?;
                let mut names: Vec<_> = names
                    .split(|byte| *byte == 0)
                    .map(|name| String::from_utf8_lossy(name).into_owned())
                    .collect();
                names.sort();
                Ok(format!("{names:?}"))
            }
            ["rmx", path, name] => rustix::fs::lremovexattr(self.path(path), name).map(done),
            ["acl", path, ref entries @ ..] => {
                let output = std::process::Command::new("setfacl")
                    .args(entries)
                    .arg(self.root_path.join(path))
                    .output()
                    .unwrap();
                Ok(output.status.success().to_string())
            }
            ["getacl", path] => {
                let mut command = std::process::Command::new("getfacl");
                let output = command
                    .args(["-n", "-c", "-p"])
                    .arg(self.root_path.join(path))
                    .output()
                    .unwrap();
                Ok(String::from_utf8_lossy(&output.stdout).replace('\n', ","))
            }
            ["flock", file, how] => {
                let how = match how {
                    "sh" => FlockOperation::NonBlockingLockShared,
                    "ex" => FlockOperation::NonBlockingLockExclusive,
                    "un" => FlockOperation::Unlock,
                    other => panic!("no lock {other}"),
                };
                rustix::fs::flock(self.file(file)?, how).map(done)
            }
            ["lock", file, kind, start, len] => lock(
                self.file(file)?,
                kind,
                start.parse().unwrap(),
                len.parse().unwrap(),
            ),
            ["ls", path] => {
                let directory = rustix::fs::openat(
                    root,
                    path,
                    OFlags::RDONLY | OFlags::DIRECTORY,
                    Mode::empty(),
                )?;
                let entries = rustix::fs::Dir::read_from(&directory)?;
                let mut names: Vec<String> = entries
                    .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                    .collect();
                names.sort();
                Ok(format!("{names:?}"))
            }
            ["fill", path, count] => {
                for number in 0..count.parse::<u32>().unwrap() {
                    let made = rustix::fs::openat(
                        root,
                        format!("{path}/{number}"),
                        OFlags::WRONLY | OFlags::CREATE,
                        octal("644"),
                    )?;
                    drop(made);
                }
                Ok("ok".into())
            }
            ["umask", mode] => {
                rustix::process::umask(octal(mode));
                Ok("ok".into())
            }
            ["user", uid, gid, ref groups @ ..] => {
                let groups: Vec<u32> = groups.iter().map(|group| group.parse().unwrap()).collect();
                become_user(uid.parse().unwrap(), gid.parse().unwrap(), &groups);
                Ok("ok".into())
            }
            ["dup", from, to] => {
                let copy = self.file(from)?.as_fd().try_clone_to_owned().unwrap();
                self.open.insert(to.parse().unwrap(), copy.into());
                Ok("ok".into())
            }
            ref other => panic!("no call {other:?}"),
        }
    }

    fn open_as(&mut self, file: &str, path: &str, how: &str, mode: &str) -> Result<String, Errno> {
        let opened = rustix::fs::openat(self.root, path, flags(how), octal(mode))?;
        self.open.insert(file.parse().unwrap(), opened.into());
        Ok("ok".into())
    }
}

fn uid_of(text: &str) -> Option<Uid> {
    text.parse().ok().map(Uid::from_raw)
}

fn gid_of(text: &str) -> Option<Gid> {
    text.parse().ok().map(Gid::from_raw)
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()
}

fn map(file: &File, len: usize) -> Result<String, Errno> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the mapping is read within its length and within the file's, and nothing refers to it afterwards.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(last());
        }
        let whole = file.metadata().unwrap().len() as usize;
        let told = digest(std::slice::from_raw_parts(at.cast::<u8>(), len.min(whole)));
        libc::munmap(at, len);
        Ok(told)
    }
}

/// Record locks of open file descriptions, which two descriptors of one process can have against each other.
fn lock(file: &File, kind: &str, start: i64, len: i64) -> Result<String, Errno> {
    use std::os::fd::AsRawFd as _;
    let kind = match kind {
        "read" => libc::F_RDLCK,
        "write" => libc::F_WRLCK,
        _ => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: the lock lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        Ok("ok".into())
    } else {
        Err(last())
    }
}

/// Writes a whole file through one descriptor, piece by piece.
pub fn write_all(file: &File, bytes: &[u8]) {
    file.write_all_at(bytes, 0).unwrap();
}
