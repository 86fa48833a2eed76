//! Passphrases of private keys in files.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::{Error, at};

/// Bytes of a file that its first line is looked for in.
const MAX_LEN: u64 = 64 << 10;

/// How often the terminal is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// For a passphrase that opens what is there.
    Once,
    /// For a new one, in which a slip would lock everybody out.
    Twice,
}

/// The first line of `file` or, where none is named, what is typed at the terminal.
///
/// # Errors
/// [`Error::Usage`] where there is nobody to ask, or a new passphrase is empty.
pub(super) fn read(file: Option<&Path>, ask: Ask) -> Result<Zeroizing<String>, Error> {
    let phrase = match file {
        Some(path) => {
            let line = first_line(path).map_err(at(path))?;
            let line = std::str::from_utf8(&line)
                .map_err(|_| at(path)(io::ErrorKind::InvalidData.into()))?;
            Zeroizing::new(line.trim_end_matches('\r').to_owned())
        }
        None if !io::stdin().is_terminal() => {
            return Err(Error::Usage(
                "there is no terminal to ask for a passphrase: use --passphrase-file".into(),
            ));
        }
        None => {
            let prompted = |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new);
            let phrase = prompted("Passphrase: ")?;
            if ask == Ask::Twice && prompted("Once more: ")? != phrase {
                return Err(Error::Failed("the two passphrases differ".into()));
            }
            phrase
        }
    };
    if ask == Ask::Twice && phrase.is_empty() {
        return Err(Error::Usage(
            "private keys are not written without a passphrase".into(),
        ));
    }
    Ok(phrase)
}

/// The first line of a file, without its end.
pub(super) fn first_line(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_LEN as usize));
    fs::File::open(path)?
        .take(MAX_LEN)
        .read_to_end(&mut content)?;
    let line = content.split(|byte| *byte == b'\n').next();
    Ok(Zeroizing::new(line.unwrap_or_default().to_vec()))
}
