//! What obs-sign's clients are answered, as bytes.

use super::request::Form;

/// The answer to a request: a status, which becomes the client's own exit status, what it asked for, and what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What was asked for.
    Done {
        /// How the values are laid out.
        form: Form,
        /// The values.
        values: Vec<Vec<u8>>,
    },
    /// A text for the client's standard error.
    Failed(String),
}

impl Reply {
    /// The bytes: status, length of the output, length of the error text, 16 bits each, then both.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Done { form, values } => match output(*form, values) {
                Some(output) => frame(0, &output, b""),
                None => frame(1, b"", b"the answer is too long\n"),
            },
            Self::Failed(reason) => {
                // What is beyond 16 bits is no message that anybody would read.
                let reason: String = reason.chars().take(4096).collect();
                frame(1, b"", format!("{reason}\n").as_bytes())
            }
        }
    }
}

fn frame(status: u16, output: &[u8], error: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let head = [status, length(output), length(error)].map(u16::to_be_bytes);
    [head.as_flattened(), output, error].concat()
}

/// The values in the form of the request, or nothing where 16 bits are too few for a length.
fn output(form: Form, values: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    if form == Form::New {
        output.extend(u16::try_from(values.len()).ok()?.to_be_bytes());
        for value in values {
            output.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        }
    }
    for value in values {
        output.extend_from_slice(value);
    }
    u16::try_from(output.len()).ok()?;
    Some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_whose_length_does_not_fit_is_a_failure() {
        for form in [Form::Old, Form::New] {
            let done = Reply::Done {
                form,
                values: vec![vec![0; 40_000]; 2],
            };
            let bytes = done.to_bytes();
            assert!(bytes.starts_with(&[0, 1, 0, 0, 0, 23]));
            assert!(bytes.ends_with(b"the answer is too long\n"));
        }
    }
}
