//! System calls whose answers have to be the same on the mount and on the directory below.

/// What a case is about, and its script: calls as `common/script.rs` knows them.
pub(crate) const CASES: &[(&str, &str)] = &[
    ("open r of nothing", "open 2 f r; fstat 2; lstat f; ls ."),
    (
        "open w|creat of nothing",
        "open 2 f w|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|creat|excl of nothing",
        "open 2 f rw|creat|excl; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|trunc of nothing",
        "open 2 f rw|trunc; fstat 2; lstat f; ls .",
    ),
    (
        "open r|dir of nothing",
        "open 2 f r|dir; fstat 2; lstat f; ls .",
    ),
    (
        "open r|nofollow of nothing",
        "open 2 f r|nofollow; fstat 2; lstat f; ls .",
    ),
    (
        "open path of nothing",
        "open 2 f path; fstat 2; lstat f; ls .",
    ),
    (
        "open w|append|creat of nothing",
        "open 2 f w|append|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open r of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f r; fstat 2; lstat f; ls .",
    ),
    (
        "open w|creat of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f w|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|creat|excl of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f rw|creat|excl; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|trunc of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f rw|trunc; fstat 2; lstat f; ls .",
    ),
    (
        "open r|dir of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f r|dir; fstat 2; lstat f; ls .",
    ),
    (
        "open r|nofollow of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f r|nofollow; fstat 2; lstat f; ls .",
    ),
    (
        "open path of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f path; fstat 2; lstat f; ls .",
    ),
    (
        "open w|append|creat of a file",
        "open 1 f w|creat; write 1 hello; close 1; open 2 f w|append|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open r of a directory",
        "mkdir f 755; open 2 f r; fstat 2; lstat f; ls .",
    ),
    (
        "open w|creat of a directory",
        "mkdir f 755; open 2 f w|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|creat|excl of a directory",
        "mkdir f 755; open 2 f rw|creat|excl; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|trunc of a directory",
        "mkdir f 755; open 2 f rw|trunc; fstat 2; lstat f; ls .",
    ),
    (
        "open r|dir of a directory",
        "mkdir f 755; open 2 f r|dir; fstat 2; lstat f; ls .",
    ),
    (
        "open r|nofollow of a directory",
        "mkdir f 755; open 2 f r|nofollow; fstat 2; lstat f; ls .",
    ),
    (
        "open path of a directory",
        "mkdir f 755; open 2 f path; fstat 2; lstat f; ls .",
    ),
    (
        "open w|append|creat of a directory",
        "mkdir f 755; open 2 f w|append|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open r of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f r; fstat 2; lstat f; ls .",
    ),
    (
        "open w|creat of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f w|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|creat|excl of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f rw|creat|excl; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|trunc of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f rw|trunc; fstat 2; lstat f; ls .",
    ),
    (
        "open r|dir of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f r|dir; fstat 2; lstat f; ls .",
    ),
    (
        "open r|nofollow of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f r|nofollow; fstat 2; lstat f; ls .",
    ),
    (
        "open path of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f path; fstat 2; lstat f; ls .",
    ),
    (
        "open w|append|creat of a symbolic link to a file",
        "open 1 t w|creat; write 1 hello; close 1; symlink t f; open 2 f w|append|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open r of a dangling link",
        "symlink nowhere f; open 2 f r; fstat 2; lstat f; ls .",
    ),
    (
        "open w|creat of a dangling link",
        "symlink nowhere f; open 2 f w|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|creat|excl of a dangling link",
        "symlink nowhere f; open 2 f rw|creat|excl; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|trunc of a dangling link",
        "symlink nowhere f; open 2 f rw|trunc; fstat 2; lstat f; ls .",
    ),
    (
        "open r|dir of a dangling link",
        "symlink nowhere f; open 2 f r|dir; fstat 2; lstat f; ls .",
    ),
    (
        "open r|nofollow of a dangling link",
        "symlink nowhere f; open 2 f r|nofollow; fstat 2; lstat f; ls .",
    ),
    (
        "open path of a dangling link",
        "symlink nowhere f; open 2 f path; fstat 2; lstat f; ls .",
    ),
    (
        "open w|append|creat of a dangling link",
        "symlink nowhere f; open 2 f w|append|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open r of a fifo",
        "mknod f fifo 644; open 2 f r; fstat 2; lstat f; ls .",
    ),
    (
        "open w|creat of a fifo",
        "mknod f fifo 644; open 2 f w|creat; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|creat|excl of a fifo",
        "mknod f fifo 644; open 2 f rw|creat|excl; fstat 2; lstat f; ls .",
    ),
    (
        "open rw|trunc of a fifo",
        "mknod f fifo 644; open 2 f rw|trunc; fstat 2; lstat f; ls .",
    ),
    (
        "open r|dir of a fifo",
        "mknod f fifo 644; open 2 f r|dir; fstat 2; lstat f; ls .",
    ),
    (
        "open r|nofollow of a fifo",
        "mknod f fifo 644; open 2 f r|nofollow; fstat 2; lstat f; ls .",
    ),
    (
        "open path of a fifo",
        "mknod f fifo 644; open 2 f path; fstat 2; lstat f; ls .",
    ),
    (
        "open w|append|creat of a fifo",
        "mknod f fifo 644; open 2 f w|append|creat; fstat 2; lstat f; ls .",
    ),
    (
        "a read at the end answers nothing",
        "open 1 f rw|creat; write 1 hello; read 1 10; seek 1 0 set; read 1 10; read 1 10",
    ),
    (
        "a write beyond the end leaves a hole",
        "open 1 f rw|creat; pwrite 1 100 x; fstat 1; pread 1 0 200; seek 1 0 data; seek 1 0 hole",
    ),
    (
        "large writes come back whole",
        "open 1 f rw|creat; write 1 abcdefg*500000; fstat 1; pread 1 1000000 100000; pread 1 3499990 100",
    ),
    (
        "odd sizes at odd places",
        "open 1 f rw|creat; pwrite 1 1 a*4095; pwrite 1 4097 b*8191; pwrite 1 3 c*13; pread 1 0 20000",
    ),
    (
        "appending writes go to the end",
        "open 1 f w|creat; write 1 hello; open 2 f w|append; write 2 world; pwrite 1 0 J; write 2 !; close 1; open 3 f r; read 3 100",
    ),
    (
        "two descriptors append in turn",
        "open 1 f w|creat|append; open 2 f w|append; write 1 a; write 2 b; write 1 c; write 2 d; open 3 f r; read 3 9",
    ),
    (
        "a pwrite to an appending descriptor appends",
        "open 1 f rw|creat|append; write 1 hello; pwrite 1 0 X; pread 1 0 20",
    ),
    (
        "writing to a reader is refused",
        "open 1 f w|creat; open 2 f r; write 2 x",
    ),
    (
        "reading from a writer is refused",
        "open 1 f w|creat; write 1 x; pread 1 0 1",
    ),
    (
        "truncating on opening empties",
        "open 1 f w|creat; write 1 hello; open 2 f w|trunc; fstat 1; fstat 2; stat f",
    ),
    (
        "truncating while reading",
        "open 1 f rw|creat; write 1 hello; open 2 f r; ftruncate 1 2; read 2 10; fstat 2",
    ),
    (
        "a longer truncation fills with zeros",
        "open 1 f rw|creat; write 1 hello; ftruncate 1 10; pread 1 0 20",
    ),
    (
        "truncate by name",
        "open 1 f w|creat; write 1 hello; truncate f 3; stat f; open 2 f r; read 2 9",
    ),
    (
        "truncate by name beyond the end",
        "open 1 f w|creat; write 1 hello; close 1; truncate f 5000; stat f; open 2 f r; pread 2 0 10; pread 2 4990 100",
    ),
    ("truncate of a directory", "mkdir d 755; truncate d 0"),
    ("truncate of nothing", "truncate f 0"),
    (
        "ftruncate of a reader",
        "open 1 f w|creat; open 2 f r; ftruncate 2 0",
    ),
    (
        "a written file is read by another descriptor at once",
        "open 1 f w|creat; open 2 f r; write 1 abc; read 2 10; write 1 def; read 2 10",
    ),
    (
        "a reader from before sees what is written",
        "open 1 f w|creat; write 1 abc; close 1; open 2 f r; read 2 2; open 3 f w; pwrite 3 0 XYZ; pread 2 0 3",
    ),
    (
        "synchronous writes",
        "open 1 f w|creat|sync; write 1 abc; open 2 g w|creat|dsync; write 2 def; stat f; stat g",
    ),
    (
        "fsync and fdatasync",
        "open 1 f w|creat; write 1 abc; fsync 1; fdatasync 1; open 2 . r|dir; fsync 2; fdatasync 2",
    ),
    (
        "fallocate grows",
        "open 1 f w|creat; fallocate 1 plain 0 10000; fstat 1",
    ),
    (
        "fallocate keeps the size",
        "open 1 f w|creat; write 1 abc; fallocate 1 keep 0 10000; fstat 1",
    ),
    (
        "fallocate punches a hole",
        "open 1 f rw|creat; write 1 a*20000; fallocate 1 punch 4096 8192; fstat 1; pread 1 4000 200; seek 1 0 hole; seek 1 4096 data",
    ),
    (
        "fallocate zeroes a range",
        "open 1 f rw|creat; write 1 a*10000; fallocate 1 zero 100 200; pread 1 90 30; fstat 1",
    ),
    (
        "fallocate of no length",
        "open 1 f w|creat; fallocate 1 plain 0 0",
    ),
    (
        "fallocate by a reader",
        "open 1 f w|creat; open 2 f r; fallocate 2 plain 0 10",
    ),
    (
        "seek to data behind the end",
        "open 1 f rw|creat; write 1 abc; seek 1 3 data; seek 1 4 hole; seek 1 2 data; seek 1 0 hole",
    ),
    (
        "seek from the end",
        "open 1 f rw|creat; write 1 hello; seek 1 -2 end; read 1 9; seek 1 -9 end; seek 1 2 end; write 1 x; fstat 1",
    ),
    (
        "holes among data",
        "open 1 f rw|creat; pwrite 1 0 a*4096; pwrite 1 1048576 b*4096; seek 1 0 hole; seek 1 8192 data; seek 1 1048576 hole",
    ),
    (
        "copy_file_range within a file",
        "open 1 f rw|creat; write 1 hello; copy 1 0 1 100 5; pread 1 0 200",
    ),
    (
        "copy_file_range between files",
        "open 1 f rw|creat; write 1 abcdef*1000; open 2 g rw|creat; copy 1 10 2 3 100; pread 2 0 200; fstat 2",
    ),
    (
        "copy_file_range beyond the end",
        "open 1 f rw|creat; write 1 hello; open 2 g rw|creat; copy 1 10 2 0 5; copy 1 3 2 0 50; pread 2 0 9",
    ),
    (
        "copy_file_range from a writer",
        "open 1 f w|creat; write 1 hello; open 2 g rw|creat; copy 1 0 2 0 5",
    ),
    (
        "copy_file_range to a reader",
        "open 1 f rw|creat; write 1 hello; open 2 f r; copy 1 0 2 0 5",
    ),
    (
        "mmap for reading",
        "open 1 f w|creat; write 1 hello*3000; close 1; open 2 f r; mmap 2 15000",
    ),
    (
        "mmap of a writer",
        "open 1 f w|creat; write 1 hello; mmap 1 5",
    ),
    (
        "an unlinked file goes on",
        "open 1 f rw|creat; write 1 hello; unlink f; fstat 1; pread 1 0 9; pwrite 1 5 world; pread 1 0 20; fchmod 1 600; fstat 1; ls .",
    ),
    (
        "an unlinked file is truncated and synced",
        "open 1 f rw|creat; write 1 hello; unlink f; ftruncate 1 2; fsync 1; fstat 1; pread 1 0 9",
    ),
    (
        "a name is used again while the old file is open",
        "open 1 f rw|creat; write 1 old; unlink f; open 2 f rw|creat; write 2 new; pread 1 0 9; pread 2 0 9; stat f",
    ),
    (
        "a file that is renamed over goes on",
        "open 1 f rw|creat; write 1 old; open 2 g rw|creat; write 2 new; rename g f; pread 1 0 9; fstat 1; fstat 2; open 3 f r; read 3 9",
    ),
    (
        "a renamed file goes on",
        "open 1 f rw|creat; write 1 hello; rename f g; write 1 world; fstat 1; stat g; open 2 g r; read 2 20",
    ),
    (
        "copies of a descriptor share the position",
        "open 1 f rw|creat; write 1 hello; dup 1 2; seek 2 1 set; read 1 2; read 2 2; close 1; write 2 X; close 2; open 3 f r; read 3 9",
    ),
    (
        "writing after a copy is closed",
        "open 1 f w|creat; write 1 abc; dup 1 2; close 2; write 1 def; close 1; stat f",
    ),
    (
        "an empty write",
        "open 1 f w|creat; pwrite 1 0 x*0; fstat 1",
    ),
    (
        "opening with a slash at the end",
        "open 1 f w|creat; open 2 f/ r; mkdir d 755; open 3 d/ r|dir; open 4 n/ w|creat",
    ),
    (
        "a file below a file",
        "open 1 f w|creat; open 2 f/g w|creat; stat f/g; mkdir f/d 755; unlink f/g",
    ),
    (
        "noatime by the owner",
        "open 1 f w|creat; open 2 f r|noatime; read 2 1",
    ),
    (
        "a directory is made and removed",
        "mkdir d 755; stat d; ls .; rmdir d; stat d; ls .",
    ),
    (
        "links of directories are counted",
        "mkdir d 755; mkdir d/a 755; mkdir d/b 755; stat d; rmdir d/a; stat d",
    ),
    (
        "a directory that exists",
        "mkdir d 755; mkdir d 700; stat d; open 1 f w|creat; mkdir f 755",
    ),
    ("a directory below nothing", "mkdir a/b 755"),
    (
        "a directory with something in it",
        "mkdir d 755; open 1 d/f w|creat; rmdir d; unlink d/f; rmdir d",
    ),
    (
        "rmdir of a file",
        "open 1 f w|creat; rmdir f; unlink f; rmdir f",
    ),
    ("unlink of a directory", "mkdir d 755; unlink d"),
    ("rmdir of dots", "mkdir d 755; rmdir d/.; rmdir d/.."),
    (
        "the mode of a directory",
        "umask 0; mkdir a 777; mkdir b 1777; mkdir c 2755; mkdir d 0; stat a; stat b; stat c; stat d",
    ),
    (
        "the umask of a directory",
        "umask 027; mkdir a 777; stat a; umask 077; mkdir b 777; stat b",
    ),
    ("a hundred names", "mkdir d 755; fill d 100; ls d"),
    (
        "names come and go while a directory is open",
        "mkdir d 755; fill d 10; open 1 d r|dir; unlink d/3; open 2 d/new w|creat; ls d",
    ),
    (
        "a removed directory that is open",
        "mkdir d 755; open 1 d r|dir; rmdir d; ls .",
    ),
    (
        "long names",
        "open 1 nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn w|creat; stat nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn; open 2 nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn w|creat; mkdir ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 755; ls .",
    ),
    (
        "names of bytes",
        "open 1 a%b w|creat; open 2 ä w|creat; open 3 a\\b w|creat; ls .",
    ),
    (
        "deep directories",
        "mkdir a 755; mkdir a/b 755; mkdir a/b/c 755; mkdir a/b/c/d 755; open 1 a/b/c/d/f w|creat; stat a/b/c/d/f; stat a/b/../b/c/./d/f",
    ),
    (
        "rename of a file over nothing",
        "open 1 f w|creat; write 1 source; close 1; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a file over nothing",
        "open 1 f w|creat; write 1 source; close 1; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a file over nothing",
        "open 1 f w|creat; write 1 source; close 1; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a file over a file",
        "open 1 f w|creat; write 1 source; close 1; open 2 g w|creat; write 2 target; close 2; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a file over a file",
        "open 1 f w|creat; write 1 source; close 1; open 2 g w|creat; write 2 target; close 2; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a file over a file",
        "open 1 f w|creat; write 1 source; close 1; open 2 g w|creat; write 2 target; close 2; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a file over an empty directory",
        "open 1 f w|creat; write 1 source; close 1; mkdir g 755; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a file over an empty directory",
        "open 1 f w|creat; write 1 source; close 1; mkdir g 755; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a file over an empty directory",
        "open 1 f w|creat; write 1 source; close 1; mkdir g 755; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a file over a full directory",
        "open 1 f w|creat; write 1 source; close 1; mkdir g 755; open 2 g/x w|creat; close 2; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a file over a full directory",
        "open 1 f w|creat; write 1 source; close 1; mkdir g 755; open 2 g/x w|creat; close 2; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a file over a full directory",
        "open 1 f w|creat; write 1 source; close 1; mkdir g 755; open 2 g/x w|creat; close 2; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a file over a symbolic link",
        "open 1 f w|creat; write 1 source; close 1; symlink x g; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a file over a symbolic link",
        "open 1 f w|creat; write 1 source; close 1; symlink x g; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a file over a symbolic link",
        "open 1 f w|creat; write 1 source; close 1; symlink x g; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a directory over nothing",
        "mkdir f 755; open 1 f/y w|creat; close 1; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a directory over nothing",
        "mkdir f 755; open 1 f/y w|creat; close 1; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a directory over nothing",
        "mkdir f 755; open 1 f/y w|creat; close 1; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a directory over a file",
        "mkdir f 755; open 1 f/y w|creat; close 1; open 2 g w|creat; write 2 target; close 2; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a directory over a file",
        "mkdir f 755; open 1 f/y w|creat; close 1; open 2 g w|creat; write 2 target; close 2; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a directory over a file",
        "mkdir f 755; open 1 f/y w|creat; close 1; open 2 g w|creat; write 2 target; close 2; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a directory over an empty directory",
        "mkdir f 755; open 1 f/y w|creat; close 1; mkdir g 755; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a directory over an empty directory",
        "mkdir f 755; open 1 f/y w|creat; close 1; mkdir g 755; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a directory over an empty directory",
        "mkdir f 755; open 1 f/y w|creat; close 1; mkdir g 755; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a directory over a full directory",
        "mkdir f 755; open 1 f/y w|creat; close 1; mkdir g 755; open 2 g/x w|creat; close 2; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a directory over a full directory",
        "mkdir f 755; open 1 f/y w|creat; close 1; mkdir g 755; open 2 g/x w|creat; close 2; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a directory over a full directory",
        "mkdir f 755; open 1 f/y w|creat; close 1; mkdir g 755; open 2 g/x w|creat; close 2; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a directory over a symbolic link",
        "mkdir f 755; open 1 f/y w|creat; close 1; symlink x g; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a directory over a symbolic link",
        "mkdir f 755; open 1 f/y w|creat; close 1; symlink x g; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a directory over a symbolic link",
        "mkdir f 755; open 1 f/y w|creat; close 1; symlink x g; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a symbolic link over nothing",
        "symlink y f; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a symbolic link over nothing",
        "symlink y f; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a symbolic link over nothing",
        "symlink y f; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a symbolic link over a file",
        "symlink y f; open 2 g w|creat; write 2 target; close 2; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a symbolic link over a file",
        "symlink y f; open 2 g w|creat; write 2 target; close 2; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a symbolic link over a file",
        "symlink y f; open 2 g w|creat; write 2 target; close 2; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a symbolic link over an empty directory",
        "symlink y f; mkdir g 755; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a symbolic link over an empty directory",
        "symlink y f; mkdir g 755; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a symbolic link over an empty directory",
        "symlink y f; mkdir g 755; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a symbolic link over a full directory",
        "symlink y f; mkdir g 755; open 2 g/x w|creat; close 2; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a symbolic link over a full directory",
        "symlink y f; mkdir g 755; open 2 g/x w|creat; close 2; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a symbolic link over a full directory",
        "symlink y f; mkdir g 755; open 2 g/x w|creat; close 2; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of a symbolic link over a symbolic link",
        "symlink y f; symlink x g; rename f g ; lstat f; lstat g; ls .",
    ),
    (
        "rename noreplace of a symbolic link over a symbolic link",
        "symlink y f; symlink x g; rename f g noreplace; lstat f; lstat g; ls .",
    ),
    (
        "rename exchange of a symbolic link over a symbolic link",
        "symlink y f; symlink x g; rename f g exchange; lstat f; lstat g; ls .",
    ),
    (
        "rename of nothing",
        "rename f g; rename f g noreplace; rename f g exchange",
    ),
    (
        "rename to itself",
        "open 1 f w|creat; rename f f; rename f f noreplace; stat f",
    ),
    (
        "rename of one link over the other",
        "open 1 f w|creat; link f g; rename f g; stat f; stat g",
    ),
    (
        "rename into itself",
        "mkdir d 755; mkdir d/e 755; rename d d/e/f; rename d d/e; rename d/e d",
    ),
    (
        "rename between directories",
        "mkdir a 755; mkdir b 755; open 1 a/f w|creat; write 1 x; rename a/f b/g; ls a; ls b; stat b/g",
    ),
    (
        "rename of a directory between directories",
        "mkdir a 755; mkdir b 755; mkdir a/d 755; open 1 a/d/f w|creat; rename a/d b/e; ls a; ls b/e; stat a; stat b; stat b/e/f",
    ),
    (
        "exchange between directories",
        "mkdir a 755; mkdir b 755; open 1 a/f w|creat; write 1 one; open 2 b/f w|creat; write 2 other; rename a/f b/f exchange; open 3 a/f r; read 3 9; open 4 b/f r; read 4 9",
    ),
    (
        "two ways at once",
        "open 1 f w|creat; open 2 g w|creat; rename f g both",
    ),
    (
        "what is below a renamed directory is found",
        "mkdir a 755; mkdir a/b 755; open 1 a/b/f w|creat; write 1 x; rename a c; stat c/b/f; open 2 c/b/g w|creat; ls c/b; write 1 y; stat c/b/f",
    ),
    (
        "a name is used again after a rename",
        "open 1 f w|creat; write 1 one; rename f g; open 2 f w|creat; write 2 three; stat f; stat g",
    ),
    (
        "rename with a long name",
        "open 1 f w|creat; rename f nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn; rename nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm; ls .",
    ),
    (
        "a link is another name",
        "open 1 f w|creat; write 1 x; link f g; stat f; stat g; same f g; pwrite 1 1 yz; stat g; unlink f; stat g; open 2 g r; read 2 9",
    ),
    ("a link to nothing", "link f g"),
    (
        "a link over something",
        "open 1 f w|creat; open 2 g w|creat; link f g",
    ),
    ("a link to a directory", "mkdir d 755; link d e"),
    (
        "a link to a symbolic link",
        "symlink x f; link f g; lstat g; readlink g",
    ),
    (
        "a link into a directory",
        "mkdir d 755; open 1 f w|creat; link f d/g; stat d/g; same f d/g; rename d e; same f e/g",
    ),
    (
        "many links",
        "open 1 f w|creat; link f a; link f b; link f c; stat f; unlink b; stat a; rename a b; stat b; same f b",
    ),
    (
        "a symbolic link and its target",
        "symlink target f; readlink f; lstat f; stat f; open 1 target w|creat; write 1 x; stat f; open 2 f r; read 2 9",
    ),
    (
        "a long target",
        "symlink tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt f; readlink f; lstat f",
    ),
    (
        "an empty target",
        "open 1 x w|creat; readlink x; readlink nothing",
    ),
    (
        "a symbolic link over something",
        "open 1 f w|creat; symlink x f",
    ),
    (
        "a link that turns in a circle",
        "symlink a b; symlink b a; stat a; open 1 a r; lstat a",
    ),
    (
        "a link to a directory is walked through",
        "mkdir d 755; open 1 d/f w|creat; symlink d l; stat l/f; ls l; open 2 l/g w|creat; ls d",
    ),
    (
        "unlink of a symbolic link",
        "open 1 t w|creat; symlink t f; unlink f; stat t; lstat f",
    ),
    (
        "a link that leads outside is followed by the caller",
        "symlink /dev/null n; open 1 n w; write 1 x; lstat n",
    ),
    (
        "chmod 0 of a file",
        "open 1 f w|creat; chmod f 0; stat f; fchmod 1 600; stat f; fchmod 1 0; fstat 1",
    ),
    ("chmod 0 of a directory", "mkdir d 755; chmod d 0; stat d"),
    (
        "chmod 644 of a file",
        "open 1 f w|creat; chmod f 644; stat f; fchmod 1 600; stat f; fchmod 1 644; fstat 1",
    ),
    (
        "chmod 644 of a directory",
        "mkdir d 755; chmod d 644; stat d",
    ),
    (
        "chmod 755 of a file",
        "open 1 f w|creat; chmod f 755; stat f; fchmod 1 600; stat f; fchmod 1 755; fstat 1",
    ),
    (
        "chmod 755 of a directory",
        "mkdir d 755; chmod d 755; stat d",
    ),
    (
        "chmod 4755 of a file",
        "open 1 f w|creat; chmod f 4755; stat f; fchmod 1 600; stat f; fchmod 1 4755; fstat 1",
    ),
    (
        "chmod 4755 of a directory",
        "mkdir d 755; chmod d 4755; stat d",
    ),
    (
        "chmod 2755 of a file",
        "open 1 f w|creat; chmod f 2755; stat f; fchmod 1 600; stat f; fchmod 1 2755; fstat 1",
    ),
    (
        "chmod 2755 of a directory",
        "mkdir d 755; chmod d 2755; stat d",
    ),
    (
        "chmod 1777 of a file",
        "open 1 f w|creat; chmod f 1777; stat f; fchmod 1 600; stat f; fchmod 1 1777; fstat 1",
    ),
    (
        "chmod 1777 of a directory",
        "mkdir d 755; chmod d 1777; stat d",
    ),
    (
        "chmod 6711 of a file",
        "open 1 f w|creat; chmod f 6711; stat f; fchmod 1 600; stat f; fchmod 1 6711; fstat 1",
    ),
    (
        "chmod 6711 of a directory",
        "mkdir d 755; chmod d 6711; stat d",
    ),
    (
        "chmod 7777 of a file",
        "open 1 f w|creat; chmod f 7777; stat f; fchmod 1 600; stat f; fchmod 1 7777; fstat 1",
    ),
    (
        "chmod 7777 of a directory",
        "mkdir d 755; chmod d 7777; stat d",
    ),
    (
        "chown",
        "open 1 f w|creat; chown f 1000 2000; stat f; chown f 3 -; stat f; chown f - 4; stat f; fchown 1 5 6; fstat 1",
    ),
    (
        "chown takes set-id bits away",
        "open 1 f w|creat; chmod f 6755; chown f 1000 1000; stat f",
    ),
    (
        "chown leaves a directory's bits",
        "mkdir d 755; chmod d 7755; chown d 1000 1000; stat d",
    ),
    (
        "lchown of a link",
        "open 1 t w|creat; symlink t f; lchown f 1000 1000; lstat f; stat t; chown f 5 5; stat t; lstat f",
    ),
    (
        "times with nanoseconds",
        "open 1 f w|creat; utimens f 1.123456789 2.987654321; times f; futimens 1 1000000000.1 1700000000.999999999; times f",
    ),
    (
        "times before 1970",
        "open 1 f w|creat; utimens f -5.250000000 -100000.7; times f; utimens f -1.999999999 -1.1; times f",
    ),
    (
        "times after 2038",
        "open 1 f w|creat; utimens f 4000000000.5 5000000000.7; times f",
    ),
    (
        "one time alone",
        "open 1 f w|creat; utimens f 5.5 6.6; utimens f omit 7.7; times f; utimens f 8.8 omit; times f; utimens f omit omit; times f",
    ),
    (
        "times of a link and a directory",
        "symlink x l; mkdir d 755; utimens l 1.1 2.2; times l; utimens d 3.3 4.4; times d",
    ),
    ("times of nothing", "utimens f 1.1 2.2"),
    (
        "a setgid directory gives its group",
        "mkdir d 755; chown d 0 2000; chmod d 2775; open 1 d/f w|creat; stat d/f; mkdir d/e 755; stat d/e; symlink x d/l; lstat d/l; mknod d/p fifo 644; stat d/p",
    ),
    (
        "the umask of a file",
        "umask 077; open 1 a w|creat 666; stat a; umask 0; open 2 b w|creat 666; stat b; open 3 c w|creat 4777; stat c",
    ),
    (
        "fifos, sockets and devices",
        "mknod p fifo 644; mknod s socket 600; mknod n null 666; mknod r file 640; lstat p; lstat s; lstat n; lstat r; open 1 r w; write 1 x; unlink p; ls .",
    ),
    ("mknod over something", "open 1 f w|creat; mknod f fifo 644"),
    (
        "attributes are set and read",
        "open 1 f w|creat; setx f user.a hello; getx f user.a; listx f; setx f user.b x*1000; getx f user.b; listx f; rmx f user.a; getx f user.a; listx f",
    ),
    (
        "attributes are made or replaced",
        "open 1 f w|creat; setx f user.a one replace; setx f user.a one create; setx f user.a two create; setx f user.a two replace; getx f user.a",
    ),
    (
        "attributes need room",
        "open 1 f w|creat; setx f user.a hello; getx f user.a 0; getx f user.a 2; getx f user.a 5",
    ),
    (
        "attributes of a directory",
        "mkdir d 755; setx d user.a x; getx d user.a; listx d; rmx d user.b",
    ),
    (
        "attributes of a link",
        "symlink x l; setx l user.a x; listx l; setx l trusted.a x; getx l trusted.a",
    ),
    (
        "trusted attributes",
        "open 1 f w|creat; setx f trusted.a x; getx f trusted.a; listx f; chmod . 777; rmx f trusted.a; getx f trusted.a",
    ),
    (
        "attributes of no kind",
        "open 1 f w|creat; setx f nonsense.a x; setx f user. x; getx f user.missing; listx nothing",
    ),
    (
        "attributes of another user's file",
        "open 1 f w|creat; chmod . 777; user 1000 1000; setx f user.a x; chmod f 666; getx f user.a",
    ),
    (
        "a write takes set-id bits away from one who may not keep them",
        "chmod . 777; open 1 f w|creat; chmod f 6777; user 1000 1000; open 2 f w; write 2 x; stat f",
    ),
    (
        "a write by root keeps set-id bits",
        "open 1 f w|creat; chmod f 6777; write 1 x; stat f",
    ),
    (
        "a truncation takes set-id bits away",
        "chmod . 777; open 1 f w|creat; write 1 hello; chmod f 6777; user 1000 1000; truncate f 1; stat f",
    ),
    (
        "a truncation by root keeps set-id bits",
        "open 1 f w|creat; write 1 hello; chmod f 6777; truncate f 1; stat f",
    ),
    (
        "a truncation of what is open takes set-id bits away",
        "chmod . 777; open 1 f w|creat; write 1 hello; chmod f 6777; user 1000 1000; open 2 f w; ftruncate 2 1; stat f",
    ),
    (
        "opening to truncate takes set-id bits away",
        "chmod . 777; open 1 f w|creat; write 1 hello; chmod f 6777; user 1000 1000; open 2 f w|trunc; stat f",
    ),
    (
        "opening to truncate by root keeps set-id bits",
        "open 1 f w|creat; write 1 hello; chmod f 6777; open 2 f w|trunc; stat f",
    ),
    (
        "without the group's right to execute, its bit goes too",
        "chmod . 777; open 1 f w|creat; chmod f 6767; user 1000 1000; open 2 f w; write 2 x; stat f; open 3 f w|trunc; stat f",
    ),
    (
        "chown of nothing is for the owner where there are set-id bits",
        "chmod . 777; open 1 f w|creat; close 1; chmod f 6777; user 1000 1000; chown f - -; user 0 0; stat f; chown f 1000 1000; chmod f 6777; user 1000 1000; chown f - -; stat f; user 2000 2000; chown f - -; stat f",
    ),
    (
        "allocating takes set-id bits away",
        "chmod . 777; open 1 f w|creat; chmod f 6777; user 1000 1000; open 2 f w; fallocate 2 plain 0 100; stat f",
    ),
    (
        "a copy into it takes set-id bits away",
        "chmod . 777; open 1 f w|creat; chmod f 6777; open 3 g rw|creat 666; write 3 hello; user 1000 1000; open 2 f w; open 4 g r; copy 4 0 2 0 5; stat f",
    ),
    (
        "bits that are set anew are taken away anew",
        "chmod . 777; open 1 f w|creat; chmod f 6777; user 1000 1000; open 2 f w; write 2 x; stat f; user 0 0; chmod f 6777; stat f; user 1000 1000; write 2 x; stat f",
    ),
    (
        "a capability of the file goes with its content",
        "chmod . 777; open 1 f w|creat; chmod f 777; cap f; listx f; user 1000 1000; open 2 f w; write 2 x; user 0 0; listx f",
    ),
    (
        "an ACL is set and read",
        "open 1 f w|creat; acl f -m u:1000:rwx; getacl f; stat f; getx f system.posix_acl_access",
    ),
    (
        "an ACL lets a user in",
        "open 1 f w|creat 600; write 1 x; close 1; acl f -m u:1000:r; user 1000 1000; open 2 f r; read 2 9; open 3 f w; user 1001 1001; open 4 f r",
    ),
    (
        "an ACL lets a group in",
        "open 1 f w|creat 600; acl f -m g:3000:rw; user 1000 1000 3000; open 2 f rw; user 1000 1000; open 3 f r",
    ),
    (
        "chmod changes the mask",
        "open 1 f w|creat; acl f -m u:1000:rwx; chmod f 640; getacl f; stat f",
    ),
    (
        "a default ACL is inherited",
        "mkdir d 755; acl d -d -m u:1000:rwx; open 1 d/f w|creat 666; getacl d/f; stat d/f; mkdir d/e 777; getacl d/e; stat d/e",
    ),
    (
        "with a default ACL the umask does not count",
        "mkdir d 755; acl d -d -m u::rwx,g::rwx,o::rwx; umask 077; open 1 d/f w|creat 666; stat d/f; mkdir d/e 777; stat d/e; mknod d/p fifo 666; stat d/p",
    ),
    (
        "a default ACL restricts what is made",
        "mkdir d 755; acl d -d -m u::rw,g::-,o::-; umask 0; open 1 d/f w|creat 777; getacl d/f; stat d/f",
    ),
    (
        "a default ACL and another owner",
        "mkdir d 777; chmod d 777; acl d -d -m u:1000:rwx,g::r; user 2000 2000; open 1 d/f w|creat 664; stat d/f; getacl d/f",
    ),
    (
        "an ACL is removed",
        "open 1 f w|creat; acl f -m u:1000:rwx; acl f -b; getacl f; stat f; listx f",
    ),
    (
        "a default ACL of a file",
        "open 1 f w|creat; acl f -d -m u:1000:rwx; getacl f",
    ),
    (
        "what a user makes is theirs",
        "chmod . 777; user 1000 2000; open 1 f w|creat; mkdir d 755; symlink x l; mknod p fifo 644; stat f; stat d; lstat l; stat p",
    ),
    (
        "a user does not write to another's file",
        "open 1 f w|creat; write 1 x; user 1000 1000; open 2 f w; open 3 f r; read 3 9; chmod f 777; chown f 1000 1000; truncate f 0; utimens f 1.1 1.1; unlink f",
    ),
    (
        "a user does not make names in another's directory",
        "user 1000 1000; open 1 f w|creat; mkdir d 755; symlink x l; mknod p fifo 644",
    ),
    (
        "a user does not read what is secret",
        "open 1 f w|creat 600; write 1 x; close 1; user 1000 1000; open 2 f r; stat f; access f r; access f",
    ),
    (
        "a directory that cannot be searched",
        "mkdir d 755; open 1 d/f w|creat; chmod d 600; user 1000 1000; stat d/f; open 2 d/f r; ls d",
    ),
    (
        "a directory that can be searched only",
        "mkdir d 755; open 1 d/f w|creat; chmod d 711; user 1000 1000; stat d/f; ls d; open 2 d/f r",
    ),
    (
        "a directory that can be read only",
        "mkdir d 755; open 1 d/f w|creat; chmod d 744; user 1000 1000; ls d; stat d/f",
    ),
    (
        "a group's file",
        "open 1 f w|creat 660; chown f 0 3000; chmod f 660; user 1000 1000 3000; open 2 f rw; write 2 x; user 1000 3000; open 3 f rw; user 1000 1000; open 4 f r",
    ),
    (
        "the sticky bit",
        "mkdir d 755; chmod d 1777; open 1 d/f w|creat; user 1000 1000; unlink d/f; rename d/f d/g; open 2 d/mine w|creat; rename d/mine d/own; unlink d/own; open 3 d/m w|creat; rename d/m d/f",
    ),
    (
        "a user gives a file away",
        "chmod . 777; user 1000 1000; open 1 f w|creat; chown f 1001 -; chown f - 1001; chown f - 1000; stat f",
    ),
    (
        "a user gives a file to a group of theirs",
        "chmod . 777; user 1000 1000 3000; open 1 f w|creat; chown f - 3000; stat f; chmod f 2755; stat f",
    ),
    (
        "a user sets the setgid bit for a group that is not theirs",
        "chmod . 777; open 1 f w|creat; chown f 1000 3000; user 1000 1000; chmod f 2755; stat f",
    ),
    (
        "a setgid directory and a stranger's file",
        "mkdir d 777; chown d 0 3000; chmod d 2777; user 1000 1000; open 1 d/f w|creat 2755; stat d/f; open 2 d/g w|creat 2644; stat d/g; mkdir d/e 755; stat d/e",
    ),
    (
        "a setgid directory and a member's file",
        "umask 0; mkdir d 777; chown d 0 3000; chmod d 2777; user 1000 1000 3000; open 1 d/f w|creat 2775; stat d/f",
    ),
    (
        "supplementary groups search directories",
        "mkdir d 750; chown d 0 3000; chmod d 770; user 1000 1000 3000; open 1 d/f w|creat; stat d/f; mkdir d/e 755; rename d/f d/g; unlink d/g; rmdir d/e; ls d",
    ),
    (
        "times to now by one who may write",
        "open 1 f w|creat; chmod f 666; user 1000 1000; utimens f 1.1 1.1; open 2 f w; write 2 x",
    ),
    (
        "access is asked",
        "open 1 f w|creat 640; chown f 1000 1000; chmod f 640; user 1000 9; access f r; access f w; access f x; user 9 1000; access f r; access f w; user 9 9; access f r; access f",
    ),
    (
        "exec needs a bit",
        "open 1 f w|creat 644; access f x; chmod f 755; access f x",
    ),
    (
        "root passes by",
        "open 1 f w|creat 0; write 1 x; close 1; open 2 f rw; read 2 9; mkdir d 0; open 3 d/f w|creat; ls d",
    ),
    (
        "a file made without the right to write to it",
        "chmod . 777; user 1000 1000; open 1 f rw|creat 444; write 1 x; pread 1 0 9; open 2 f w; open 3 f r; read 3 9",
    ),
    (
        "a link to another's file",
        "open 1 f w|creat 600; chmod . 777; user 1000 1000; link f g; chmod f 600",
    ),
    (
        "flock excludes",
        "open 1 f rw|creat; open 2 f rw; flock 1 ex; flock 2 ex; flock 2 sh; flock 1 un; flock 2 ex; flock 1 sh",
    ),
    (
        "flock shares",
        "open 1 f rw|creat; open 2 f r; flock 1 sh; flock 2 sh; flock 1 ex; flock 2 un; flock 1 ex",
    ),
    (
        "a closed descriptor gives its lock back",
        "open 1 f rw|creat; open 2 f rw; flock 1 ex; close 1; flock 2 ex",
    ),
    (
        "a copy of a descriptor keeps the lock",
        "open 1 f rw|creat; dup 1 3; open 2 f rw; flock 1 ex; close 1; flock 2 ex; close 3; flock 2 ex",
    ),
    (
        "record locks exclude by range",
        "open 1 f rw|creat; open 2 f rw; lock 1 write 0 10; lock 2 write 5 10; lock 2 write 10 10; lock 2 read 0 1; lock 1 un 0 5; lock 2 read 0 5",
    ),
    (
        "record locks share",
        "open 1 f rw|creat; open 2 f rw; lock 1 read 0 0; lock 2 read 0 0; lock 2 write 0 1; lock 1 un 0 0; lock 2 write 0 1",
    ),
    (
        "a record lock by one who may not write",
        "open 1 f w|creat; open 2 f r; lock 2 write 0 1; lock 2 read 0 1; lock 1 read 0 1",
    ),
    (
        "locks stay through a rename",
        "open 1 f rw|creat; flock 1 ex; rename f g; open 2 g rw; flock 2 ex",
    ),
    ("stat of nothing: stat n", "stat n"),
    ("lstat of nothing: lstat n", "lstat n"),
    ("readlink of nothing: readlink n", "readlink n"),
    ("unlink of nothing: unlink n", "unlink n"),
    ("rmdir of nothing: rmdir n", "rmdir n"),
    ("chmod of nothing: chmod n 644", "chmod n 644"),
    ("chown of nothing: chown n 0 0", "chown n 0 0"),
    ("access of nothing: access n r", "access n r"),
    ("listx of nothing: listx n", "listx n"),
    ("getx of nothing: getx n user.a", "getx n user.a"),
    ("setx of nothing: setx n user.a x", "setx n user.a x"),
    ("truncate of nothing: truncate n 0", "truncate n 0"),
    ("open of nothing: open 1 n r", "open 1 n r"),
    ("open of nothing: open 1 n w", "open 1 n w"),
    ("open of nothing: open 1 n/m w|creat", "open 1 n/m w|creat"),
    ("mkdir of nothing: mkdir n/m 755", "mkdir n/m 755"),
    ("symlink of nothing: symlink x n/m", "symlink x n/m"),
    ("link of nothing: link n m", "link n m"),
    ("rename of nothing: rename n m", "rename n m"),
    ("utimens of nothing: utimens n 1.1 1.1", "utimens n 1.1 1.1"),
    ("ls of nothing: ls n", "ls n"),
    ("below a file: stat f/x", "open 1 f w|creat; stat f/x"),
    ("below a file: unlink f/x", "open 1 f w|creat; unlink f/x"),
    ("below a file: rmdir f/x", "open 1 f w|creat; rmdir f/x"),
    (
        "below a file: mkdir f/x 755",
        "open 1 f w|creat; mkdir f/x 755",
    ),
    (
        "below a file: open 2 f/x r",
        "open 1 f w|creat; open 2 f/x r",
    ),
    (
        "below a file: open 2 f/x w|creat",
        "open 1 f w|creat; open 2 f/x w|creat",
    ),
    (
        "below a file: symlink y f/x",
        "open 1 f w|creat; symlink y f/x",
    ),
    (
        "below a file: rename f f/x",
        "open 1 f w|creat; rename f f/x",
    ),
    ("below a file: link f f/x", "open 1 f w|creat; link f f/x"),
    (
        "below a file: rename x f/x",
        "open 1 f w|creat; rename x f/x",
    ),
    (
        "below a file: mknod f/x fifo 644",
        "open 1 f w|creat; mknod f/x fifo 644",
    ),
    ("below a file: ls f", "open 1 f w|creat; ls f"),
    ("below a file: readlink f", "open 1 f w|creat; readlink f"),
    ("below a file: rmdir f", "open 1 f w|creat; rmdir f"),
    (
        "a file made by open in a directory that is removed meanwhile",
        "mkdir d 755; open 1 d r|dir; rmdir d; open 2 d/f w|creat; mkdir d 755; open 3 d/f w|creat; stat d/f",
    ),
    (
        "a file is made again after it was removed",
        "open 1 f w|creat; write 1 one; close 1; unlink f; open 2 f r; open 3 f w|creat; fstat 3; stat f",
    ),
    (
        "a file of a name that a directory had",
        "mkdir f 755; rmdir f; open 1 f w|creat; stat f; unlink f; mkdir f 755; stat f",
    ),
    (
        "a link of a name that a file had",
        "open 1 f w|creat; unlink f; symlink x f; lstat f; readlink f",
    ),
    (
        "an empty path",
        "stat ./; open 1 ./ r|dir; mkdir ./ 755; rmdir ./",
    ),
    (
        "links up to a file that is unlinked",
        "open 1 f rw|creat; write 1 x; link f g; unlink f; fstat 1; pwrite 1 1 y; stat g; unlink g; fstat 1",
    ),
    (
        "a renamed directory's old name is free",
        "mkdir a 755; open 1 a/f w|creat; rename a b; mkdir a 755; ls a; ls b; open 2 a/f w|creat|excl; stat b/f",
    ),
    (
        "exchange of a file and a directory keeps what is in it",
        "mkdir d 755; open 1 d/f w|creat; open 2 g w|creat; write 2 x; rename d g exchange; ls g; stat d; stat g/f",
    ),
    (
        "exchange of a directory with its own part",
        "mkdir d 755; mkdir d/e 755; rename d d/e exchange",
    ),
    (
        "a file is opened by two users",
        "chmod . 777; user 1000 1000; open 1 f rw|creat 666; user 1001 1001; open 2 f r; open 3 f w; user 1000 1000; chmod f 600; user 1001 1001; open 4 f r; read 2 1",
    ),
    (
        "what is open stays open when rights are taken",
        "chmod . 777; open 1 f w|creat 666; write 1 hello; user 1000 1000; open 2 f r; user 0 0; chmod f 0; user 1000 1000; read 2 9; open 3 f r",
    ),
    (
        "reading a directory as a file",
        "mkdir d 755; open 1 d r; read 1 10; pread 1 0 10",
    ),
    (
        "writing to a directory",
        "mkdir d 755; open 1 d w; open 2 d rw; open 3 d w|creat",
    ),
    (
        "a thousand names",
        "mkdir d 755; fill d 1000; ls d; unlink d/500; ls d; stat d",
    ),
    (
        "write, truncate and write again",
        "open 1 f rw|creat; write 1 a*10000; ftruncate 1 0; write 1 b; fstat 1; pread 1 0 3; pread 1 9999 9; seek 1 0 data; seek 1 0 hole",
    ),
    (
        "truncate to a page and to odd places",
        "open 1 f rw|creat; write 1 a*10000; ftruncate 1 4096; pread 1 4090 10; ftruncate 1 4097; pread 1 4090 10; ftruncate 1 4095; ftruncate 1 8192; pread 1 4090 10",
    ),
    (
        "a sparse file of a terabyte",
        "open 1 f rw|creat; pwrite 1 1000000000000 x; fstat 1; pread 1 999999999999 9; seek 1 0 data; ftruncate 1 10; fstat 1",
    ),
    (
        "an offset that no file has",
        "open 1 f rw|creat; ftruncate 1 9223372036854775807; pwrite 1 9223372036854775806 xyz; pread 1 9223372036854775806 5; fstat 1",
    ),
    (
        "readers and writers at the same place",
        "open 1 f rw|creat; open 2 f rw; open 3 f r; pwrite 1 0 a*100; pwrite 2 50 b*100; pread 3 0 200; ftruncate 2 75; pread 1 0 200; fstat 3",
    ),
    (
        "a copy onto itself that overlaps",
        "open 1 f rw|creat; write 1 abcdef; copy 1 0 1 2 4",
    ),
    (
        "a copy of nothing",
        "open 1 f rw|creat; write 1 abc; open 2 g rw|creat; copy 1 0 2 0 0; fstat 2",
    ),
    (
        "modes are kept when a file is written",
        "open 1 f rw|creat 640; write 1 x; fchmod 1 444; write 1 y; fstat 1; open 2 f w; close 1; stat f",
    ),
    (
        "fchown and fchmod of an unlinked file",
        "open 1 f rw|creat; unlink f; fchown 1 1000 1000; fchmod 1 600; fstat 1",
    ),
    (
        "futimens of an unlinked file",
        "open 1 f rw|creat; unlink f; futimens 1 5.5 6.6; fstat 1",
    ),
    (
        "an attribute that is too long",
        "open 1 f w|creat; setx f user.a x*70000; setx f user.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn x; setx f user.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn x",
    ),
    (
        "opening by a path descriptor only",
        "open 1 f w|creat; write 1 x; open 2 f path; fstat 2; read 2 1; write 2 x; fchmod 2 600",
    ),
];
