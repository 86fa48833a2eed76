//! S-expressions as libgcrypt writes them, canonical or advanced.
//!
//! Source: RFC 9804.

use zeroize::Zeroizing;

/// Lists within lists; GnuPG's private keys have five.
const MAX_DEPTH: usize = 16;

/// A text or a list. Its texts may be secret, and are cleared.
pub(super) enum Sexp {
    Atom(Zeroizing<Vec<u8>>),
    List(Vec<Sexp>),
}

impl Sexp {
    /// Reads the list that `text` begins with; what follows it is left alone.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        Parser { rest: text }.list(0)
    }

    /// What a list has behind its name: of the first list within this one that has the name.
    pub(super) fn find(&self, name: &str) -> Option<&[Self]> {
        self.children()?
            .iter()
            .find_map(|child| match child.children()?.split_first()? {
                (head, rest) if head.is(name) => Some(rest),
                _ => None,
            })
    }

    /// The text of `(name text)` within this list.
    pub(super) fn value(&self, name: &str) -> Option<&[u8]> {
        self.find(name)?.first()?.atom()
    }

    pub(super) fn children(&self) -> Option<&[Self]> {
        match self {
            Self::List(children) => Some(children),
            Self::Atom(_) => None,
        }
    }

    pub(super) fn atom(&self) -> Option<&[u8]> {
        match self {
            Self::Atom(text) => Some(text),
            Self::List(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.atom()?).ok()
    }

    /// Whether this is the text `name`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.atom() == Some(name.as_bytes())
    }

    /// Whether this is a list with that name.
    pub(super) fn is_list(&self, name: &str) -> bool {
        self.children()
            .and_then(<[Self]>::first)
            .is_some_and(|head| head.is(name))
    }

    /// The canonical form of a list of `children`.
    pub(super) fn encode_list<'a>(
        children: impl IntoIterator<Item = &'a Self>,
        output: &mut Vec<u8>,
    ) {
        output.push(b'(');
        for child in children {
            match child {
                Self::Atom(text) => {
                    output.extend_from_slice(format!("{}:", text.len()).as_bytes());
                    output.extend_from_slice(text);
                }
                Self::List(children) => Self::encode_list(children, output),
            }
        }
        output.push(b')');
    }
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn list(&mut self, depth: usize) -> Option<Sexp> {
        if depth > MAX_DEPTH || self.next()? != b'(' {
            return None;
        }
        let mut children = Vec::new();
        loop {
            self.rest = self.rest.trim_ascii_start();
            match self.rest.first()? {
                b')' => {
                    self.next()?;
                    return Some(Sexp::List(children));
                }
                b'(' => children.push(self.list(depth + 1)?),
                _ => children.push(Sexp::Atom(self.atom()?)),
            }
        }
    }

    fn atom(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        match self.rest.first()? {
            b'#' => {
                self.next()?;
                let digits = self.until(|byte| byte == b'#')?;
                self.next()?;
                // Room for all at once: what a vector grows out of is not cleared.
                let mut pairs = Zeroizing::new(Vec::with_capacity(digits.len()));
                pairs.extend(digits.iter().filter(|byte| !byte.is_ascii_whitespace()));
                let mut bytes = Zeroizing::new(vec![0; pairs.len() / 2]);
                hex::decode_to_slice(&*pairs, &mut bytes).ok()?;
                Some(bytes)
            }
            b'"' => {
                self.next()?;
                self.quoted()
            }
            b'0'..=b'9' => {
                let digits = self.until(|byte| !byte.is_ascii_digit())?;
                if self.rest.first() != Some(&b':') {
                    return Some(Zeroizing::new(digits.to_vec()));
                }
                self.next()?;
                let len = std::str::from_utf8(digits).ok()?.parse().ok()?;
                let (text, rest) = self.rest.split_at_checked(len)?;
                self.rest = rest;
                Some(Zeroizing::new(text.to_vec()))
            }
            _ => {
                let token = self.until(|byte| {
                    byte.is_ascii_whitespace() || matches!(byte, b'(' | b')' | b'#' | b'"')
                })?;
                (!token.is_empty()).then(|| Zeroizing::new(token.to_vec()))
            }
        }
    }

    /// The rest of a quoted text, whose control characters, quotes and backslashes are written with a backslash.
    fn quoted(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let mut is_escaped = false;
        let written = self.rest.iter().position(|byte| {
            let ends = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            ends
        })?;
        let mut text = Zeroizing::new(Vec::with_capacity(written));
        loop {
            let byte = match self.next()? {
                b'"' => return Some(text),
                b'\\' => match self.next()? {
                    b'b' => 0x08,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    b'r' => b'\r',
                    b'x' => self.digits(2, 16)?,
                    digit @ b'0'..=b'3' => ((digit - b'0') << 6) | self.digits(2, 8)?,
                    byte @ (b'"' | b'\'' | b'\\') => byte,
                    _ => return None,
                },
                byte => byte,
            };
            text.push(byte);
        }
    }

    fn digits(&mut self, count: usize, radix: u32) -> Option<u8> {
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// What comes before the first byte that `ends` it.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let len = self.rest.iter().position(|byte| ends(*byte))?;
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_however_it_is_written() {
        let wanted = b"t.d\r\"\\\x7f\xa1\n";
        for written in [
            b"(4:list(1:x9:t.d\r\"\\\x7f\xa1\n))".as_slice(),
            b"(\"a list\"(x #742E 640D225C7F a10A#))",
            b"(list ( x \"t.d\\r\\\"\\\\\\x7f\xa1\\n\" ) )",
            b"(list(x\"t\\056\\144\\015\\042\\134\\177\\241\\012\"))",
        ] {
            let shown = String::from_utf8_lossy(written);
            let list = Sexp::parse(written).unwrap();
            assert_eq!(list.value("x"), Some(&wanted[..]), "{shown}");
        }
        for broken in ["(x", "(x \"a)", "(x \"\\q\")", "(9:x)", "(x #1#)", "x", ""] {
            assert!(Sexp::parse(broken.as_bytes()).is_none(), "{broken}");
        }
        assert!(Sexp::parse("(".repeat(100_000).as_bytes()).is_none());
    }
}
